"""Opening files that may be anything: only regular files are read, and never more of them than was asked for."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from aprender.errors import FormatError


@dataclass(frozen=True, slots=True)
class Identity:
    """Which bytes a path named at one moment: a file changed or replaced since then has another identity."""

    device: int
    inode: int
    size: int
    modified_ns: int


def open_file(path: Path) -> BufferedReader:
    """Open the regular file at ``path``, links followed. Raises FormatError for a folder, a device, a pipe or none."""
    try:
        # a pipe would block until somebody writes to it
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FormatError(f"{path}: is neither a file nor a folder; give a model folder, a .gguf or an .apr file")
    return file


def read_file(path: Path, limit: int) -> bytes:
    """All bytes of the file at ``path``. Raises FormatError when it can't be read or has more than ``limit``."""
    with open_file(path) as file:
        try:
            content = file.read(limit + 1)
        except OSError as error:
            raise unreadable(path, error) from error
    if len(content) > limit:
        raise FormatError(f"{path}: is larger than {limit >> 20} MiB, which no such file is; fetch it again")
    return content


def identity_of(path: Path) -> Identity:
    """What ``path`` names now. Raises FormatError when it names nothing."""
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def unreadable(path: Path, error: OSError) -> FormatError:
    """The one sentence for a path that the operating system refuses."""
    if isinstance(error, IsADirectoryError):
        return FormatError(f"{path}: is a folder, not a file; check the path")
    if isinstance(error, FileNotFoundError):
        return FormatError(f"{path}: there is no such file or folder; check the path")
    return FormatError(f"{path}: can't be read ({error.strerror}); check the path and its permissions")

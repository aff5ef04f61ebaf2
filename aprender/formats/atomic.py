"""Files and folders that come into being whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aprender.errors import FormatError


@contextmanager
def new_file(target: Path, *, force: bool) -> Iterator[Path]:
    """A path beside ``target`` to write to; it becomes ``target`` when the block ends without an exception.

    Its bytes are on the disk before it gets its name. Raises FormatError where ``target`` is there and ``force``
    isn't given, or where it is no file.
    """
    _check_target(target, force=force)
    if target.is_dir():
        raise FormatError(f"{target}: is a folder, and a file is to be written; give another name")
    with _temporary_folder(target) as folder:
        temporary = folder / target.name
        yield temporary
        sync(temporary)
        _put(temporary, target, force=force)


@contextmanager
def new_folder(target: Path, *, force: bool, replaceable: frozenset[str]) -> Iterator[Path]:
    """A folder beside ``target`` to write files to; it becomes ``target`` when the block ends without an exception.

    With ``force``, a folder that holds nothing but ``replaceable`` files is replaced. Raises FormatError where
    ``target`` is there and isn't to be replaced.
    """
    _check_target(target, force=force)
    if target.exists():
        others = [entry.name for entry in target.iterdir() if entry.name not in replaceable] if target.is_dir() else []
        if others or not target.is_dir():
            what = f"holds {', '.join(sorted(others)[:3])}, too" if others else "is no folder"
            raise FormatError(f"{target}: {what}, so it isn't replaced; give another name")
    with _temporary_folder(target) as folder:
        temporary = folder / target.name
        temporary.mkdir()
        yield temporary
        for file in temporary.iterdir():
            sync(file)
        sync(temporary)
        if target.exists():
            target.rename(folder / "replaced")
        _put(temporary, target, force=False)


def sync(path: Path) -> None:
    """Have the operating system put the file or folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_target(target: Path, *, force: bool) -> None:
    if not target.parent.is_dir():
        raise FormatError(f"{target.parent}: there is no such folder; make it first")
    if os.path.lexists(target) and not force:
        raise FormatError(f"{target}: is there already; --force replaces it")


@contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    """On the same file system as ``target``, so that renaming is all that is left to do."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}.", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put(temporary: Path, target: Path, *, force: bool) -> None:
    if force or temporary.is_dir():
        temporary.replace(target)  # of a folder: fails where somebody made one of that name meanwhile
    else:
        try:
            os.link(temporary, target)  # unlike a rename, never replaces
        except FileExistsError as error:
            raise FormatError(f"{target}: was made by another program meanwhile; --force replaces it") from error
    sync(target.parent)

"""Which files are contracts: files as named, folders searched."""

# No postponed annotations here: NamedTuple would compile each from its text, which costs as much as a small contract.

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from aprender.contracts.findings import Finding
from aprender.errors import AprenderError

SUFFIXES = (".yaml", ".yml")
STANDARD_INPUT = "-"
MAX_BYTES = 16 * 2**20
# Opening a pipe must not wait for somebody to write into it; text mode would change line breaks on Windows.
_WITHOUT_WAITING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
# What the published tool does not look at either: other kinds of file that stand among contracts.
OTHER_FOLDERS = frozenset(("kaizen", "legacy", "pipelines", "publish-manifests"))
OTHER_FILES = frozenset(("binding.yaml", "external-corpora.yaml", "ontology.yaml"))


class NothingToDo(AprenderError):
    """No contract was found, or nothing was selected."""


class Found(NamedTuple):
    """The contract files, and what was passed over in the folders that were searched."""

    files: tuple[str, ...]
    passed_over: tuple[str, ...]


def contract_files(paths: Iterable[str | os.PathLike[str]]) -> Found:
    """The contract files in ``paths``. Raises NothingToDo where there is none, or a path does not exist."""
    names = [os.fspath(path) for path in paths]
    files: dict[str, str] = {}  # by what they really are: a file named twice is one contract
    passed_over: list[str] = []
    for name in names:
        if name == STANDARD_INPUT:
            files.setdefault(name, name)
        elif os.path.isdir(name):
            found = sorted(_below(name, set(), passed_over))
            for path, real in found:
                files.setdefault(real, path)
        elif os.path.exists(name):
            files.setdefault(os.path.realpath(name), name)
        else:
            raise NothingToDo(f"{name}: no such file or folder; name a contract or a folder of contracts")
    if not files:
        message = f"{', '.join(names)}: no contract found (looked for *.yaml and *.yml); is this the right folder?"
        raise NothingToDo(f"{message} Passed over: {', '.join(passed_over)}" if passed_over else message)
    return Found(tuple(files.values()), tuple(passed_over))


@lru_cache(10_000)  # asked for several times for each file
def stem(file: str) -> str:
    """The file's name without folder and suffix: the name that contracts go by."""
    return os.path.splitext(os.path.basename(file))[0]


def read_content(file: str) -> bytes | Finding:
    """The bytes of ``file`` (``-``: standard input), or the finding that says why not; at most one over MAX_BYTES."""
    if file == STANDARD_INPUT:
        if sys.stdin is None:
            return Finding(file, 1, 1, "YAML-002", "error", "standard input is closed; name a file, or pipe one in")
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        opened = os.open(file, _WITHOUT_WAITING)
        try:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode):
                return Finding(file, 1, 1, "YAML-002", "error", "not a regular file; a contract is one")
            return _read(opened, min(status.st_size, MAX_BYTES + 1))
        finally:
            os.close(opened)
    except OSError as error:
        return Finding(file, 1, 1, "YAML-002", "error", f"can't read the file: {error.strerror}")


def _read(opened: int, size: int) -> bytes:
    """Up to ``size`` bytes: one may come in parts."""
    parts = [os.read(opened, size)]
    while parts[-1] and (left := size - sum(map(len, parts))) > 0:
        parts.append(os.read(opened, left))
    return b"".join(parts)


def _below(folder: str, seen: set[str], passed_over: list[str]) -> Iterator[tuple[str, str]]:
    """(path, real path) of contract files in ``folder`` and below; links are followed, hidden names passed over."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if _leads_to(entry.is_dir, otherwise=False):
            if entry.name in OTHER_FOLDERS:
                passed_over.append(entry.path)
            else:
                yield from _below(entry.path, seen, passed_over)
        elif entry.name.lower().endswith(SUFFIXES) and _leads_to(entry.is_file, otherwise=True):
            if entry.name in OTHER_FILES:
                passed_over.append(entry.path)
            else:
                target = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
                yield entry.path, target


def _leads_to(asked: Callable[[], bool], *, otherwise: bool) -> bool:
    """What an entry of a folder says of itself; a link that leads in a circle says nothing: reading it will tell."""
    try:
        return asked()
    except OSError:
        return otherwise

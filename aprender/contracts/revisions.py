"""Where the two sides of a diff come from: files, folders of them, and revisions that git keeps."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import PurePosixPath
from typing import NamedTuple

from aprender.contracts.document import Document
from aprender.contracts.findings import did_you_mean
from aprender.contracts.reader import read_text
from aprender.contracts.validate import NothingToDo
from aprender.errors import AprenderError

SAME_PATH = "git:"  # git:REV means: the path of the other side, as it was at REV
_SUFFIXES = (".yaml", ".yml")
_UNREADABLE = ("YAML-001", "YAML-002", "YAML-004")  # what was not read might be anything


class Side(NamedTuple):
    """Contracts by stem: the name to show and the bytes; ``is_folder`` says that files are paired by stem."""

    is_folder: bool
    files: dict[str, tuple[str, bytes]]


def side_of(name: str, other: str) -> Side:
    """What ``name`` names: a path, ``REV:path`` or ``git:REV`` with the path of ``other``."""
    if os.path.exists(name):
        return _on_disk(name)
    if name.startswith(SAME_PATH):
        if not os.path.exists(other):
            raise NothingToDo(f"{name} needs a path on the other side; {other}: no such file or folder")
        # From inside of a folder, git finds the repository that it belongs to, or is.
        folder, path = (other, "") if os.path.isdir(other) else os.path.split(os.path.abspath(other))
        return _in_git(name.removeprefix(SAME_PATH), f"./{path}", folder, f"{name}:{other}")
    revision, colon, path = name.partition(":")
    if colon and revision:
        return _in_git(revision, path, ".", name)
    if os.path.islink(name):
        raise NothingToDo(f"{name}: a link that leads nowhere; name the file itself")
    folder = os.path.dirname(name) or "."
    hint = did_you_mean(os.path.basename(name), os.listdir(folder)) if os.path.isdir(folder) else ""
    raise NothingToDo(f"{name}: no such file or folder.{hint} A path, REV:path or git:REV is needed")


def document_of(name: str, raw: bytes) -> Document:
    """The contract in ``raw``. Raises AprenderError where what can't be read might be anything."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AprenderError(f"{name}: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from None
    document, findings = read_text(text, name)
    for finding in findings:
        if document is None or finding.rule in _UNREADABLE:
            raise AprenderError(f"{name}:{finding.line}:{finding.column}: {finding.rule} {finding.message}")
    if document is None or not isinstance(document.data, dict):
        raise AprenderError(f"{name}: a contract is a mapping; this is something else")
    return document


def _on_disk(path: str) -> Side:
    if not os.path.isdir(path):
        return Side(False, {_stem(path): (path, _read(path))})
    names = (os.path.join(parent, name) for parent, _, names in os.walk(path) for name in names)
    return _folder(path, {name: _read(name) for name in sorted(names) if _is_contract(os.path.relpath(name, path))})


def _read(path: str) -> bytes:
    if not os.path.isfile(path):
        raise AprenderError(f"{path}: not a regular file; a contract is one")
    with open(path, "rb") as file:
        return file.read()


def _in_git(revision: str, path: str, folder: str, label: str) -> Side:
    commit = _git(folder, label, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    found = f"{commit.decode().strip()}:{path}"
    if _git(folder, label, "cat-file", "-t", found).strip() != b"tree":
        return Side(False, {_stem(path): (label, _followed(folder, label, found))})
    # The whole tree: else git lists only what lies in the current folder's own path below it.
    listing = _git(folder, label, "ls-tree", "-r", "-z", "--full-tree", found).decode("utf-8", "surrogateescape")
    entries = [entry.partition("\t") for entry in listing.split("\0") if entry]
    names = sorted(name for mode, _, name in entries if mode.split()[1] == "blob" and _is_contract(name))
    below, root = (found if found.endswith((":", "/")) else f"{found}/"), label.rstrip("/")
    return _folder(label, {f"{root}/{name}": _followed(folder, f"{root}/{name}", below + name) for name in names})


def _followed(folder: str, label: str, place: str) -> bytes:
    """A file of a revision, or what the symbolic link there leads to in that revision."""
    answer = _git(folder, label, "cat-file", "--batch", "--follow-symlinks", given=place + "\n")
    head, _, content = answer.partition(b"\n")
    words = head.split()
    if len(words) != 3 or words[1] != b"blob":
        raise AprenderError(f"{label}: a link that leads to no file of that revision; name the file itself")
    return content[: int(words[2])]


def _git(folder: str, label: str, *words: str, given: str = "") -> bytes:
    command = ["git", "-C", folder, *words]
    try:
        done = subprocess.run(command, input=os.fsencode(given), capture_output=True, check=False)  # noqa: S603 - git itself
    except OSError:
        raise NothingToDo(f"{label}: git is not installed here") from None
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip().removeprefix("fatal: ") or "no such revision"
        reason = re.sub(r"'[0-9a-f]{40,64}'", "that revision", " ".join(reason.split()))
        raise NothingToDo(f"{label}: {reason}; give a path, REV:path or git:REV")
    return done.stdout


def _folder(label: str, contents: dict[str, bytes]) -> Side:
    files: dict[str, tuple[str, bytes]] = {}
    for name, raw in contents.items():
        if _stem(name) in files:
            raise AprenderError(
                f"{label}: {files[_stem(name)][0]} and {name} have one stem; contracts are paired by stem"
            )
        files[_stem(name)] = (name, raw)
    if not files:
        raise NothingToDo(f"{label}: no contract found (looked for *.yaml and *.yml); is this the right folder?")
    return Side(True, files)


def _stem(name: str) -> str:
    return os.path.splitext(os.path.basename(name))[0]


def _is_contract(name: str) -> bool:
    path = PurePosixPath(name.replace(os.sep, "/"))
    return path.suffix.lower() in _SUFFIXES and not any(part.startswith(".") for part in path.parts)

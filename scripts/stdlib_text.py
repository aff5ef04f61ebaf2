"""Python's standard library as text: whole modules to train on, others held out, with no three lines in common."""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

HELD_OUT = ("textwrap.py", "bisect.py", "fnmatch.py", "colorsys.py", "stat.py")
# Tables, generated code, vendored or near-duplicate trees, and what exists only in some builds of Python.
EXCLUDED = {
    "__phello__", "__pycache__", "_pydecimal.py", "_pyio.py", "config-3.11-x86_64-linux-gnu", "ctypes", "curses",
    "dbm", "distutils", "email", "encodings", "ensurepip", "html", "idlelib", "imaplib.py", "importlib",
    "lib-dynload", "lib2to3", "locale.py", "mailbox.py", "msilib", "multiprocessing", "pickletools.py", "pydoc.py",
    "pydoc_data", "re", "site-packages", "sqlite3", "test", "tests", "tkinter", "turtle.py", "turtledemo",
    "unittest", "venv", "wsgiref", "xml", "xmlrpc",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StdlibText:
    """Both texts, and the sha256 of every file they were made of by path relative to the library's folder."""

    training: str
    held_out: str
    training_sha256: dict[str, str]
    held_out_sha256: dict[str, str]


def read() -> StdlibText:
    """Read the running Python's library; lines of the training text that repeat held-out lines are dropped."""
    root = Path(sysconfig.get_paths()["stdlib"])
    held_out_paths = [root / name for name in HELD_OUT]
    paths = sorted(
        path
        for path in root.rglob("*.py")
        if path not in held_out_paths
        and EXCLUDED.isdisjoint(path.relative_to(root).parts)
        and not path.name.startswith("_sysconfigdata")
    )
    held_out = _joined(held_out_paths)
    training = without_runs(_joined(paths), set(run_hashes(held_out)))
    return StdlibText(training, held_out, _sha256(root, paths), _sha256(root, held_out_paths))


def run_hashes(text: str) -> list[int]:
    """Hash every run of three consecutive non-blank lines, stripped.

    A hash is the first four bytes, little-endian, of sha256 over the three lines joined by newlines in UTF-8.
    """
    lines = [stripped for line in text.splitlines() if (stripped := line.strip())]
    return [_run_hash(lines[i : i + 3]) for i in range(len(lines) - 2)]


def without_runs(text: str, hashes: set[int]) -> str:
    """Drop lines of ``text`` until no run of three is in ``hashes``; dropping makes new neighbours, so it repeats."""
    while True:
        lines = text.splitlines(keepends=True)
        filled = [i for i, line in enumerate(lines) if line.strip()]
        found = [position for position, value in enumerate(run_hashes(text)) if value in hashes]
        if not found:
            return text
        dropped = {filled[position + offset] for position in found for offset in range(3)}
        text = "".join(line for i, line in enumerate(lines) if i not in dropped)


def _run_hash(lines: list[str]) -> int:
    return int.from_bytes(hashlib.sha256("\n".join(lines).encode()).digest()[:4], "little")


def _joined(paths: list[Path]) -> str:
    texts = [path.read_text(encoding="utf-8") for path in paths]
    assert all("\r" not in text for text in texts)  # noqa: S101
    return "\n".join(texts)


def _sha256(root: Path, paths: list[Path]) -> dict[str, str]:
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

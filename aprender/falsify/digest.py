"""Digests that evidence binds to: sha256 over canonical JSON (RFC 8785) and over files."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import rfc8785

from aprender.errors import AprenderError

_READ_VERDICTS = ("evidence.py", "gate.py", "claims.py", "check_binding.py", "node_ids.py")  # and make none


class NotCanonical(AprenderError):
    """The data has no canonical JSON form: a NaN, an infinity, or an integer beyond 2**53."""


def canonical(data: Any) -> bytes:
    """RFC 8785 canonical JSON. Raises NotCanonical."""
    try:
        return rfc8785.dumps(data)
    except rfc8785.CanonicalizationError as error:
        raise NotCanonical(f"no canonical JSON (RFC 8785) for this value: {error}") from None


def digest(data: Any) -> str:
    """sha256, in hexadecimal, of the canonical JSON of ``data``."""
    return hashlib.sha256(canonical(data)).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(root: Path, files: Iterable[Path]) -> str:
    """One digest of many files: their paths relative to ``root`` and their contents."""
    return digest({file.relative_to(root).as_posix(): file_digest(file) for file in files})


def glob_files(root: Path, patterns: Iterable[str]) -> list[Path]:
    """The files under ``root`` that the globs match. Raises AprenderError for a glob that matches none."""
    found: set[Path] = set()
    for pattern in patterns:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise AprenderError(f"code_under_contract: '{pattern}' leaves the project; write it relative to {root}")
        matched = [path for path in root.glob(pattern) if path.is_file() and "__pycache__" not in path.parts]
        if not matched:
            raise AprenderError(f"code_under_contract: '{pattern}' matches no file under {root}; correct the glob")
        found.update(matched)
    return sorted(found)


def package_files(root: Path, top: str) -> tuple[Path, list[Path]]:
    """The folder and all Python sources of the top-level package ``top``, found without importing it.

    The project's own package wins; else an installed one. Raises AprenderError where there is none.
    """
    local = root / top
    if local.is_dir():
        return root, sorted(local.rglob("*.py"))
    if (single := root / f"{top}.py").is_file():
        return root, [single]
    try:
        spec = importlib.util.find_spec(top) if top else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise AprenderError(f"no package '{top}' in {root}, and no installed one with Python sources")
    folder = Path(spec.origin).parent
    return folder, sorted(folder.rglob("*.py")) if spec.submodule_search_locations else [Path(spec.origin)]


def judge_digest() -> str:
    """A digest of the code that turns contracts and observations into verdicts."""
    falsify = Path(__file__).parent
    contracts = falsify.parent / "contracts"
    judging = [file for file in falsify.glob("*.py") if file.name not in _READ_VERDICTS]
    reading = ("core_schema.py", "reader.py", "stand_ins.py", "syntax.py")
    judging += [contracts / name for name in ("contract.py", "document.py", "expression.py", "units.py", *reading)]
    return files_digest(falsify.parent, sorted(judging))


def git_state(root: Path) -> dict[str, Any]:
    """The commit checked out in ``root``, and whether tracked files but evidence differ from it; nulls without git."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(  # noqa: S603 - fixed words, no shell
                ["git", "-C", str(root), *words],  # noqa: S607 - the user's own git
                capture_output=True, text=True, timeout=10, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "--verify", "--quiet", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!evidence") if commit else None
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}

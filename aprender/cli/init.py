"""``pv init``: a repository's first contract, the falsifier that tries it, and the CI file that holds it to that."""

from __future__ import annotations

import argparse
import os
from importlib import resources
from pathlib import Path

from aprender.cli.console import NOTHING_TO_DO, complain, say
from aprender.errors import AprenderError

HOLDS = 0
FILES = {
    "contracts/softmax-v1.yaml": "contract.yaml",
    "falsifiers/__init__.py": "falsifiers_init.py",
    "falsifiers/softmax.py": "falsifiers_softmax.py",
    "example/__init__.py": "example_init.py",
    "example/softmax.py": "example_softmax.py",
    ".github/workflows/contracts.yml": "workflow.yml",
}
# Most repositories have these: where one stands, `pv init` prints what belongs into it.
SHARED_FILES = {"pyproject.toml": "pyproject.toml", ".gitignore": "gitignore"}
NEXT = """\
Try it, from {folder}:
  pv validate --bind   # the contract is sound, and the probe fits it
  pv run               # GREEN: it holds, and each planted defect turned it RED
  pytest contracts     # the same, as tests
  pv gate              # may it ship?
Then break example/softmax.py, run it again, and write a contract of your own."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the argument."""
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER", help="default: this folder")
    parser.epilog = "Nothing is overwritten: where a file with other content stands, nothing is written; exit code 2."


def run(arguments: argparse.Namespace) -> int:
    """Write what is missing, say what was written and what to do next."""
    folder: Path = arguments.folder
    wanted = {folder / name: _template(source) for name, source in FILES.items()}
    shared = {folder / name: _template(source) for name, source in SHARED_FILES.items()}
    blocked = [path for path in (*wanted, *shared) if _obstacle(path, folder)]
    blocked += [path for path, text in wanted.items() if path.is_file() and path.read_bytes() != text]
    if blocked:
        complain(f"nothing was written: {', '.join(map(str, blocked))}: stands there with other content")
        complain("move it away, or start in another folder: pv init FOLDER")
        return NOTHING_TO_DO
    hints = [_hint(path, text.decode()) for path, text in shared.items() if path.exists()]
    for path, text in {**wanted, **shared}.items():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
            say(f"made {path}")
        elif path in wanted:
            say(f"kept {path}: it is the same already")
    say("\n".join([*filter(None, hints), NEXT.format(folder=folder.resolve())]))
    return HOLDS


def _template(source: str) -> bytes:
    return resources.files("aprender.cli").joinpath("templates", f"{source}.template").read_bytes()


def _obstacle(path: Path, folder: Path) -> bool:
    """Whether something other than a file stands where ``path`` is to be, or other than a folder above it.

    A link that leads nowhere is such a thing.
    """
    above = [parent for parent in path.parents if parent == folder or folder in parent.parents]
    if os.path.lexists(folder) and not folder.is_dir():
        raise AprenderError(f"{folder} is not a folder; name one, or a name that is free")
    blocked = any(os.path.lexists(parent) and not parent.is_dir() for parent in above)
    return blocked or (os.path.lexists(path) and not path.is_file())


def _hint(path: Path, text: str) -> str:
    """The blocks of ``text`` that the file lacks, for its author to add."""
    present = {line.split("#")[0].strip() for line in path.read_text("utf-8", "replace").splitlines()}
    lines = text.splitlines()
    if path.name == "pyproject.toml":
        blocks = [block for block in text.strip().split("\n\n") if block.splitlines()[0] not in present]
        lines = "\n\n".join(blocks).splitlines()
    else:
        lines = [line for line in lines if not line.startswith("#") and line not in present]
    return "\n".join([f"add to {path}, which is yours:", *(f"  {line}".rstrip() for line in lines)]) if lines else ""

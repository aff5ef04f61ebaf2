"""Which files a probe may load, read from import statements: complete, or said not to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from aprender.falsify.imports import closure
from aprender.falsify.sources import probe_files

FILES = {
    "checks/__init__.py": "",
    "checks/one.py": "import os, helper\nfrom checks.shared import thing\n",
    "checks/shared.py": "def f():\n    if f:\n        from .deep import inner\n",
    "checks/deep/__init__.py": "from . import side\n",
    "checks/deep/inner.py": "from ...one import nothing\nfrom .. import star\n",
    "checks/deep/side.py": "",
    "checks/star.py": "from parts import *\n",
    "checks/other.py": "import helper\n",
    "parts/a.py": "",
    "parts/b.py": "this does not parse",
    "helper.py": "",
    "unused.py": "",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def names(root: Path, module: str) -> set[str]:
    return {file.relative_to(root).as_posix() for file in closure(root, module).files}


def test_every_import_is_followed_whatever_its_form(root: Path) -> None:
    """Relative, in functions, of packages, with a star; what nothing imports is left out."""
    found = names(root, "checks.one")
    assert found == set(FILES) - {"checks/other.py", "unused.py"}
    assert closure(root, "checks.one").complete
    assert names(root, "checks.other") == {"checks/__init__.py", "checks/other.py", "helper.py"}


@pytest.mark.parametrize(
    ("line", "found", "complete"),
    [
        ('importlib.import_module("parts.a")', {"parts/a.py"}, True),
        ('x = [import_module(f"parts.{name}") for name in "ab"]', {"parts/a.py", "parts/b.py"}, True),
        ("import_module(name)", set(), False),
        ('import_module(f"{package}.a")', set(), False),
        ('import_module(f"parts.{a}.b")', set(), False),
        ("from importlib import import_module as load", set(), False),
        ("__import__(name)", set(), False),
        ("exec(text)", set(), False),
    ],
)
def test_imports_by_name_are_followed_or_said_to_be_unknown(
    line: str, found: set[str], complete: bool, root: Path
) -> None:
    """A name that only running it can tell."""
    (root / "checks/other.py").write_text(f"{line}\n")
    assert names(root, "checks.other") == {"checks/__init__.py", "checks/other.py"} | found
    assert closure(root, "checks.other").complete is complete


def test_where_imports_are_unknown_the_whole_package_counts(root: Path) -> None:
    """As many files as could be loaded."""
    assert root / "checks/star.py" not in probe_files(root, "checks.other:probe").files
    (root / "checks/other.py").write_text("__import__(name)\n")
    assert root / "checks/star.py" in probe_files(root, "checks.other:probe").files


def test_a_module_that_appears_changes_the_digest(root: Path) -> None:
    """It would be loaded in the place of another."""
    (root / "checks/other.py").write_text("try:\n    import fast\nexcept ImportError:\n    import helper\n")
    before = probe_files(root, "checks.other:probe").digest()
    (root / "fast.py").write_text("")
    assert probe_files(root, "checks.other:probe").digest() != before


def test_a_file_that_python_warns_of_is_read_in_silence(root: Path) -> None:
    """Warnings are errors in these tests: an escape that there is not would be one."""
    (root / "checks/other.py").write_text("import helper\nTEXT = '\\d'\n")
    assert "helper.py" in names(root, "checks.other")

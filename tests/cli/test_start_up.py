"""Start-up is part of the interface: what is not needed is not imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONTRACT = Path(__file__).parents[2] / "contracts" / "apr-pretrain-cuda-forward-parity-v1.yaml"
SLOW = {
    "torch", "numpy", "click", "jsonschema", "rich", "dataclasses", "inspect", "pathlib", "asyncio", "concurrent.futures",
    "difflib", "tomllib", "unicodedata", "importlib.metadata", "urllib.parse", "xml", "subprocess",
}  # fmt: skip
CODE = """\
import sys
before = set(sys.modules)
from aprender.cli.pv import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print(*sorted(set(sys.modules) - before), file=sys.stderr)
"""


def imported_by(*words: str) -> set[str]:
    """What ``pv WORDS`` imports in a process of its own; what the interpreter has at its start doesn't count."""
    done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["validate", str(CONTRACT)],
        ["validate", "--format", "json", str(CONTRACT)],
        ["graph", str(CONTRACT)],
        ["coverage", str(CONTRACT)],
        ["equations", str(CONTRACT)],
    ],
    ids=["version", "validate", "json", "graph", "coverage", "equations"],
)
def test_pv_imports_only_what_it_needs(words: list[str]) -> None:
    """For a valid contract; difflib and unicodedata may come in where there is a finding to show."""
    imported = imported_by(*words)
    assert "aprender.cli.pv" in imported
    assert imported & SLOW == set()


def test_the_version_costs_no_parser() -> None:
    """``pv --version`` reads no YAML and parses no arguments."""
    assert imported_by("--version") & {"yaml", "json", "aprender.contracts.reader"} == set()

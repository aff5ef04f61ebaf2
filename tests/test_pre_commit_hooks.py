"""The hook that other repositories take from this one."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from aprender.cli.pv import main
from aprender.contracts.reader import read_bytes

ROOT = Path(__file__).parents[1]
FILE = ROOT / ".pre-commit-hooks.yaml"
CONTRACT = """\
schema_version: 2
metadata: {{version: "1.0.0", description: d, references: [r], kind: pattern}}
falsification_tests:
  - {{id: {name}, rule: r, prediction: p, if_fails: i{more}}}
"""


def hook() -> dict[str, Any]:
    document, findings = read_bytes(FILE.read_bytes(), str(FILE))
    assert document is not None
    assert findings == []
    (entry,) = document.data
    assert isinstance(entry, dict)
    return entry


def test_the_hook_has_what_pre_commit_needs() -> None:
    """id, name, entry and language are mandatory; the entry is a script that this package installs."""
    entry = hook()
    assert (entry["id"], entry["entry"], entry["language"]) == ("pv-validate", "pv validate", "python")
    assert entry["name"]
    assert entry["types"] == ["yaml"]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert shlex.split(entry["entry"])[0] in scripts


@pytest.mark.parametrize(
    ("path", "taken"), [("contracts/a.yaml", True), ("contracts/sub/a.yml", True), ("docs/contracts/a.yaml", False)]
)
def test_it_looks_at_contracts_only(path: str, taken: bool) -> None:
    """pre-commit searches with the regular expression under ``files``."""
    assert (re.search(hook()["files"], path) is not None) is taken


def test_the_hook_looks_at_all_contracts_whichever_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """pre-commit gives no names, so that an id which is taken by a file that did not change is seen."""
    assert hook()["pass_filenames"] is False
    monkeypatch.chdir(tmp_path)
    (tmp_path / "contracts").mkdir()
    words = shlex.split(hook()["entry"])[1:]
    for file, status in (("a.yaml", 0), ("b.yaml", 1)):
        (tmp_path / "contracts" / file).write_text(CONTRACT.format(name="F-1", more=""))
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == status
    assert "contracts/b.yaml:4:10: error REF-004" in capsys.readouterr().out

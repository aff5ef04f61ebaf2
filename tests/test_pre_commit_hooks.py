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


def test_it_sees_what_a_changed_file_does_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """pre-commit names no files, so all contracts are checked: an id is unique over all of them; binding.yaml is none."""
    assert hook()["pass_filenames"] is False
    folder = tmp_path / "contracts"
    folder.mkdir()
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    (folder / "binding.yaml").write_text("bindings: []\n")
    for name, identity, status in (("a", "F-1", 0), ("b", "F-2", 0), ("changed", "F-1", 1)):
        (folder / f"{name}.yaml").write_text(CONTRACT.format(name=identity, more=""))
        with pytest.raises(SystemExit) as end:
            main(shlex.split(hook()["entry"])[1:])
        assert end.value.code == status
    assert "contracts/changed.yaml:4:10: error" in capsys.readouterr().out

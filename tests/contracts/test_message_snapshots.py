"""Every message to the letter: what ``pv validate`` prints for the wrong example of every rule in the rulebook.

``UPDATE_SNAPSHOTS=1 pytest tests/contracts/test_message_snapshots.py`` rewrites them; read the diff before committing it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from aprender.contracts.rulebook import Rule, rulebook
from aprender.contracts.source_lines import with_source_lines
from aprender.contracts.validate import validate
from aprender.reports.validation_text import validation_text

SNAPSHOTS = Path(__file__).parents[1] / "snapshots" / "messages"
UPDATE = bool(os.environ.get("UPDATE_SNAPSHOTS"))
TODAY = time.struct_time((2026, 11, 23, 12, 0, 0, 0, 327, 0))  # some rules ask how far ahead a date lies
SHOWN = [rule for rule in rulebook().values() if not rule.is_excerpt]


def messages(rule: Rule, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The report on the wrong example, with names as a person in that folder would give them."""
    for name, text in rule.wrong.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("aprender.contracts.rules.dates.time", SimpleNamespace(gmtime=lambda: TODAY))
    result = validate(sorted(rule.wrong))
    return validation_text(result.with_findings(with_source_lines(result.findings))) + "\n"


@pytest.mark.parametrize("rule", SHOWN, ids=lambda rule: rule.id)
def test_the_message_of_a_rule_is_as_it_was(rule: Rule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text, line, column and caret. A rule without a snapshot fails, too."""
    snapshot = SNAPSHOTS / f"{rule.id}.txt"
    text = messages(rule, tmp_path, monkeypatch)
    assert f" {rule.id} " in text
    if UPDATE:
        snapshot.parent.mkdir(parents=True, exist_ok=True)
        snapshot.write_text(text, "utf-8")
    assert snapshot.exists(), f"no snapshot {snapshot.name}: run with UPDATE_SNAPSHOTS=1 and read what it says"
    assert text == snapshot.read_text("utf-8")


def test_no_snapshot_is_left_over() -> None:
    """A snapshot of a rule that is gone would be compared with nothing."""
    left_over = {path.stem for path in SNAPSHOTS.glob("*.txt")} - {rule.id for rule in SHOWN}
    if UPDATE:
        for name in left_over:
            (SNAPSHOTS / f"{name}.txt").unlink()
    else:
        assert left_over == set()

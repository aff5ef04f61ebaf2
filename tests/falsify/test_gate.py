"""The gate: fresh GREEN evidence for what lies here now, or no shipping."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from aprender.falsify.evidence import Ledger
from aprender.falsify.gate import Standing, ship_percentage, standings
from aprender.falsify.verdict import Verdict
from tests.toy_project import Project


def standing(project: Project, now: datetime | None = None) -> Standing:
    (found,) = standings([project.contract()], now)
    return found


def test_no_evidence_is_unproven(project: Project) -> None:
    """Nothing recorded is nothing known."""
    found = standing(project)
    assert (found.verdict, found.reason) == (Verdict.UNPROVEN, "no evidence: run pv run")
    assert ship_percentage([found]) == 0


def test_fresh_green_evidence_is_green(project: Project) -> None:
    """And the percentage is computed from it."""
    project.run()
    found = standing(project)
    assert (found.verdict, found.device, ship_percentage([found])) == (Verdict.GREEN, "cpu", 100)


def test_red_evidence_is_red(project: Project) -> None:
    """The newest record counts, not the best one."""
    project.run()
    project.edit("thermometer.py", "OFFSET = 0.5", "OFFSET = 1.5")
    assert standing(project).verdict is Verdict.STALE
    project.run()
    assert standing(project).verdict is Verdict.RED
    project.edit("thermometer.py", "OFFSET = 1.5", "OFFSET = 0.5")
    assert standing(project).verdict is Verdict.STALE
    project.run()
    assert standing(project).verdict is Verdict.GREEN


@pytest.mark.parametrize(
    ("file", "old", "new", "what"),
    [
        ("thermometer.py", "def read", "def  read", "code under contract"),
        ("toyprobes/reading.py", "import json", "import json  # x", "probe"),
        ("calibration.txt", "0.5", "0.6", "calibration.txt"),
        ("contracts/thermometer-v1.yaml", "< 0.1\n    guards", "< 0.1\n      - reading < 60\n    guards", "contract"),
    ],
)
def test_evidence_for_something_else_is_stale_and_says_for_what(
    file: str, old: str, new: str, what: str, project: Project
) -> None:
    """Each of the things that evidence binds to."""
    project.run()
    project.edit(file, old, new)
    found = standing(project)
    assert found.verdict is Verdict.STALE
    assert found.reason.startswith("changed since the evidence was made: ")
    assert what in found.reason


def test_a_changed_judge_makes_evidence_stale(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidence says which judge spoke."""
    project.run()
    monkeypatch.setattr("aprender.falsify.gate.judge_digest", lambda: "another")
    assert "changed since the evidence was made: judge" in standing(project).reason


def test_evidence_expires(project: Project) -> None:
    """``valid_for`` counts from the observation."""
    project.run()
    now = datetime.now(UTC)
    assert standing(project, now + timedelta(days=29)).verdict is Verdict.GREEN
    late = standing(project, now + timedelta(days=31))
    assert (late.verdict, late.reason[:30]) == (Verdict.STALE, "the evidence is 31.0 days old,")
    assert standing(project, now - timedelta(days=1)).verdict is Verdict.STALE


def test_a_tampered_ledger_is_tampered(project: Project) -> None:
    """Even where only the reason was edited."""
    project.run()
    ledger = project.root / "evidence" / "thermometer-v1.cpu.jsonl"
    ledger.write_text(ledger.read_text().replace("every expectation", "each expectation"))
    assert standing(project).verdict is Verdict.TAMPERED


def test_the_gate_can_ask_for_evidence_from_a_device(project: Project) -> None:
    """GREEN on the CPU does not ship what must be shown on CUDA, but RED on the CPU stops it."""
    project.edit_contract("with: {room: 21.5}", "with: {room: 21.5}\n    gate_requires: {device: cuda}")
    project.run()
    found = standing(project)
    assert found.verdict is Verdict.UNPROVEN
    assert found.reason == "no evidence from a cuda machine (there is GREEN evidence from cpu): run pv run there"
    project.run(device="cuda")
    found = standing(project)
    assert (found.verdict, found.device) == (Verdict.GREEN, "cuda")
    _record_again_as(project, "RED")
    found = standing(project)
    assert (found.verdict, found.device) == (Verdict.RED, "cpu")


def _record_again_as(project: Project, verdict: str) -> None:
    ledger = Ledger(project.root / "evidence" / "thermometer-v1.cpu.jsonl")
    last = ledger.records()[-1]
    ledger.append(
        {key: value for key, value in last.items() if key not in ("sha256", "previous")} | {"verdict": verdict}
    )


def test_evidence_from_another_model_does_not_count(project: Project) -> None:
    """A run with --model says something of that model only."""
    project.run()
    ledger = Ledger(project.root / "evidence" / "thermometer-v1.cpu.jsonl")
    (only,) = ledger.records()
    ledger.path.unlink()
    other = {key: value for key, value in only.items() if key not in ("sha256", "previous")}
    ledger.append(other | {"options": {"device": "cpu", "model": "/elsewhere/other"}})
    assert standing(project).verdict is Verdict.UNPROVEN

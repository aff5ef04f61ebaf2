"""``--evidence``: the status that a contract claims, beside what evidence shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from aprender.contracts.validate import validate
from aprender.errors import AprenderError
from aprender.falsify.claims import check_claims
from tests.toy_project import CONTRACT, Project

PLACE = "7:11: STATUS-001 error: "


def said(project: Project) -> list[str]:
    result = validate([project.contract_path])
    assert not result.errors, result.findings
    return [f"{f.line}:{f.column}: {f.rule} {f.severity}: {f.message}" for f in check_claims(result)]


@pytest.mark.parametrize("word", ["ACTIVE", "DISCHARGED"])
def test_a_claim_without_evidence(word: str, project: Project) -> None:
    """Nothing recorded is nothing known."""
    project.edit_contract("status: ACTIVE", f"status: {word}")
    assert said(project) == [
        f"{PLACE}claims {word}, but evidence supports UNPROVEN: FALSIFY-T-001 is UNPROVEN (no evidence: run pv run)"
    ]


@pytest.mark.parametrize("word", ["ACTIVE", "DISCHARGED", "DRAFT"])
def test_a_claim_that_evidence_supports(word: str, project: Project) -> None:
    """Fresh and GREEN; a draft claims nothing."""
    project.edit_contract("status: ACTIVE", f"status: {word}")
    project.run()
    assert said(project) == []


@pytest.mark.parametrize("word", ["DRAFT", "DRAFT_RED"])
def test_a_draft_needs_no_evidence(word: str, project: Project) -> None:
    """Unproven is what a draft is."""
    project.edit_contract("status: ACTIVE", f"status: {word}")
    assert said(project) == []


def test_red_evidence_does_not_support_an_active_contract(project: Project) -> None:
    """The verdict is named with its reason, and DRAFT_RED is what may be claimed."""
    project.edit("thermometer.py", "OFFSET = 0.5", "OFFSET = 1.5")
    project.run()
    assert said(project) == [
        f"{PLACE}claims ACTIVE, but evidence supports RED: FALSIFY-T-001 is RED "
        "(abs(reading - room) < 0.1, observed 1 against 0.1)"
    ]
    project.edit_contract("status: ACTIVE", "status: DRAFT_RED")
    project.run()
    assert said(project) == []


def test_stale_evidence_does_not_support_an_active_contract(project: Project) -> None:
    """Evidence was for other code."""
    project.run()
    project.edit("thermometer.py", "def read", "def  read")
    (line,) = said(project)
    assert line.startswith(f"{PLACE}claims ACTIVE, but evidence supports STALE: FALSIFY-T-001 is STALE (changed since")


def test_a_draft_that_is_green_is_no_draft(project: Project) -> None:
    """DRAFT_RED means that something can be seen to be wrong, or is not proven."""
    project.edit_contract("status: ACTIVE", "status: DRAFT_RED")
    project.run()
    assert said(project) == [
        f"{PLACE}claims DRAFT_RED, but evidence supports GREEN: FALSIFY-T-001 is GREEN; claim ACTIVE"
    ]


def test_nothing_ships_on_a_contract_that_blocks_nothing(project: Project) -> None:
    """GREEN evidence for a falsifier that nothing depends on is no support."""
    project.edit_contract("    ship_blocking: true\n", "")
    project.run()
    assert said(project) == [f"{PLACE}claims ACTIVE, but no falsifier is ship-blocking, so no evidence supports it"]


def test_falsifiers_with_one_reason_are_named_together(project: Project) -> None:
    """The worst first, each reason once, a few names each."""
    entry = CONTRACT[CONTRACT.index("  - id: FALSIFY-T-001") :]
    more = "".join(entry.replace("FALSIFY-T-001", f"FALSIFY-T-00{number}") for number in range(2, 6))
    project.contract_path.write_text(CONTRACT + more)
    assert said(project) == [
        f"{PLACE}claims ACTIVE, but evidence supports UNPROVEN: FALSIFY-T-001, FALSIFY-T-002, FALSIFY-T-003 and 2 more "
        "are UNPROVEN (no evidence: run pv run)"
    ]


OLD = """\
metadata:
  version: "1.0.0"
  description: A thermometer.
  references: [ITS-90]
  kind: pattern
  status: ACTIVE_RUNTIME
proof_obligations:
  - {id: OBL-1, property: readings are right, status: proved}
falsification_tests:
  - id: F-1
    prediction: p
    if_fails: f
    discharge_status: DISCHARGED
  - id: F-2
    prediction: p
    if_fails: f
    status: "VERIFIED \\u2014 129.9 degrees"
  - {id: F-3, prediction: p, if_fails: f, status: PENDING}
  - {id: F-4, prediction: p, if_fails: f, status: RED}
  - {id: F-5, prediction: p, if_fails: f, status: [ACTIVE]}
"""


def test_claims_of_the_old_dialect_are_warnings(project: Project) -> None:
    """Nothing there is run, so nothing supports them; other words claim nothing."""
    project.contract_path.write_text(OLD)
    without = "but evidence supports UNPROVEN: without schema_version: 2 and a probe nothing is run"
    assert said(project) == [
        f"6:11: STATUS-001 warning: the contract claims ACTIVE_RUNTIME, {without}",
        f"8:55: STATUS-001 warning: OBL-1 claims PROVED, {without}",
        f"13:23: STATUS-001 warning: F-1 claims DISCHARGED, {without}",
        f"17:13: STATUS-001 warning: F-2 claims VERIFIED, {without}",
    ]


def test_a_contract_with_errors_is_left_to_them(project: Project) -> None:
    """What can't be read as a contract claims nothing yet."""
    project.edit_contract("samples >= 2", "samples >= 0")
    assert check_claims(validate([project.contract_path])) == []


def test_the_findings_are_of_the_file_as_it_was_named(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are sorted in among the others by that name."""
    monkeypatch.chdir(tmp_path)
    (finding,) = check_claims(validate(["./contracts"]))
    assert finding.file == "./contracts/thermometer-v1.yaml"


def test_standard_input_has_no_evidence(project: Project) -> None:
    """It lies in no project."""
    result = validate([project.contract_path])._replace(files=("-",))
    with pytest.raises(AprenderError, match="--evidence needs files: standard input lies in no project"):
        check_claims(result)

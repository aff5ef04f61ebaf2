"""Evidence must be for the code that ran: every way we know of making it be for something else."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aprender.contracts.load import load
from aprender.contracts.validate import validate
from aprender.falsify.digest import digest
from aprender.falsify.evidence import Ledger
from aprender.falsify.gate import standings
from aprender.falsify.verdict import Verdict
from tests.toy_project import Project, forget_modules, make_project

LEDGER = "evidence/thermometer-v1.cpu.jsonl"


def gate_verdict(project: Project) -> Verdict:
    (standing,) = standings([project.contract()])
    return standing.verdict


def test_modules_of_another_project_are_not_taken_for_this_ones(project: Project, tmp_path: Path) -> None:
    """Two projects in one process share module names: the second one's files would be digested, the first one's run."""
    assert project.run().verdict is Verdict.GREEN
    (tmp_path / "other").mkdir()
    other = make_project(tmp_path / "other")
    (other.root / "thermometer.py").write_text("OFFSET = 99.0\n")
    run = other.run()
    assert run.verdict is Verdict.ERROR
    assert "not from" in run.reason
    forget_modules()


def test_code_under_contract_that_is_never_imported_is_error(project: Project) -> None:
    """A src/ folder beside an installed copy: evidence would name files that did not run."""
    (project.root / "src").mkdir()
    shutil.copy(project.root / "thermometer.py", project.root / "src" / "thermometer.py")
    project.edit_contract("[thermometer.py]", "[src/*.py]")
    run = project.run()
    assert run.verdict is Verdict.ERROR
    assert "no file of code_under_contract was imported" in run.reason


def test_a_helper_that_no_glob_names_still_counts(project: Project) -> None:
    """Whatever module of the project the probe loaded: a change of it is measured anew, and outdates evidence."""
    (project.root / "toyhelper.py").write_text("BIAS = 0.0\n")
    project.edit_probes("import thermometer", "import thermometer, toyhelper")
    project.edit_probes("    value = system.scale(", "    value = toyhelper.BIAS + system.scale(")
    assert project.run().verdict is Verdict.GREEN
    project.edit("toyhelper.py", "BIAS = 0.0", "BIAS = 50.0")
    assert gate_verdict(project) is Verdict.STALE
    assert project.run().verdict is Verdict.RED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    value = system.scale", "    raise SystemExit(0)\n    value = system.scale"),
        ("import thermometer", "import thermometer\nraise SystemExit(0)"),
        ("return Room(options.device)", "raise SystemExit(0)"),
    ],
)
def test_sys_exit_in_user_code_does_not_end_the_run_as_success(old: str, new: str, project: Project) -> None:
    """SystemExit(0) is ERROR like any other crash."""
    project.edit_probes(old, new)
    assert project.run().verdict is Verdict.ERROR


def test_stale_bytecode_is_not_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same size, same time stamp, other source: Python alone would run the old code."""
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    source = project.root / "thermometer.py"
    assert project.run().verdict is Verdict.GREEN
    times = source.stat()
    project.edit("thermometer.py", "OFFSET = 0.5", "OFFSET = 9.5")
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert project.run().verdict is Verdict.RED


def test_a_copied_project_checks_its_own_inputs(project: Project, tmp_path: Path) -> None:
    """The cache travels with a copy; the file that it was made from does not."""
    read = 'float((ROOT / "calibration.txt").read_text())'
    project.edit_probes("room - 0.5", f"room - {read}")
    assert project.run().verdict is Verdict.GREEN
    copied = tmp_path / "copied"
    shutil.copytree(project.root, copied, ignore=shutil.ignore_patterns("copied", "__pycache__"))
    copy = Project(copied)
    copy.edit("calibration.txt", "0.5", "40")
    assert gate_verdict(copy) is Verdict.STALE
    assert copy.run().verdict is Verdict.RED


def test_a_file_edited_during_the_run_makes_it_error(project: Project) -> None:
    """Evidence would be for neither version."""
    edit = 'path = Path(__file__); path.write_text(path.read_text() + "# edited\\n")'
    project.edit_probes("    value = system.scale", f"    {edit}\n    value = system.scale")
    run = project.run()
    assert run.verdict is Verdict.ERROR
    assert "changed during the run" in run.reason


def test_a_leak_that_the_fingerprint_does_not_see_is_error(project: Project) -> None:
    """A constant fingerprint would let one undone defect catch the next."""
    project.edit_probes('return f"{self.offset} {id(self.scale)}"', 'return ""')
    project.edit_probes("    room.offset = kept", "    pass")
    run = project.run()
    assert run.verdict is Verdict.ERROR
    assert "a planted defect leaks" in run.reason


def test_an_expectation_that_no_planted_defect_breaks_is_unproven(project: Project) -> None:
    """Each expectation must have been shown able to fail."""
    project.edit_contract("    guards:", "      - reading < 1e5\n    guards:")
    run = project.run()
    assert (run.verdict, run.reason) == (Verdict.UNPROVEN, "no planted defect breaks 'reading < 1e5'")


@pytest.mark.parametrize(
    "text", ["abs(samples) >= 0", "samples - samples == 0", "reading <= reading + 1", "abs(room) < 0"]
)
def test_a_comparison_with_a_foregone_outcome_is_an_error_in_the_contract(text: str, project: Project) -> None:
    """W0: synthetic observations on both sides."""
    project.edit_contract("samples >= 2", text)
    assert [finding.rule for finding in validate([project.contract_path]).findings] == ["EXPR-002"]


@pytest.mark.parametrize(
    "change",
    [
        {"witnesses": []},
        {"witnesses": [{"defect": "offset_forgotten", "outcome": "survived", "detail": ""}]},
        {"observations": {}},
        {"observations": {n: {"value": 99.0, "unit": ""} for n in ("reading", "samples")} | {"room": {"value": 1, "unit": ""}}},
        {"inputs": {}},
        {"format": 99},
        {"contract": "something-else"},
        {"options": {"device": "toaster", "model": None}},
        {"options": {"device": "cuda", "model": None}},
        {"options": None},
        {"verdict": "PURPLE"},
        {"observed_at": "yesterday"},
        {"observed_at": "2026-11-22T00:00:00"},
        {"inputs": []},
        {"digests": None},
    ],
)  # fmt: skip
def test_a_record_that_contradicts_itself_never_ships(change: dict[str, Any], project: Project) -> None:
    """Not even with a hash that fits."""
    project.run()
    path = project.root / LEDGER
    record = json.loads(path.read_text())
    body = {key: value for key, value in (record | change).items() if key != "sha256"}
    path.write_bytes(_line({**body, "sha256": digest(body)}))
    assert gate_verdict(project) is Verdict.TAMPERED


def _line(record: dict[str, Any]) -> bytes:
    from aprender.falsify.digest import canonical

    return canonical(record) + b"\n"


def test_an_edited_cache_entry_with_a_fitting_hash_belongs_to_its_key_only(project: Project) -> None:
    """One observation can't be renamed into another's place."""
    project.run()
    entries = sorted((project.root / ".pv" / "observations").iterdir())
    text = entries[0].read_text()
    for entry in entries:
        entry.write_text(text)
    assert project.run().reused == 1


def test_expired_evidence_is_renewed_by_a_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too old for the gate is too old to be reused."""
    project.edit_contract("valid_for: 30d", "valid_for: 1h")
    project.run()
    real = datetime

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return real.now(tz) + timedelta(hours=2)

    for module in ("cache", "gate", "observe"):
        monkeypatch.setattr(f"aprender.falsify.{module}.datetime", Later)
    assert gate_verdict(project) is Verdict.STALE
    assert project.run().reused == 0
    assert gate_verdict(project) is Verdict.GREEN


def test_evidence_of_one_contract_is_not_read_for_another(project: Project) -> None:
    """``thermometer-v1.b`` begins like ``thermometer-v1``."""
    project.run()
    text = (project.root / LEDGER).read_text()
    (project.root / "evidence" / "thermometer-v1.b.cpu.jsonl").write_text(text)
    copy = project.root / "contracts" / "thermometer-v1.b.yaml"
    shutil.copy(project.contract_path, copy)
    project.contract_path.unlink()
    (standing,) = standings(load([copy]).contracts)
    assert standing.verdict is Verdict.TAMPERED
    assert Ledger(project.root / LEDGER).records()[0]["observed_at"] <= datetime.now(UTC).isoformat()


@pytest.mark.parametrize("key", ["schema_verson: 2", "# schema_version: 2"])
def test_a_contract_that_forgot_its_version_is_an_error_not_passed_over(key: str, project: Project) -> None:
    """It would never be run, and nobody would notice."""
    project.edit_contract("schema_version: 2", key)
    findings = validate([project.contract_path]).findings
    assert "SCHEMA-103" in [finding.rule for finding in findings if finding.severity == "error"]


def test_one_id_in_two_contracts_is_an_error(project: Project) -> None:
    """Evidence goes by it."""
    shutil.copy(project.contract_path, project.root / "contracts" / "second.yaml")
    result = load([project.root / "contracts"])
    assert [finding.rule for finding in result.validation.findings] == ["REF-004"]
    assert len(result.contracts) == 1

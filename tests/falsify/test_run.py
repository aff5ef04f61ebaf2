"""Running a falsifier: verdicts, teeth, undoing, and doing nothing twice."""

from __future__ import annotations

import pytest

from aprender.contracts.load import load
from aprender.falsify.probe import Options
from aprender.falsify.record import Outcome
from aprender.falsify.run import Runner
from aprender.falsify.verdict import Verdict
from tests.toy_project import Project


def outcomes(project: Project) -> dict[str, Outcome]:
    return {witness.defect: witness.outcome for witness in project.run().witnesses}


def test_a_right_system_is_green_and_every_planted_defect_is_caught(project: Project) -> None:
    """GREEN only after each defect class turned the same probe RED."""
    run = project.run()
    assert run.verdict is Verdict.GREEN, run.reason
    assert [w.outcome for w in run.witnesses] == [Outcome.CAUGHT, Outcome.CAUGHT]
    assert run.witnesses[0].detail == "abs(reading - room) < 0.1, observed 0.5 against 0.1"
    assert [(judged.left, judged.right) for judged in run.witnesses[0].violated] == [(0.5, 0.1)]
    assert project.probe_calls() == 4


def test_a_wrong_system_is_red_and_no_defect_is_planted(project: Project) -> None:
    """The clean run comes first; teeth prove nothing about a RED."""
    project.edit("thermometer.py", "OFFSET = 0.5", "OFFSET = 1.5")
    run = project.run()
    assert run.verdict is Verdict.RED
    assert run.reason == "abs(reading - room) < 0.1, observed 1 against 0.1"
    assert run.witnesses == ()
    assert project.probe_calls() == 1


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"samples": 2}', '"samples": 0}', "guard does not hold: samples >= 2"),
        ('"reading": value', '"reading": float("nan")', "reading is nan"),
        ("    value =", "    1 / 0\n    value =", "the probe crashed: ZeroDivisionError: division by zero ("),
        ("return Observation(", "return dict(values=", "the probe returned dict, not an Observation"),
        ("return Room(options.device)", "raise ValueError('no\\nroom')", "the probe's system failed: ValueError: no room ("),
        ("return Room(options.device)", "raise RequirementNotMet('no room')", "no room"),
        ("    value =", "    raise RequirementNotMet('no')\n    value =", "no"),
    ],
)  # fmt: skip
def test_what_went_wrong_is_error_not_red_not_green_and_not_skipped(
    old: str, new: str, reason: str, project: Project
) -> None:
    """A crash, a NaN, an unmet undeclared requirement or nothing measured: ERROR with the reason, no exception."""
    project.edit_probes(old, new)
    run = project.run()
    assert run.verdict is Verdict.ERROR
    assert reason in run.reason


def test_a_declared_requirement_that_is_not_met_skips_with_the_reason(project: Project) -> None:
    """SKIPPED measures nothing and records nothing."""
    project.edit_contract("with: {room: 21.5}", "with: {room: 21.5}\n    requires: {device: cuda}")
    run = project.run()
    assert run.verdict is Verdict.SKIPPED
    assert "CUDA" in run.reason or "cuda" in run.reason
    assert project.probe_calls() == 0
    assert not (project.root / "evidence").exists()


def test_a_surviving_defect_makes_the_verdict_unproven_and_is_named(project: Project) -> None:
    """An expectation too loose to notice a class it declares is not GREEN."""
    project.edit_contract("abs(reading - room) < 0.1", "abs(reading - room) < 1.0")
    run = project.run()
    assert run.verdict is Verdict.UNPROVEN
    assert run.reason == "offset_forgotten survived (planted, and every expectation still holds)"


def test_a_defect_that_changes_nothing_is_inert_not_survived(project: Project) -> None:
    """Planting that plants nothing is told apart from a blind probe."""
    project.edit_probes("room.offset = room.offset, 0.0", "room.offset = room.offset, 0.5")
    run = project.run()
    assert run.verdict is Verdict.UNPROVEN
    assert run.reason == "offset_forgotten inert (the observation is bit-identical to the clean run)"


def test_a_class_that_nobody_plants_is_not_planted(project: Project) -> None:
    """The contract may name what the project has not built yet; that is UNPROVEN, and says what exists."""
    project.edit_contract("- offset_forgotten", "- mercury_frozen")
    run = project.run()
    assert run.verdict is Verdict.UNPROVEN
    assert run.reason.startswith("mercury_frozen not planted (no planted defect of that name; known: offset_forgotten,")


def test_red_for_another_reason_than_the_declared_one_is_not_a_catch(project: Project) -> None:
    """``violates`` names the expectation that must break."""
    project.edit_contract("    guards:", "      - reading < 60\n    guards:")
    project.edit_contract("violates: [abs(reading - room) < 0.1]", "violates: [reading < 60]")
    assert outcomes(project) == {"offset_forgotten": Outcome.CAUGHT, "fahrenheit": Outcome.CAUGHT}
    project.edit_contract("reading < 60", "reading < 100")
    run = project.run()
    assert run.verdict is Verdict.UNPROVEN
    assert [judged.text for judged in run.witnesses[1].violated] == ["abs(reading - room) < 0.1"]
    assert "RED, but not for the declared reason: still holds: reading < 100" in run.reason


@pytest.mark.parametrize(
    ("crash", "outcome"), [("raise OSError('x')", Outcome.CRASHED), ("value = float('nan')", Outcome.SURVIVED)]
)
def test_a_crash_or_nan_under_a_planted_defect_is_not_a_catch(crash: str, outcome: Outcome, project: Project) -> None:
    """Only RED is a catch."""
    body = f"    value = system.scale(room - 0.5 + system.offset)\n    if system.offset == 0: {crash}\n"
    project.edit_probes("    value = system.scale(room - 0.5 + system.offset)\n", body)
    assert outcomes(project) == {"offset_forgotten": outcome, "fahrenheit": Outcome.CAUGHT}


def test_planting_that_fails_is_not_planted(project: Project) -> None:
    """An exception while planting says so."""
    project.edit_probes("    kept, room.offset = room.offset, 0.0", "    raise KeyError('offset')")
    run = project.run()
    assert run.verdict is Verdict.UNPROVEN
    assert "planting it failed: KeyError: 'offset'" in run.reason


def test_a_defect_that_is_not_undone_is_error_and_does_not_leak_into_the_next_run(project: Project) -> None:
    """The fingerprint after undoing must be the one before planting; otherwise nothing measured can be believed."""
    project.edit_probes("    room.offset = kept", "    pass")
    run = project.run()
    assert run.verdict is Verdict.ERROR
    assert run.reason == "undoing the planted defect 'offset_forgotten' left the system changed; correct its undo"
    project.edit_probes("    yield\n    pass", "    yield\n    room.offset = kept")
    assert project.run().verdict is Verdict.GREEN


def test_an_undo_that_raises_is_error(project: Project) -> None:
    """Not a traceback."""
    project.edit_probes("    room.offset = kept", "    room.offset = kept\n    raise OSError('stuck')")
    run = project.run()
    assert run.verdict is Verdict.ERROR
    assert "stuck" in run.reason


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("toyprobes.reading:reading", "toyprobes.readings:reading", "19:5: no module 'toyprobes.readings' for probe"),
        ("toyprobes.reading:reading", "toyprobes.reading:readin", "19:5: 'readin' does not exist in toyprobes.reading. Did you mean 'reading'?"),
        ("toyprobes.reading:reading", "toyprobes.reading:json", "19:5: 'json' is not declared with @probe in toyprobes.reading."),
        ("{room: 21.5}", "{rom: 21.5}", "20:5: probe toyprobes.reading:reading has no keyword argument 'rom'. Did you mean 'room'?"),
        ("with: {room: 21.5}\n    ", "", "13:5: probe toyprobes.reading:reading needs the keyword argument 'room'"),
        ("samples >= 2", "sample >= 2", "23:5: 'sample >= 2': probe toyprobes.reading:reading does not observe 'sample'. Did you mean 'samples'?"),
        ("code_under_contract: [thermometer.py]", "code_under_contract: [nothing/*.py]", "'nothing/*.py' matches no file under"),
        ("code_under_contract: [thermometer.py]", "code_under_contract: [/etc/passwd]", "'/etc/passwd' leaves the project"),
    ],
)  # fmt: skip
def test_binding_errors_say_what_where_and_what_to_do(old: str, new: str, message: str, project: Project) -> None:
    """Each is an ERROR at its line of the contract."""
    project.edit_contract(old, new)
    run = project.run()
    assert run.verdict is Verdict.ERROR
    assert message in run.reason


def test_a_probe_module_that_does_not_import_is_error(project: Project) -> None:
    """With the exception's own words."""
    project.edit("toyprobes/reading.py", "import thermometer", "import thermometer, missing_library")
    assert "needs the package 'missing_library'" in project.run().reason
    project.edit("toyprobes/reading.py", "import thermometer, missing_library", "1 / 0")
    assert "importing toyprobes.reading failed: ZeroDivisionError: division by zero" in project.run().reason


def test_a_second_run_with_nothing_changed_observes_nothing(project: Project) -> None:
    """All three observations come from the first run, and the ledger gains no line."""
    first = project.run()
    second = project.run()
    assert project.probe_calls() == 4
    assert (second.verdict, second.observed, second.reused) == (Verdict.GREEN, 3, 3)
    assert second.observed_at == first.observed_at
    ledger = project.root / "evidence" / "thermometer-v1.cpu.jsonl"
    assert len(ledger.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("thermometer.py", "def read", "def  read"),
        ("toyprobes/reading.py", "import json", "import json  # changed"),
        ("calibration.txt", "0.5", "0.50"),
        ("contracts/thermometer-v1.yaml", "{room: 21.5}", "{room: 21.25}"),
    ],
)
def test_any_change_that_an_observation_depends_on_observes_anew(
    file: str, old: str, new: str, project: Project
) -> None:
    """Code under contract, probe sources, input files, arguments."""
    project.run()
    project.edit(file, old, new)
    assert project.run().reused == 0
    assert project.probe_calls() == 8


def second_probe(project: Project) -> Runner:
    """The project with a second contract, whose probe is in another module and shares ``toyshared``."""
    probes = project.root / "toyprobes"
    shared = "ROOT = Path(__file__).parents[1]"
    project.edit_probes(shared, "from toyprobes.shared import ROOT")
    (probes / "shared.py").write_text(f"from pathlib import Path\nimport toyhelper\n{shared}\n")
    (project.root / "toyhelper.py").write_text("from pathlib import Path\n")
    (probes / "second.py").write_text((probes / "reading.py").read_text())
    text = project.contract_path.read_text()
    text = text.replace("FALSIFY-T-001", "FALSIFY-T-002").replace("toyprobes.reading", "toyprobes.second")
    (project.root / "contracts" / "second-v1.yaml").write_text(text)
    return Runner(Options("cpu", None))


def reused(project: Project, runner: Runner) -> dict[str, int]:
    """How many observations each falsifier took from earlier runs, run in one process as ``pv run`` does."""
    contracts = load([project.root / "contracts"]).contracts
    runs = [runner.run(contract, falsifier) for contract in contracts for falsifier in contract.falsifiers]
    assert {run.verdict for run in runs} == {Verdict.GREEN}, [run.reason for run in runs]
    return {run.falsifier.id: run.reused for run in runs}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("toyprobes/reading.py", {"FALSIFY-T-001": 0, "FALSIFY-T-002": 3}),
        ("toyprobes/second.py", {"FALSIFY-T-001": 3, "FALSIFY-T-002": 0}),
        ("toyprobes/shared.py", {"FALSIFY-T-001": 0, "FALSIFY-T-002": 0}),
        ("toyhelper.py", {"FALSIFY-T-001": 0, "FALSIFY-T-002": 0}),  # of neither's package, loaded by the first alone
    ],
)
def test_only_what_a_changed_file_concerns_is_observed_anew(
    file: str, expected: dict[str, int], project: Project
) -> None:
    """One probe's defects are none of another's business, though both lie in one package and ran in one process."""
    runner = second_probe(project)
    assert reused(project, runner) == {"FALSIFY-T-001": 0, "FALSIFY-T-002": 0}
    project.edit(file, "from pathlib import Path", "from pathlib import Path  # changed")
    assert reused(project, Runner(Options("cpu", None))) == expected


def test_a_module_that_no_import_statement_names_still_counts(project: Project) -> None:
    """Whoever loaded it: it may be what was observed."""
    (project.root / "toyhelper.py").write_text("BIAS = 0.0\n")
    load_it = "__builtins__['__im' + 'port__']('toyhelper')"
    project.edit_probes("import thermometer", f"import thermometer\nHELPER = {load_it}")
    project.edit_probes("    value = system.scale(", "    value = HELPER.BIAS + system.scale(")
    assert project.run().verdict is Verdict.GREEN
    project.edit("toyhelper.py", "BIAS = 0.0", "BIAS = 50.0")
    assert project.run().verdict is Verdict.RED


def test_a_changed_expectation_is_judged_anew_on_the_same_observation(project: Project) -> None:
    """Observations are kept, verdicts never: tightening a bound needs no new measurement and can't be missed."""
    project.run()
    project.edit_contract("abs(reading - room) < 0.1", "abs(reading - room) > 0.1")
    run = project.run()
    assert (run.verdict, run.reused, project.probe_calls()) == (Verdict.RED, 1, 4)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"payload": {}, "sha256": "x"}'])
def test_a_corrupt_cache_entry_is_measured_again(text: str, project: Project) -> None:
    """The cache is never trusted when it is not as it was written."""
    project.run()
    for entry in (project.root / ".pv" / "observations").iterdir():
        entry.write_text(text)
    assert project.run().verdict is Verdict.GREEN
    assert project.probe_calls() == 8


def test_an_edited_cache_entry_is_measured_again(project: Project) -> None:
    """Nor when somebody improved a number in it."""
    project.edit("thermometer.py", "OFFSET = 0.5", "OFFSET = 1.5")
    assert project.run().verdict is Verdict.RED
    for entry in (project.root / ".pv" / "observations").iterdir():
        entry.write_text(entry.read_text().replace("22.5", "21.5"))
    assert project.run().verdict is Verdict.RED

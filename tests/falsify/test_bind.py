"""``--bind``: what does not fit between a contract and the code and tests it names, each with its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aprender.contracts.validate import validate
from aprender.errors import AprenderError
from aprender.falsify.bind import BindError, bind
from aprender.falsify.check_binding import check_binding
from aprender.falsify.node_ids import named_tests
from tests.toy_project import Project

ROOT = Path(__file__).parents[2]
OBSERVES = 'observes={"reading": "degC", "room": "degC", "samples": ""}'


def said(project: Project) -> list[str]:
    result = validate([project.contract_path])
    assert not result.errors, result.findings
    return [f"{f.line}:{f.column}: {f.rule} {f.severity}: {f.message}" for f in check_binding(result)]


def test_a_contract_that_fits_is_not_complained_about(project: Project) -> None:
    """The base of what follows."""
    assert said(project) == []


def test_the_contract_of_this_repository_fits() -> None:
    """Names, arguments, planted defects and units, without a GPU."""
    assert check_binding(validate([ROOT / "contracts"])) == []


def test_nothing_is_imported_by_validation_alone(project: Project) -> None:
    """It is safe on contracts of strangers."""
    validate([project.contract_path])
    assert "toyprobes.reading" not in sys.modules
    said(project)
    assert "toyprobes.reading" in sys.modules


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ("toyprobes.readin:reading", "no module 'toyprobes.readin' for probe toyprobes.readin:reading; looked in {root} and in this Python. Did you mean 'toyprobes.reading'?"),
        ("toyprobe.reading:reading", "no module 'toyprobe.reading' for probe toyprobe.reading:reading; looked in {root} and in this Python. Did you mean 'toyprobes.reading'?"),
        ("zzz.qqq:x", "no module 'zzz.qqq' for probe zzz.qqq:x; looked in {root} and in this Python"),
        ("toyprobes.reading:reeding", "'reeding' does not exist in toyprobes.reading. Did you mean 'reading'? Probes there: reading"),
        ("toyprobes.reading:Room", "'Room' is not declared with @probe in toyprobes.reading. Probes there: reading"),
    ],
)  # fmt: skip
def test_a_probe_that_does_not_resolve(probe: str, expected: str, project: Project) -> None:
    """A wrong module and a wrong name are told apart, and the near one is offered."""
    project.edit_contract("probe: toyprobes.reading:reading", f"probe: {probe}")
    assert said(project) == ["19:12: BIND-001 error: " + expected.format(root=project.root)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import nowhere_to_be_found", "probe toyprobes.reading:reading needs the package 'nowhere_to_be_found'; pip install 'aprender[torch]'"),
        ("1 / 0", "importing toyprobes.reading failed: ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)", "importing toyprobes.reading failed: SystemExit: 0"),
        ("def broken(:", "importing toyprobes.reading failed: SyntaxError: invalid syntax (reading.py, line 1)"),
    ],
)  # fmt: skip
def test_a_module_that_can_not_be_imported(line: str, expected: str, project: Project) -> None:
    """Importing runs the user's code: whatever it does is a finding, never the end of the validation."""
    project.edit_probes("import json\n", f"{line}\n")
    assert said(project) == [f"19:12: BIND-001 error: {expected}"]


def test_what_importing_prints_stays_out_of_the_report(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is the report's: ``--json`` must stay readable."""
    project.edit_probes("import json\n", "print('hello')\n")
    assert said(project) == []
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("{rom: 21.5, room: 1}", "20:12: BIND-002 error: probe toyprobes.reading:reading has no keyword argument 'rom'. Did you mean 'room'? It takes: room"),
        ("{}", "20:5: BIND-002 error: probe toyprobes.reading:reading needs the keyword argument 'room'; add it to 'with:'"),
        ("{room: warm}", "20:18: BIND-002 error: probe toyprobes.reading:reading takes room: float, not 'warm' (str)"),
        ("{room: true}", "20:18: BIND-002 error: probe toyprobes.reading:reading takes room: float, not True (bool)"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(arguments: str, expected: str, project: Project) -> None:
    """Missing, unexpected, or of another type than annotated."""
    project.edit_probes("*, room):", "*, room: float):")
    project.edit_contract("with: {room: 21.5}", f"with: {arguments}")
    assert said(project) == [expected]


@pytest.mark.parametrize(
    ("annotation", "value", "fits"),
    [
        ("float", "21", True), ("int", "21.5", False), ("int", "true", False), ("bool", "1", False), ("str", "21", False),
        ("float | None", "null", True), ("float", "null", False), ("list[int]", "[1, 2]", True), ("list[int]", "[1, a]", False),
        ("tuple[int, str]", "[1, a]", True), ("dict[str, int]", "{a: 1}", True), ("dict[str, int]", "[1]", False),
        ("Literal['a', 'b']", "a", True), ("Literal['a', 'b']", "c", False), ("Path", "a", True), ("NoSuchName", "a", True),
    ],
)  # fmt: skip
def test_the_types_that_are_known(annotation: str, value: str, fits: bool, project: Project) -> None:
    """What is not known to be wrong is left to the probe."""
    project.edit_probes("import json\n", "from __future__ import annotations\nfrom typing import Literal\n")
    project.edit_probes("*, room):", f"*, room: {annotation}):")
    project.edit_contract("with: {room: 21.5}", f"with: {{room: {value}}}")
    assert [line.split()[1] for line in said(project)] == [] if fits else ["BIND-002"]


def test_a_probe_may_take_any_keyword(project: Project) -> None:
    """And then nothing is unexpected, nor is the parameter for the rest missing."""
    project.edit_probes("*, room):", "*, room, **rest):")
    project.edit_contract("with: {room: 21.5}", "with: {room: 21.5, rom: 1}")
    assert said(project) == []


def test_a_probe_takes_a_system(project: Project) -> None:
    """It is given one whatever ``with`` says."""
    project.edit_probes("def reading(system, *, room):", "def reading(*, room=1):")
    assert said(project) == [
        "20:5: BIND-002 error: probe toyprobes.reading:reading takes no system: its first parameter is the system under contract"
    ]


def test_names_that_the_probe_does_not_observe(project: Project) -> None:
    """The place is that of the name."""
    project.edit_contract("- samples >= 2", "- 2 <= sample")
    assert said(project) == [
        "24:14: BIND-003 error: '2 <= sample': probe toyprobes.reading:reading does not observe 'sample'. "
        "Did you mean 'samples'? It observes: reading, room, samples"
    ]


@pytest.mark.parametrize("entry", ["- offset_forgoten", "- {class: offset_forgoten}"])
def test_a_class_that_nothing_plants(entry: str, project: Project) -> None:
    """And the defect that is planted for nothing, which is a warning."""
    project.edit_contract("- offset_forgotten", entry)
    column = 9 if "{" not in entry else 17
    assert said(project) == [
        f"26:{column}: BIND-004 error: probe toyprobes.reading:reading has no planted defect 'offset_forgoten'. "
        "Did you mean 'offset_forgotten'? It plants: offset_forgotten, fahrenheit",
        "19:12: BIND-004 warning: planted, but no falsifier lists it among its counter_example_classes: offset_forgotten",
    ]


def test_unlike_units(project: Project) -> None:
    """The probe declares them, the contract may not mix them."""
    project.edit_probes('"room": "degC"', '"room": "degF"')
    assert said(project) == ["22:23: BIND-005 error: subtracts degC and degF: 'reading' and 'room'"]


def test_several_misfits_are_all_reported(project: Project) -> None:
    """One run tells all."""
    project.edit_contract("with: {room: 21.5}", "with: {rom: 21.5}")
    project.edit_contract("- samples >= 2", "- sample >= 2")
    assert [line.split()[1] for line in said(project)] == ["BIND-002", "BIND-002", "BIND-003"]


def test_the_runner_stops_at_the_first_misfit(project: Project) -> None:
    """``bind`` says the same, with the place in front."""
    project.edit_contract("with: {room: 21.5}", "with: {room: 21.5, rom: 1}")
    contract = project.contract()
    with pytest.raises(BindError) as refused:
        bind(contract, contract.falsifiers[0])
    assert str(refused.value).startswith(
        f"{project.contract_path}:20:5: probe toyprobes.reading:reading has no keyword argument 'rom'."
    )


TESTS = """\
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_reading(n): pass

class TestRoom:
    def test_warm(self): pass

# def test_gone_for_good_and_long_ago(): pass
"""


def with_test(project: Project, command: str) -> Project:
    (project.root / "tests").mkdir(exist_ok=True)
    (project.root / "tests" / "test_room.py").write_text(TESTS)
    (project.root / "tests" / "test_broken.py").write_text("import nowhere_to_be_found\n")
    project.edit_contract("    ship_blocking: true\n", f"    ship_blocking: true\n    test: {command}\n")
    return project


@pytest.mark.parametrize(
    "command",
    [
        "pytest tests/test_room.py", "pytest tests/test_room.py::test_reading", "python -m pytest -q tests/test_room.py::test_reading[2]",
        "uv run pytest ./tests/test_room.py::TestRoom", "CI=1 pytest tests/test_room.py::TestRoom::test_warm -k warm",
        "tests/test_room.py::test_reading", "tests/test_room.py::test_reading[2] ./tests/test_room.py::TestRoom",
        "tests/nowhere.py", "see tests/nowhere.py::test_x", "pytest tests/test_room.py -k 'warm and not cold'",
        "cargo test nothing_of_ours", "cd x && pytest tests/nowhere.py", "echo pytest tests/nowhere.py", "pytest", "pytest 'tests/x",
    ],
)  # fmt: skip
def test_tests_that_are_collected_and_commands_that_are_not_pytest(command: str, project: Project) -> None:
    """A file, a function with and without its parameters, a class, a method; other commands are left alone."""
    assert said(with_test(project, command)) == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("pytest tests/test_room.py::test_readng", "18:18: BIND-006 error: pytest collects no test tests/test_room.py::test_readng. Did you mean 'test_reading'?"),
        ("pytest tests/test_room.py::test_reading[3]", "18:18: BIND-006 error: pytest collects no test tests/test_room.py::test_reading[3]. Did you mean 'test_reading'?"),
        ("pytest -q tests/test_room.py::test_gone_for_good_and_long_ago", "18:21: BIND-006 error: pytest collects no test tests/test_room.py::test_gone_for_good_and_long_ago"),
        ("tests/test_room.py::test_readng", "18:11: BIND-006 error: pytest collects no test tests/test_room.py::test_readng. Did you mean 'test_reading'?"),
        ("tests/nowhere.py::test_x", "18:11: BIND-006 error: no file tests/nowhere.py in {root}. Did you mean 'tests/test_broken.py'?"),
        ("pytest tests/test_room.py -k wram", "18:40: BIND-006 error: -k wram leaves no test to run"),
        ("pytest tests/test_room.py::TestRoom -k 'reading or wram'", "18:51: BIND-006 error: -k 'reading or wram' leaves no test to run"),
        ("pytest tests/test_rom.py", "18:18: BIND-006 error: no file tests/test_rom.py in {root}. Did you mean 'tests/test_room.py'?"),
        ("pytest tests/test_broken.py::test_x", "18:18: BIND-006 error: tests/test_broken.py can't be collected: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    ],
)  # fmt: skip
def test_tests_that_do_not_exist(command: str, expected: str, project: Project) -> None:
    """Collected, not searched for: what is commented out or can't be imported is no test."""
    assert said(with_test(project, command)) == [expected.format(root=project.root)]


def test_the_old_dialect_names_tests_too(project: Project) -> None:
    """There it is a warning, and everything else of ``--bind`` is absent."""
    text = with_test(project, "pytest nowhere/test_x.py").contract_path.read_text()
    old = (
        text[: text.index("    probe:")]
        .replace("schema_version: 2\n", "")
        .replace("code_under_contract: [thermometer.py]\nvalid_for: 30d\n", "")
    )
    project.contract_path.write_text(old)
    assert said(project) == [f"15:18: BIND-006 warning: no file nowhere/test_x.py in {project.root}"]


def test_one_process_collects_for_all(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting pytest costs a second."""
    with_test(
        project, "pytest tests/test_room.py::test_reading tests/test_broken.py::test_x tests/test_room.py::test_no"
    )
    calls: list[object] = []
    run = subprocess.run

    def counted(*words: Any, **options: Any) -> Any:
        calls.append(words)
        return run(*words, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    assert len(said(project)) == 2
    assert len(calls) == 1


def test_a_failing_pytest_is_named(project: Project) -> None:
    """For instance a configuration that it refuses."""
    with_test(project, "pytest tests/test_room.py")
    (project.root / "conftest.py").write_text("raise RuntimeError('no room')\n")
    assert said(project) == ["18:18: BIND-006 error: pytest could not collect: RuntimeError: no room"]


def test_node_ids_are_read_from_the_command() -> None:
    """Values of options are not taken for tests."""
    found = named_tests("python3.11 -m pytest -p plug.py --ignore x.py -q a/../t.py::test_a u.py")
    assert found == [("t.py::test_a", 50), ("u.py", 68)]


def test_standard_input_lies_in_no_project(project: Project) -> None:
    """There is nothing to import from."""
    result = validate([project.contract_path])._replace(files=("-",))
    with pytest.raises(AprenderError, match="--bind needs files: standard input lies in no project"):
        check_binding(result)

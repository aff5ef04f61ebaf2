"""The pytest plugin: falsifiers as items with verdicts as outcomes."""

from __future__ import annotations

import pytest

from tests.toy_project import CONTRACT, Project, make_project


@pytest.fixture
def toy(pytester: pytest.Pytester) -> Project:
    return make_project(pytester.path)


def run(pytester: pytest.Pytester, *words: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "contracts", *words)


def test_a_green_falsifier_passes_under_its_own_node_id(toy: Project, pytester: pytest.Pytester) -> None:
    """``contracts/x.yaml::ID``; the evidence is recorded as by pv run."""
    result = run(pytester, "-v", "--pv-device", "cpu")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["contracts/thermometer-v1.yaml::FALSIFY-T-001 PASSED*"])
    assert (toy.root / "evidence" / "thermometer-v1.cpu.jsonl").exists()


def test_red_fails_with_prediction_observation_and_line(toy: Project, pytester: pytest.Pytester) -> None:
    """What pv run shows, and no traceback of the runner."""
    toy.edit("thermometer.py", "OFFSET = 0.5", "OFFSET = 1.5")
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*FALSIFY-T-001 is *RED*abs(reading - room) < 0.1, observed 1 against 0.1",
            "*prediction:  The reading differs from the room by less than a tenth of a degree.",
            "*observation: reading = 22.5 degC, room = 21.5 degC, samples = 2",
            "*stated at:   *contracts/thermometer-v1.yaml:13:5",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("toyprobes.reading:reading", "toyprobes.nothing:reading", "*is *ERROR*no module 'toyprobes.nothing'*"),
        ("- offset_forgotten", "- mercury_frozen", "*is *UNPROVEN*mercury_frozen not planted*"),
    ],
)
def test_error_and_unproven_are_errors_not_failures(
    old: str, new: str, line: str, toy: Project, pytester: pytest.Pytester
) -> None:
    """Nothing was shown false; nothing was shown."""
    toy.edit_contract(old, new)
    result = run(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([line])


def test_skipped_skips_with_the_reason_and_the_contracts_line(toy: Project, pytester: pytest.Pytester) -> None:
    """Not a pass."""
    toy.edit_contract("with: {room: 21.5}", "with: {room: 21.5}\n    requires: {device: cuda}")
    result = run(pytester, "-rs", "--pv-device", "cpu")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*contracts/thermometer-v1.yaml:13: *"])


def test_selection_by_keyword_and_marker(toy: Project, pytester: pytest.Pytester) -> None:
    """-k and -m ship_blocking, with strict markers on."""
    head, test = CONTRACT.split("  - id: FALSIFY-T-001\n")
    second = test.replace("ship_blocking: true", "ship_blocking: false")
    toy.contract_path.write_text(f"{head}  - id: FALSIFY-T-001\n{test}  - id: FALSIFY-T-002\n{second}")
    run(pytester, "--strict-markers").assert_outcomes(passed=2)
    run(pytester, "-k", "T-002").assert_outcomes(passed=1, deselected=1)
    result = run(pytester, "-v", "-m", "ship_blocking")
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["*FALSIFY-T-001 PASSED*"])
    run(pytester, "-n", "2").assert_outcomes(passed=2)


def test_an_invalid_contract_is_a_collection_error_with_its_findings(toy: Project, pytester: pytest.Pytester) -> None:
    """Each with its line."""
    toy.edit_contract("if_fails:", "if_fail:")
    result = run(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*thermometer-v1.yaml:16:5: error SCHEMA-024 unknown key 'if_fail'*"])


def test_other_yaml_files_are_left_alone_and_nothing_heavy_is_imported(pytester: pytest.Pytester) -> None:
    """The plugin is loaded in every project that has it installed."""
    pytester.path.joinpath("compose.yaml").write_text("services: {}\n")
    pytester.makepyfile(
        "import sys\n"
        "def test_light():\n"
        "    heavy = {'torch', 'numpy', 'yaml', 'jsonschema', 'rich', 'aprender.falsify', 'aprender.contracts'}\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    pytester.runpytest_subprocess(".", "-p", "no:hypothesispytest").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("schema_version: 2", "schema_verson: 2"),
        ("schema_version: 2", "# no version"),
        ("falsification_tests:", "falsification_test:"),
        ("metadata:", "metadata: ["),
        ("rule:", "rule: \xff"),
    ],
)
def test_a_broken_contract_is_collected_so_that_it_fails(
    old: str, new: str, toy: Project, pytester: pytest.Pytester
) -> None:
    """It must not vanish from a run that then passes."""
    text = toy.contract_path.read_text().replace(old, new, 1)
    toy.contract_path.write_bytes(text.encode("latin-1"))
    run(pytester).assert_outcomes(errors=1)


@pytest.mark.parametrize("version", ['"schema_version": 2', "schema_version : 2", "\ufeffschema_version: 2"])
def test_other_spellings_of_the_same_yaml_are_the_same_contract(
    version: str, toy: Project, pytester: pytest.Pytester
) -> None:
    """YAML decides, not the look of a line."""
    toy.edit_contract("schema_version: 2", version)
    run(pytester).assert_outcomes(passed=1)


def test_evidence_that_does_not_verify_is_an_error_without_a_traceback(toy: Project, pytester: pytest.Pytester) -> None:
    """As pv run says it."""
    run(pytester).assert_outcomes(passed=1)
    ledger = toy.root / "evidence" / "thermometer-v1.cpu.jsonl"
    ledger.write_text(ledger.read_text().replace("GREEN", "RED"))
    result = run(pytester, "--pv-device", "cpu")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*thermometer-v1.cpu.jsonl:1: not a record as this tool writes it*"])
    result.stdout.no_fnmatch_line("*Traceback*")

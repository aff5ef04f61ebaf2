"""``pv prove``: the record by defect, its denominators and exit codes. Every command runs in a process of its own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.test_pv import pv, pv_json
from tests.toy_project import Project

SECOND = """\
  - id: FALSIFY-T-002
    rule: Readings are of this planet
    prediction: The reading is above absolute zero and below boiling.
    if_fails: Look at the scale.
    probe: toyprobes.reading:reading
    with: {room: 21.5}
    requires: {device: DEVICE}
    expect:
      - reading < 60
    guards:
      - samples >= 2
    counter_example_classes: [fahrenheit]
"""


def with_second(project: Project, device: str = "cpu") -> None:
    text = project.contract_path.read_text()
    project.contract_path.write_text(text + SECOND.replace("DEVICE", device))


def counts(report: dict[str, Any]) -> dict[str, int]:
    names = ("declared", "planted", "caught", "survived", "inert", "not_planted", "crashed")
    return {name: report[name] for name in names if report[name]}


def test_the_text_has_every_catch_a_matrix_and_denominators(project: Project) -> None:
    """By falsifier what was measured against what is allowed; classes with one pattern share a line."""
    with_second(project)
    done = pv(project.root, "prove", "--device", "cpu")
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            "1  FALSIFY-T-001  GREEN  2 of 2 caught",
            "   caught       offset_forgotten  abs(reading - room) = 0.5, not < 0.1",
            "   caught       fahrenheit        abs(reading - room) = 49.2, not < 0.1",
            "",
            "2  FALSIFY-T-002  GREEN  1 of 1 caught",
            "   caught       fahrenheit  reading = 70.7, not < 60",
            "",
            "contracts/thermometer-v1.yaml: 2 defect classes x 2 falsifiers",
            "   1 2",
            "   C .    1  offset_forgotten",
            "   C C    1  fahrenheit",
            "",
            "C caught, S survived, I inert, N not planted, X crashed, . not declared",
            "",
            "2 falsifiers: 3 of 3 declared defects caught (3 planted; 0 survived, 0 inert, 0 not planted, 0 crashed);"
            " 5 observations, 2 reused from earlier runs",
        ],
    )


def test_the_json_has_the_true_matrix(project: Project) -> None:
    """Every cell with its outcome, the reason, and what it violated."""
    with_second(project)
    status, report = pv_json(project.root, "prove")
    assert (status, report["exit_code"], report["device"]) == (0, 0, "cpu")
    assert counts(report) == {"declared": 3, "planted": 3, "caught": 3}
    (matrix,) = report["matrix"]
    assert matrix["falsifiers"] == ["FALSIFY-T-001", "FALSIFY-T-002"]
    assert {name: list(row) for name, row in matrix["defects"].items()} == {
        "offset_forgotten": ["FALSIFY-T-001"],
        "fahrenheit": ["FALSIFY-T-001", "FALSIFY-T-002"],
    }
    assert matrix["defects"]["fahrenheit"]["FALSIFY-T-002"] == {
        "outcome": "caught",
        "detail": "reading < 60, observed 70.7 against 60",
        "violated": [{"text": "reading < 60", "holds": False, "left": pytest.approx(70.7), "right": 60.0}],
    }
    first = report["falsifiers"][0]
    assert (first["verdict"], first["system"], first["observations"]["samples"]["value"]) == (
        "GREEN", {"device": "cpu", "seed": 7}, 2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "outcome", "line"),
    [
        ("room.offset = room.offset, 0.0", "room.offset = room.offset, 0.45", "survived", "planted, and every expectation still holds"),
        ("room.offset = room.offset, 0.0", "room.offset = room.offset, 0.5", "inert", "the observation is bit-identical to the clean run"),
        ("kept, room.offset = room.offset, 0.0", "raise KeyError(1)", "not planted", "planting it failed: KeyError: 1 ("),
        ("    value =", "    assert system.offset\n    value =", "crashed", "a crash is not RED: the probe crashed: AssertionError: "),
    ],
)  # fmt: skip
def test_what_was_not_caught_comes_first_with_its_reason_and_exits_3(
    old: str, new: str, outcome: str, line: str, project: Project
) -> None:
    """The other class is caught all the same."""
    project.edit_contract("      - offset_forgotten\n", "")
    project.edit_contract("[abs(reading - room) < 0.1]}", "[abs(reading - room) < 0.1]}\n      - offset_forgotten")
    project.edit_probes(old, new)
    done = pv(project.root, "prove")
    head, first, second = done.stdout.splitlines()[:3]
    assert (done.returncode, head) == (3, "1  FALSIFY-T-001  UNPROVEN  1 of 2 caught")
    assert first.startswith(f"   {outcome:11}  offset_forgotten  {line}")
    assert second.startswith("   caught       fahrenheit        ")
    status, report = pv_json(project.root, "prove")
    planted = 1 if outcome == "not planted" else 2
    assert status == 3
    assert counts(report) == {"declared": 2, "planted": planted, "caught": 1, outcome.replace(" ", "_"): 1}


def test_a_red_clean_run_exits_1_and_its_classes_are_not_planted(project: Project) -> None:
    """They stay in the denominator."""
    project.edit("thermometer.py", "OFFSET = 0.5", "OFFSET = 1.5")
    done = pv(project.root, "prove")
    assert done.returncode == 1
    assert done.stdout.startswith("1  FALSIFY-T-001  RED  0 of 2 caught\n   FALSIFY-T-001 is RED: abs(reading - room)")
    assert "0 of 2 declared defects caught (0 planted; 0 survived, 0 inert, 2 not planted, 0 crashed)" in done.stdout
    status, report = pv_json(project.root, "prove")
    assert (status, counts(report)) == (1, {"declared": 2, "not_planted": 2})
    cell = report["matrix"][0]["defects"]["fahrenheit"]["FALSIFY-T-001"]
    assert cell["detail"].startswith("the falsifier is RED, and defects are planted only into what is GREEN: ")


def test_an_expectation_that_nothing_breaks_is_said_though_all_are_caught(project: Project) -> None:
    """UNPROVEN, with the reason."""
    project.edit_contract("    guards:", "      - reading < 1000\n    guards:")
    done = pv(project.root, "prove")
    assert done.returncode == 3
    assert "2 of 2 caught\n   FALSIFY-T-001 is UNPROVEN: no planted defect breaks 'reading < 1000'" in done.stdout


def test_what_can_not_run_here_is_not_proven_and_alone_is_nothing_to_do(project: Project) -> None:
    """3 beside what is caught, 2 by itself; 2 for what does not exist."""
    with_second(project, "cuda")
    done = pv(project.root, "prove", "--device", "cpu")
    assert done.returncode == 3
    assert "2  FALSIFY-T-002  SKIPPED  0 of 1 caught\n   FALSIFY-T-002 is SKIPPED: " in done.stdout
    assert pv(project.root, "prove", "--device", "cpu", "--only", "FALSIFY-T-002").returncode == 2
    assert pv(project.root, "prove", "--only", "FALSIFY-T-003").returncode == 2


def test_proving_is_running(project: Project) -> None:
    """One engine, one cache, one evidence."""
    assert pv(project.root, "prove").returncode == 0
    assert pv(project.root, "gate").returncode == 0
    assert "nothing changed: all 3 observations reused, nothing was run again" in pv(project.root, "run").stdout
    assert "nothing changed: all 3 observations reused, nothing was run again" in pv(project.root, "prove").stdout


@pytest.mark.parametrize(("size", "shown"), [("", ""), (', "detection_limit_size": 0.00123', " (0.00123)")])
def test_a_probe_that_observes_its_detection_limit_has_it_printed(size: str, shown: str, project: Project) -> None:
    """Of run and prove, under the name that docs/falsifiers.md gives it; the contract may guard it."""
    declared = size.replace("0.00123", '""')
    project.edit_probes('"samples": ""}', f'"samples": "", "detection_limit": "envelopes"{declared}}}')
    project.edit_probes('"samples": 2}', f'"samples": 2, "detection_limit": 1.25{size}}}')
    project.edit_contract("      - samples >= 2", "      - samples >= 2\n      - detection_limit <= 2")
    said = f"detection limit: one element off by 1.25 envelopes{shown}"
    done = pv(project.root, "prove")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, f"1  FALSIFY-T-001  GREEN  2 of 2 caught; {said}")
    assert pv(project.root, "run").stdout.splitlines()[2].strip() == said
    project.edit_contract("detection_limit <= 2", "detection_limit <= 1")
    done = pv(project.root, "run")
    assert done.returncode == 3
    assert "guard does not hold: detection_limit <= 1" in done.stdout

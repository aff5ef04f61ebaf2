"""The judge: finite numbers, guards, expectations, in that order, and nothing measured is never GREEN."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aprender.contracts.contract import Falsifier
from aprender.falsify.judge import judge
from aprender.falsify.verdict import Verdict, exit_code, worst
from tests.toy_project import Project

OBSERVES = {"reading": "degC", "room": "degC", "samples": ""}
GOOD: dict[str, Any] = {"reading": 21.5, "room": 21.5, "samples": 2}


@pytest.fixture
def falsifier(project: Project) -> Falsifier:
    return project.contract().falsifiers[0]


def test_an_observation_within_the_expectation_is_green(falsifier: Falsifier) -> None:
    """Both sides are kept for the report."""
    judgement = judge(falsifier, GOOD, OBSERVES)
    assert judgement.verdict is Verdict.GREEN
    assert [(e.left, e.right, e.holds) for e in judgement.expectations] == [(0.0, 0.1, True)]


def test_an_observation_outside_of_the_expectation_is_red_with_both_numbers(falsifier: Falsifier) -> None:
    """The reason says what was observed against what."""
    judgement = judge(falsifier, {**GOOD, "reading": 21.9}, OBSERVES)
    assert judgement.verdict is Verdict.RED
    assert judgement.reason == "abs(reading - room) < 0.1, observed 0.4 against 0.1"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({**GOOD, "reading": math.nan}, "reading is nan: not a finite number"),
        ({**GOOD, "reading": math.inf}, "reading is inf: not a finite number"),
        ({**GOOD, "samples": -math.inf}, "samples is -inf: not a finite number"),
        ({"reading": 21.5, "room": 21.5}, "declares but did not observe: samples"),
        ({**GOOD, "other": 1}, "observed what it does not declare: other"),
        ({**GOOD, "samples": True}, "samples is True (bool), not a number"),
        ({**GOOD, "reading": "21.5"}, "reading is '21.5' (str), not a number"),
        ({**GOOD, "reading": None}, "reading is None (NoneType), not a number"),
        ({**GOOD, "samples": 0}, "guard does not hold: samples >= 2, observed 0 against 2"),
        ({**GOOD, "samples": 0, "reading": 99.0}, "guard does not hold: samples >= 2, observed 0 against 2"),
        ({}, "did not observe: reading, room, samples"),
    ],
)
def test_what_is_not_a_measurement_is_error_and_never_green_or_red(
    values: dict[str, Any], reason: str, falsifier: Falsifier
) -> None:
    """NaN, missing, undeclared, no number, nothing measured: ERROR, whatever the expectations say."""
    judgement = judge(falsifier, values, OBSERVES)
    assert judgement.verdict is Verdict.ERROR
    assert reason in judgement.reason


def test_a_side_without_a_value_is_error(project: Project) -> None:
    """A logarithm of zero decides nothing."""
    project.edit_contract("- abs(reading - room) < 0.1\n    guards", "- ln(samples - 2) < reading\n    guards")
    project.edit_contract(", violates: [abs(reading - room) < 0.1]", "")
    judgement = judge(project.contract().falsifiers[0], GOOD, OBSERVES)
    assert judgement.verdict is Verdict.ERROR
    assert "has no value here" in judgement.reason


def test_the_worst_verdict_wins() -> None:
    """From worst to best; of no verdicts there is no worst."""
    assert worst([Verdict.GREEN, Verdict.SKIPPED, Verdict.STALE]) is Verdict.STALE
    assert worst([Verdict.ERROR, Verdict.RED]) is Verdict.RED
    assert worst([Verdict.RED, Verdict.TAMPERED]) is Verdict.TAMPERED
    with pytest.raises(ValueError, match="empty"):
        worst([])


@pytest.mark.parametrize(
    ("verdicts", "run_exit", "gate_exit"),
    [
        ("GREEN", 0, 0),
        ("GREEN SKIPPED", 0, 3),
        ("SKIPPED", 2, 3),
        ("", 2, 2),
        ("GREEN RED ERROR", 1, 1),
        ("GREEN ERROR", 3, 3),
        ("GREEN UNPROVEN", 3, 3),
        ("GREEN STALE", 3, 3),
        ("RED TAMPERED", 4, 4),
    ],
)
def test_exit_codes_are_what_the_manual_says(verdicts: str, run_exit: int, gate_exit: int) -> None:
    """A skip may pass for pv run where something else ran, and never for the gate."""
    found = [Verdict(word) for word in verdicts.split()]
    assert exit_code(found, skipped_may_pass=True) == run_exit
    assert exit_code(found, skipped_may_pass=False) == gate_exit

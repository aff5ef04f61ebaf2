"""Tests and predictions that can't fail: the plain cases, each with a near neighbour that is left alone."""

from __future__ import annotations

import json

import pytest

from aprender.contracts.check import check_content

HEAD = 'schema_version: 2\nmetadata: {version: "1.0.0", description: d, references: [r], kind: pattern}\n'


def said_of(test: str = "pytest tests/test_a.py", prediction: str = "below 0.1", more: str = "") -> list[str]:
    falsifier = {"id": "F-1", "rule": "rows sum to one", "prediction": prediction, "if_fails": "look", "test": test}
    text = f"{HEAD}falsification_tests:\n  - {json.dumps(falsifier)}\n{more}"
    found = check_content(text.encode(), "contract.yaml").findings
    return [f"{f.rule}: {f.message.partition(' ')[2]}" for f in found if f.rule.startswith("VACUITY")]


NOTHING = "VACUITY-004: runs nothing and always succeeds: nothing is measured"
FORGIVEN = "VACUITY-004: succeeds whatever fails in it: what stands after || has the last word"
COLLECTS = "VACUITY-004: only collects tests: none of them runs"
THERE = "VACUITY-004: only asks whether a source file is there: nothing is measured"
HELPER = "VACUITY-004: only feeds numbers to a helper that compares them: nothing is measured"
ITSELF = "VACUITY-005: compares a thing with itself: it holds of every implementation"
SEARCHES = "VACUITY-003: searches source text: a comment can satisfy it, and the code need never run"


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("true", NOTHING), (":", NOTHING), ("exit 0", NOTHING), ("echo ok", NOTHING), ("echo 'all is well'", NOTHING),
        ("cargo test || true", FORGIVEN), ("make a && make b || exit 0", FORGIVEN), ("cargo test || echo failed", FORGIVEN),
        ("pytest --collect-only", COLLECTS), ("pytest tests/test_a.py --co -q", COLLECTS), ("python -m pytest --collect-only -q | grep test_x", COLLECTS),
        ("test -f src/lib.rs", THERE), ("[ -e src/lib.rs ]", THERE),
        ("cat src/lib.rs | grep foo", SEARCHES), ("grep -q foo src/lib.rs", SEARCHES), ("grep -rq run.log src/lib.rs", SEARCHES),
        ("assert 1 == 1", "VACUITY-004: compares constants: nothing is measured"),
        ("check_threshold(loss=0.1, max=0.5)", HELPER), ("assert within_tolerance(0.1, tol = 1e-3)", HELPER),
        ("abs(a - a) < 1e-6", ITSELF), ("assert np.abs(f(x, 1)-f(x, 1)) < eps", ITSELF), ("assert_eq!(softmax(x), softmax(x))", ITSELF),
        ("assert_close(softmax(x, dim=-1), softmax(x, dim=-1), rtol=1e-5)", ITSELF), ("assert_eq!(a.b(), a.b());", ITSELF),
    ],
)  # fmt: skip
def test_a_command_that_cannot_fail_is_told(test: str, expected: str) -> None:
    """No change of the code can turn it red."""
    assert said_of(test) == [expected]


@pytest.mark.parametrize(
    "test",
    [
        "grep -q error run.log", "! grep -q NaN out/train.log", "cat run.log | grep 'loss 2.3'", "exit 1", "true positives outnumber the rest",
        "echo cancellation removes the far end", "echo ok && cargo test", "cargo test || exit 1", "set -e; make a; make b || true",
        "(make clean || true) && make check", "make clean || true; make check", "test -s out/model.gguf", "test -f a.rs && cargo test",
        "pytest --collect-only-nothing", "pytest --cov=src", "pytest --color=no", "cat a.bin | ./decode | grep ok", "echo $(cargo test)",
        "check_threshold(loss=loss, max=0.5)", "check_threshold(loss=0.1, max=limit())", "abs(a - b) < 1e-6", "abs(a - a0) < 1e-6",
        "abs(2 * a - a) < 1e-6", "abs(f(x) - f(y)) < 1", "assert_eq!(softmax(x), softmax(y))", "assert_eq!(f(x), f(x + 1))",
        "assert_eq!(sample(seed), sample(seed))", "assert_eq!(softmax(x), f(softmax(x)))", "echo 3 | ./softmax", "[ -n \"$(./softmax)\" ]",
    ],
)  # fmt: skip
def test_a_command_that_can_fail_is_left_alone(test: str) -> None:
    """A false alarm is worse than a miss; a log is what a run put out, not source."""
    assert said_of(test) == []


@pytest.mark.parametrize(
    "prediction", ["the test passes", "PASS", "rule holds", "The rule holds.", "all tests must pass"]
)
def test_a_prediction_that_it_passes_is_none(prediction: str) -> None:
    """It holds by definition, as the rule said again does."""
    message = "predicts that it passes: say what is measured, and which value would show it false"
    assert said_of(prediction=prediction) == [f"VACUITY-001: {message}"]


@pytest.mark.parametrize(
    "prediction", ["the test passes 3 times", "the rule holds on unseen seeds", "no test passes", "a pass"]
)
def test_a_prediction_that_says_more_is_left_alone(prediction: str) -> None:
    """What is measured may be about passing."""
    assert said_of(prediction=prediction) == []


@pytest.mark.parametrize(("tolerance", "count"), [("0", 0), ("0.0", 0), ("1.0e-6", 1)])
def test_a_tolerance_of_zero_needs_no_reason(tolerance: str, count: int) -> None:
    """None is narrower."""
    obligation = f"proof_obligations:\n  - {{id: OBL-1, type: bound, property: p, tolerance: {tolerance}}}\n"
    assert len(said_of(more=obligation)) == count

"""Judge controls: what can only come out one way is found, and nothing else is."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aprender.contracts.expression import Comparison, EvaluationError, parse
from aprender.contracts.intervals import range_of
from aprender.contracts.judge_controls import contradicted, foregone, hold_of_nothing, only_not_negative, repeated
from aprender.contracts.limits import Limits

ALWAYS = "holds of every observation: nothing can violate it"
NEVER = "holds of no observation: nothing can satisfy it"
CANCELS = "the names cancel out: no observation can change the outcome"


def cancels(part: str, whole: str) -> str:
    return f"'{part}' cancels out of '{whole}': whatever it is, the outcome is the same"


def guards(*texts: str) -> list[Comparison]:
    return [parse(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("abs(x) >= 0", ALWAYS),
        ("max(x, 1) >= 1", ALWAYS),
        ("min(x, 0) <= 0", ALWAYS),
        ("sqrt(x) >= 0", ALWAYS),
        ("x * x >= 0", ALWAYS),
        ("(x - y) ** 2 >= 0", ALWAYS),
        ("x ** 2 + 1 > 0", ALWAYS),
        ("x ** -2 >= 0", ALWAYS),
        ("ln(x) < 1000", ALWAYS),
        ("x <= 1.7976931348623157e308", ALWAYS),
        ("abs(x) + y >= y", ALWAYS),
        ("min(x, y) <= x", ALWAYS),
        ("min(x, y) <= max(x, y)", ALWAYS),
        ("abs(a - b) <= abs(a) + abs(b)", ALWAYS),
        ("abs(a - b) / max(abs(a), abs(b)) <= 3", ALWAYS),
        ("abs(x) < 0", NEVER),
        ("abs(x) == -1", NEVER),
        ("min(x, 1) > 1", NEVER),
        ("ln(a) / a > 0.4", NEVER),
        ("x - x < 1", CANCELS),
        ("x / x == 1", CANCELS),
        ("x * 2 / 2 == x", CANCELS),
        ("0 * x < 1", CANCELS),
        ("x + 1 > x", CANCELS),
        ("2 < 3", "compares constants: no observation can change the outcome"),
        ("ln(x) == ln(x)", "compares 'ln(x)' with itself: no observation can change the outcome"),
        ("abs(a - b) == abs(b - a)", "compares 'abs(a - b)' with itself: no observation can change the outcome"),
        ("a + b == b + a", "compares 'a + b' with itself: no observation can change the outcome"),
        ("x < 1 / 0", "'1 / 0' never has a finite value: the verdict would be ERROR whatever is observed"),
        ("x < ln(0) + 1", "'ln(0)' never has a finite value: the verdict would be ERROR whatever is observed"),
        ("x < 10 ** 400", "'10 ** 400' never has a finite value: the verdict would be ERROR whatever is observed"),
        (
            "sqrt(-1 - abs(x)) < 1",
            "'sqrt(-1 - abs(x))' never has a finite value: the verdict would be ERROR whatever is observed",
        ),
        ("x < inf", "'inf' is no number here: a bound is finite"),
        ("x != NaN", "'NaN' is no number here: a bound is finite"),
    ],
)
def test_what_no_observation_can_change_is_foregone(text: str, reason: str) -> None:
    """Proved from intervals or by cancelling, or unanimous in the sample."""
    assert foregone(parse(text)) == reason


@pytest.mark.parametrize(
    "text",
    [
        "x >= 0", "x < 1e308", "x == 12345.678", "x != 3", "a == b", "x > 5e-324 * x",
        "val_loss < 0.7 * ln(vocab_size)", "abs(a - b) <= envelope", "abs(a - b) <= 1e-6 * abs(b)", "abs(a - b) / b < 0.01",
        "a <= a + b", "x ** 3 >= 0", "2 ** x > 0", "1 / (x * x) > 1e-200",
        "x / (1 + abs(x)) < 0.999", "a * b - c * d == 12345", "a * a - 100000000 * a > 5e20",
        "ln(a) / a > 0.367", "a * (10 - a) > 24.9999", "max(a, b) - min(a, b) > 0", "sqrt(x) > 0", "log2(x) >= 1000",
    ],
)  # fmt: skip
def test_what_an_observation_can_change_is_left_alone(text: str) -> None:
    """Also where the numbers that change it lie in a narrow window, or far out."""
    assert foregone(parse(text)) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("val_loss > 0", "holds of every observation that passes the guards: nothing can violate it"),
        ("val_loss > -1", "holds of every observation that passes the guards: nothing can violate it"),
        ("n < 2", "holds of no observation that passes the guards: nothing can satisfy it"),
        ("n < 3", None),
        ("val_loss > 0.001", None),
    ],
)
def test_what_a_guard_has_made_sure_of_is_foregone(text: str, reason: str | None) -> None:
    """An expectation that only a failing guard could violate never turns RED."""
    assert foregone(parse(text), Limits(guards("0 < val_loss", "n >= 2"))) == reason


def test_guards_that_contradict_each_other_are_found() -> None:
    """Nothing passes both; one number may pass both."""
    first, second, third = guards("x > 5", "y < 3", "x < 3")
    assert contradicted([first, second, third]) == (third, first)
    assert contradicted([first, second]) is None
    assert contradicted(guards("x >= 3", "x <= 3")) is None
    assert contradicted(guards("x > 3", "x <= 3")) is not None
    assert contradicted(guards("x == 1", "x == 2")) is not None
    assert contradicted(guards("a < b", "a > b")) is not None
    assert contradicted(guards("a < b", "a >= b - 1")) is None
    assert contradicted(guards("x == 1", "x != 1")) is not None


def test_what_rules_another_out_may_be_written_in_another_form() -> None:
    """The names' bounds decide; one that does so alone is named, else the last."""
    size, low, other = guards("abs(x) < 1", "x > 2", "y > 2")
    assert contradicted([size, low]) == contradicted([size, low, other]) == (size, low)
    together = guards("x + y < 3", "x > 2", "y > 2")
    assert contradicted(together) == (together[0], together[2])
    assert contradicted(guards("x + y < 5", "x > 2", "y > 2")) is None


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["n >= 0"], True),
        (["n <= 5", "a == b"], True),
        (["tokens >= 0.5 * expected"], True),
        (["n <= 5", "m > 0"], False),
        (["n >= 1"], False),
        (["ln(n) <= 5"], False),
    ],
)
def test_whether_nothing_measured_passes(texts: list[str], expected: bool) -> None:
    """A guard without a value at zero rejects: the verdict is ERROR."""
    assert hold_of_nothing(guards(*texts)) is expected


@pytest.mark.parametrize("text", ["n >= 0", "n > -1", "0 <= n", "n + m >= 0", "n > -0.5"])
def test_a_guard_that_says_only_that_a_count_is_one(text: str) -> None:
    """It looks like a guard, and every count passes."""
    assert only_not_negative(parse(text))


@pytest.mark.parametrize("text", ["n >= 1", "n > 0", "n < 5", "log_probability >= -100", "n == m", "1 > 0"])
def test_a_guard_that_says_more(text: str) -> None:
    """A bound below zero is one on something that has a sign."""
    assert not only_not_negative(parse(text))


NUMBERS = st.sampled_from(["0", "1", "2", "3", "0.5", "-1", "1e3", "1e300", "0.1"])
SIDES = st.recursive(
    NUMBERS | st.sampled_from(["x", "y"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "**"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(st.sampled_from(["ln", "log2", "sqrt", "abs"]), inner).map(lambda t: f"{t[0]}({t[1]})"),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
    ),
    max_leaves=7,
)
VALUES = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1.0, -1.0, 2.0, 3.0, 0.5, 1e300])


@settings(max_examples=400, deadline=None)
@given(side=SIDES, x=VALUES, y=VALUES)
def test_every_value_lies_in_the_interval(side: str, x: float, y: float) -> None:
    """Whatever is observed: an interval that is too small would prove what is not so."""
    comparison = parse(f"{side} < 1")
    try:
        value = comparison.evaluate({"x": x, "y": y}).left
    except EvaluationError:
        return
    reached = range_of(comparison.left, {})
    assert reached is not None
    assert reached.low <= value or math.isclose(reached.low, value)
    assert value <= reached.high or math.isclose(reached.high, value)


@settings(max_examples=300, deadline=None, derandomize=True)  # what only samples say, a rare number may refute
@given(left=SIDES, symbol=st.sampled_from(["<", "<=", ">", ">="]), right=SIDES, x=VALUES, y=VALUES)
@example("(x / log2(y))", "<=", "abs(x)", 1.0, 1.5)  # once no sample had a logarithm between 0 and 1
@example("1e3", "<", "min(x, log2(x))", 1.1e301, 0.0)  # nor one above 1000
def test_nothing_refutes_what_was_called_foregone(left: str, symbol: str, right: str, x: float, y: float) -> None:
    """But rounding, where the names cancel on paper."""
    comparison = parse(f"{left} {symbol} {right}")
    reason = foregone(comparison)
    if reason not in (ALWAYS, NEVER):
        return
    try:
        sides = comparison.evaluate({"x": x, "y": y})
    except EvaluationError:
        return
    assert sides.holds is (reason == ALWAYS) or math.isclose(sides.left, sides.right, rel_tol=1e-6, abs_tol=1e-6)


@settings(max_examples=300, deadline=None)
@given(left=SIDES, symbol=st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), right=SIDES, x=VALUES, y=VALUES)
def test_no_observation_passes_what_is_called_contradictory(
    left: str, symbol: str, right: str, x: float, y: float
) -> None:
    """Nor does one that passes a guard refute what the guard is said to imply, but for rounding."""
    one = parse(f"{left} {symbol} {right}")
    for other in guards(f"{right} < {left}", f"{left} - {right} >= 1", "x <= 2", "y == 0.5", "x * y != 3"):
        try:
            sides, passed = one.evaluate({"x": x, "y": y}), other.evaluate({"x": x, "y": y})
        except EvaluationError:
            continue
        if any(math.isclose(*sides_of[1:], rel_tol=1e-6, abs_tol=1e-6) for sides_of in (sides, passed)):
            continue
        assert not (sides.holds and passed.holds and contradicted([other, one]))
        if passed.holds and (outcome := Limits([other]).outcome(one)) is not None:
            assert sides.holds is outcome


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("abs(x - x) <= tol", "'x - x' is 0 whatever is observed"),
        ("abs(ln(x) - ln(x)) * y < z", "'ln(x) - ln(x)' is 0 whatever is observed"),
        ("x + y - x < 1", cancels("x", "x + y - x")),
        ("1 < max(2 * (x - y) + 2 * y, z)", cancels("y", "2 * (x - y) + 2 * y")),
        ("a - b + b >= -1", cancels("b", "a - b + b")),
        ("0 * x + y < 1", "'0 * x' is 0 whatever is observed"),
        ("y < 2 * (x / x)", "'x / x' is 1 whatever is observed"),
        ("1 / x == 0", NEVER),
        ("0 == -abs(2 / x)", NEVER),
        ("x ** -1 == 0", NEVER),
        ("1 / x != 0", ALWAYS),
        ("x ** -2 == 0", None),  # it is, for the largest numbers
        ("1e-300 / x == 0", None),
        ("1e-300 * (1 / x) == 0", None),
        ("2 / (3 * x) == 0", None),
        ("1 / x == 1e-5", None),
        ("a + b < a + c", None),
        ("x / y == 0", None),
    ],
)
def test_parts_that_are_zero_and_parts_that_never_are(text: str, reason: str | None) -> None:
    """As floating point has it, not only on paper."""
    assert foregone(parse(text)) == reason


@pytest.mark.parametrize(
    ("guard", "expectation", "outcome"),
    [
        ("y >= abs(x)", "abs(x) <= y", True),
        ("y > abs(x)", "abs(x) <= y", True),
        ("a == b", "b <= a", True),
        ("b == a", "a == b", True),
        ("2 * n >= 4", "n > 1", True),
        ("abs(a - b) <= 1", "abs(b - a) < 1.5", True),
        ("a - b < 1", "b > a - 2", True),
        ("n >= 1, n <= 1", "n == 1", True),
        ("n != 0", "0 != n", True),
        ("n != 0", "n == 0", False),
        ("y > abs(x)", "abs(x) > y", False),
        ("a - b < 1", "a - b == 2", False),
        ("y >= abs(x)", "abs(x) < y", None),
        ("y >= abs(x)", "abs(x) >= y", None),
        ("a - b < 1", "a + b < 1", None),
        ("n != 0", "n != 1", None),
        ("n > 2, n < 1", "n == 1", None),  # the guards are at fault, and said to be
    ],
)
def test_what_a_guard_says_already_no_expectation_shows(guard: str, expectation: str, outcome: bool | None) -> None:
    """In another notation, with a stricter operator or bound, or by way of two guards; and what it rules out."""
    reason = foregone(parse(expectation), Limits(guards(*guard.split(", "))))
    assert (
        reason
        == {
            True: "holds of every observation that passes the guards: nothing can violate it",
            False: "holds of no observation that passes the guards: nothing can satisfy it",
            None: None,
        }[outcome]
    )


def test_the_same_is_found_in_another_notation() -> None:
    """Turned round, with other blanks; another operator or bound is something else."""
    comparisons = guards("x < 1", "1>x", "a == b", "b == a", "x <= 1", "x < 2", "x > 1", "2 * x < 2")
    pairs = [("1>x", "x < 1"), ("b == a", "a == b"), ("2 * x < 2", "x < 1")]
    assert [(one.text, first.text) for one, first in repeated(comparisons)] == pairs

"""The expression language: one comparison, nothing else, and never a silent value."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aprender.contracts.expression import EvaluationError, ExpressionError, parse


@pytest.mark.parametrize(
    ("text", "values", "holds", "left", "right"),
    [
        ("val_loss < 0.7 * ln(vocab_size)", {"val_loss": 4.0, "vocab_size": 1000}, True, 4.0, 0.7 * math.log(1000)),
        ("val_loss < 0.7 * ln(vocab_size)", {"val_loss": 5.0, "vocab_size": 1000}, False, 5.0, 0.7 * math.log(1000)),
        ("abs(a - b) <= 2 ** -3", {"a": 1.0, "b": 1.125}, True, 0.125, 0.125),
        ("abs(a - b) < 2 ** -3", {"a": 1.0, "b": 1.125}, False, 0.125, 0.125),
        ("max(a, -b) == sqrt(16)", {"a": 4, "b": 5}, True, 4, 4),
        ("log2(a) != +3", {"a": 8}, False, 3, 3),
        ("min(a, 1) / 2 >= 0.5", {"a": 3}, True, 0.5, 0.5),
    ],
)
def test_both_sides_are_evaluated(text: str, values: dict[str, float], holds: bool, left: float, right: float) -> None:
    """A comparison keeps both values, so that a report can show how far off it was."""
    sides = parse(text).evaluate(values)
    assert (sides.holds, sides.left, sides.right) == (holds, left, right)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a < 1 or b < 1", "there is no 'or'"),
        ("a < 1 and b < 1", "one list entry per comparison"),
        ("0 < a < 1", "exactly one of"),
        ("a in b", "exactly one of"),
        ("a + 1", "not a comparison"),
        ("a <", "not an expression"),
        ("a.b < 1", "'a.b' is not part of the language"),
        ("a[0] < 1", "not part of the language"),
        ("exp(a) < 1", "unknown function 'exp'"),
        ("__import__('os') < 1", "unknown function '__import__'"),
        ("log(a) < 1", "Did you mean 'log2'?"),
        ("ln < 1", "'ln' is a function"),
        ("ln(a, b) < 1", "ln takes 1 argument(s), not 2"),
        ("abs(x=a) < 1", "not part of the language"),
        ("True < a", "not part of the language"),
        ("'x' < a", "not part of the language"),
        ("1j < a", "not part of the language"),
        ("a % 2 < 1", "not part of the language"),
        ("(lambda: 1)() < a", "not part of the language"),
        ("a < 1  # and b < 1", "comments and line breaks"),
        ("a <\n1", "comments and line breaks"),
        ("a < 1e999", "out of range"),
        ("a" * 501, "at most 500"),
        ("(" * 300 + "a < 1", "not an expression"),
    ],
)
def test_what_is_not_in_the_language_is_refused(text: str, message: str) -> None:
    """No or, no chain, no attribute, no other call, no other literal."""
    with pytest.raises(ExpressionError) as refused:
        parse(text)
    assert message in str(refused.value)


@pytest.mark.parametrize("text", ["a / 0 < 1", "ln(0 * a) < 1", "sqrt(-a) < 1", "10 ** 400 < a", "1e300 * 1e300 < a"])
def test_a_side_without_a_finite_value_is_an_error_not_an_outcome(text: str) -> None:
    """A division by zero or an overflow must never decide a verdict."""
    with pytest.raises(EvaluationError):
        parse(text).evaluate({"a": 1.0})


@pytest.mark.parametrize("symbol", ["<", "<=", ">", ">=", "==", "!="])
@given(value=st.sampled_from([math.nan, math.inf, -math.inf]))
def test_no_comparison_holds_of_a_non_finite_value(symbol: str, value: float) -> None:
    """NaN makes ``!=`` true in Python; here it is an error."""
    with pytest.raises(EvaluationError):
        parse(f"a {symbol} 1").evaluate({"a": value})


@given(st.text(max_size=60))
def test_no_text_makes_the_parser_raise_anything_else(text: str) -> None:
    """Any text either parses or is refused with an ExpressionError."""
    with suppress(ExpressionError):
        assert parse(text).symbol in ("<", "<=", ">", ">=", "==", "!=")

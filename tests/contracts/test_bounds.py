"""Which of two comparisons allows more, from the text alone."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from aprender.contracts.bounds import ranges_of, relation
from aprender.contracts.expression import EvaluationError, parse
from aprender.contracts.intervals import LARGEST, SMALLEST, Interval

NOT_NEGATIVE = Interval(0.0, LARGEST)
SWAPPED = {"tightened": "weakened", "weakened": "tightened", "same": "same", None: None}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("x < 4", "x < 5", "weakened"),
        ("x > 4", "x > 5", "tightened"),
        ("x >= 4", "x >= 3", "weakened"),
        ("x > -4", "x > -5", "weakened"),
        ("x < 4", "5 > x", "weakened"),
        ("x < 0.7 * ln(v)", "x < 0.8 * ln(v)", None),  # v may be below 1
        ("abs(x) < 0.7 * ln(v)", "abs(x) < 0.8 * ln(v)", "weakened"),  # where this holds v is not
        ("abs(x) <= 2 * e", "abs(x) <= e * 1.5", None),  # written another way
        ("abs(x) <= 2 * e", "abs(x) <= 1.5 * e", "tightened"),
        ("2 * e >= abs(x)", "1.5 * e >= abs(x)", "tightened"),
        ("abs(x) <= e / 2 * 3", "abs(x) <= e / 2 * 2", "tightened"),
        ("abs(x) > 2 * e", "abs(x) > 3 * e", None),  # e may be negative
        ("x < y + 2 * z", "x < 2 * z + y", "same"),
        ("x - 3 < y", "x - 4 < y", "weakened"),
        ("abs(a - b) <= 1e-3", "abs(a - b) <= 1e-4", "tightened"),
        ("x < min(a, 3)", "x < min(a, 4)", "weakened"),
        ("x < 2 ** -3", "x < 2 ** -2", "weakened"),
        ("x < 4", "x <= 4", "weakened"),
        ("x == 4", "x <= 4", "weakened"),
        ("x < 4", "x != 4", "weakened"),
        ("x < 4", "x <= 3", "tightened"),  # another operator, and the bound outweighs it
        ("x<4", "4 > x", "same"),
        ("x < 4", "x > 4", None),
        ("x == 4", "x == 5", None),
        ("x < 4", "y < 4", None),
        ("x < y", "y < x", None),
        ("abs(x - 3) < 1", "abs(x - 4) < 1", None),
        ("x * 3 > -4", "x * 2 > -4", None),  # stricter for a negative x, looser for a positive one
        ("x < 2 * e", "x < 3 * e", None),  # e may be negative
        ("x < n ** 2", "x < n ** 3", None),
        ("x < 1 * a + 3 * b", "x < 2 * a + 2 * b", None),
        ("not a comparison", "not  a comparison", "same"),
        ("not a comparison", "another", None),
    ],
)
def test_the_direction_of_a_change(old: str, new: str, expected: str | None) -> None:
    """And the other way round for the two exchanged."""
    assert relation(old, new) == expected
    assert relation(new, old) == SWAPPED[expected]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("x < 2 * e", "x < 3 * e", "weakened"),
        ("x < e / 2", "x < e / 3", "tightened"),
        ("x < 1 / (2 + e)", "x < 1 / (3 + e)", "tightened"),
        ("x < e ** 3 * 3", "x < e ** 3 * 4", "weakened"),
        ("x < (e + 1) ** 2", "x < (e + 2) ** 2", "weakened"),
        ("x < (e + 2) ** 2", "x < (e - 9) ** 2", None),  # the square of what became negative
        ("x > sqrt(e + 1)", "x > sqrt(e + 2)", "tightened"),
        ("x > sqrt(e - 1)", "x > sqrt(e + 1)", None),  # ERROR in OLD where e is 0, not in NEW
        ("x > ln(e + 0)", "x > ln(e + 1)", None),
        ("x < 1 / (e + 0)", "x < 1 / (e + 1)", None),
        ("x < (e + 0) ** -1", "x < (e + 1) ** -1", None),
        ("x <= 3 * e", "x < 4 * e", None),  # where e is 0 it is stricter, elsewhere looser
    ],
)
def test_a_guard_may_decide_a_sign(old: str, new: str, expected: str | None) -> None:
    """What is known not to be negative keeps or turns the direction."""
    assert relation(old, new) is None
    assert relation(old, new, {"e": NOT_NEGATIVE}) == expected


def test_the_range_that_guards_leave_a_name() -> None:
    """Either way round; what only one version bounds, and what is contradictory, is not known."""
    guards = ["a > 0", "0 <= b", "b < 2", "c >= -1", "d == 3", "f + 1 > 0", "g > 2", "g < 1", "h != 3", "prose"]
    assert ranges_of(guards, [*guards, "a >= 5", "e < 3"]) == {
        "a": Interval(SMALLEST, LARGEST),
        "b": Interval(0.0, math.nextafter(2.0, 0.0)),
        "c": Interval(-1.0, LARGEST),
        "d": Interval(3.0, 3.0),
    }


@pytest.mark.parametrize(
    ("guards", "expected"),
    [
        ([], None),
        (["v >= 1"], "tightened"),
        (["v > 0", "v < 1"], "weakened"),  # the logarithm is negative: a smaller factor allows more
        (["v > 0"], None),
    ],
)
def test_a_logarithm_has_the_sign_that_guards_give_it(guards: list[str], expected: str | None) -> None:
    """No name is taken to be a size because it stands inside of a logarithm."""
    ranges = ranges_of(guards, guards)
    for function in ("ln", "log2"):
        assert relation(f"x < 3 * {function}(v)", f"x < 2 * {function}(v)", ranges) == expected


def test_a_guard_on_the_smaller_side_decides_the_sign_of_the_larger_one() -> None:
    """A loss above zero that is below a multiple of ln(v) says that v is at least 1, in both versions or not at all."""
    guards = ["x > 0"]
    assert relation("x < 0.7 * ln(v)", "x < 0.6 * ln(v)", ranges_of(guards, guards)) == "tightened"
    assert relation("x < 0.7 * ln(v)", "x < 0.6 * ln(v)", ranges_of(guards, [])) is None


NUMBERS = st.integers(-9, 9).map(str)
NAMES = st.sampled_from(["a", "b"])
SIDES = st.recursive(
    NUMBERS | NAMES,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "**"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | st.tuples(st.sampled_from(["abs", "sqrt", "ln"]), inner).map(lambda t: f"{t[0]}({t[1]})")
        | st.tuples(inner, inner).map(lambda t: f"max({t[0]}, {t[1]})")
    ),
    max_leaves=5,
)
SYMBOLS = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
SEEN = [(a, b) for a in (0.0, 0.3, 1.0, 2.5, 7.0, 20.0) for b in (-20.0, -3.0, -0.4, 0.0, 0.7, 1.0, 4.0, 18.0)]


@settings(max_examples=300, suppress_health_check=[HealthCheck.filter_too_much])
@given(SIDES, SIDES, SYMBOLS, SYMBOLS, st.lists(NUMBERS, min_size=1))
def test_what_is_called_tightened_implies_the_old_one(
    left: str, right: str, symbol: str, other: str, numbers: list[str]
) -> None:
    """No observation satisfies a tightened comparison and not the one it replaces; a is never negative here."""
    old = f"{left} {symbol} {right}"
    further = iter(numbers)
    new = re.sub(r"-?\b[0-9]", lambda match: next(further, match[0]), f"{left} {other} {right}")
    verdict = relation(old, new, {"a": NOT_NEGATIVE})
    assume(verdict is not None)
    narrow, wide = (parse(new), parse(old)) if verdict == "tightened" else (parse(old), parse(new))
    for a, b in SEEN:
        try:
            inside = narrow.evaluate({"a": a, "b": b})
        except EvaluationError:
            continue
        if inside.holds and abs(inside.left - inside.right) >= 1e-9 * max(1, abs(inside.left)):
            outside = wide.evaluate({"a": a, "b": b})
            assert outside.holds or abs(outside.left - outside.right) < 1e-9 * max(1, abs(outside.left))

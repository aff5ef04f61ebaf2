"""Which of two comparisons allows more, from the text alone."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aprender.contracts.bounds import Known, known_from, relation
from aprender.contracts.expression import parse

SWAPPED = {"tightened": "weakened", "weakened": "tightened", "same": "same", None: None}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("x < 4", "x < 5", "weakened"),
        ("x > 4", "x > 5", "tightened"),
        ("x >= 4", "x >= 3", "weakened"),
        ("x > -4", "x > -5", "weakened"),
        ("x < 4", "5 > x", "weakened"),
        ("x < 0.7 * ln(v)", "x < 0.8 * ln(v)", "weakened"),
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
        ("x < e ** 2 * 3", "x < e ** 2 * 4", None),  # a power has no known sign here
        ("x < (e + 1) ** 2", "x < (e + 2) ** 2", "weakened"),
        ("x <= 3 * e", "x < 4 * e", None),  # where e is 0 it is stricter, elsewhere looser
    ],
)
def test_a_guard_may_decide_a_sign(old: str, new: str, expected: str | None) -> None:
    """What is known not to be negative keeps or turns the direction."""
    assert relation(old, new) is None
    assert relation(old, new, Known(frozenset({"e"}))) == expected


def test_guards_that_keep_a_name_from_being_negative() -> None:
    """Either way round; a bound below zero does not."""
    guards = ["a > 0", "0 <= b", "c >= -1", "d == 3", "e < 3", "f + 1 > 0", "prose"]
    assert known_from(guards, guards).not_negative == {
        "a",
        "b",
        "d",
    }


NUMBERS = st.integers(-9, 9).map(str)
NAMES = st.sampled_from(["a", "b"])
SIDES = st.recursive(
    NUMBERS | NAMES,
    lambda inner: (
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | inner.map("abs({})".format)
        | st.tuples(inner, inner).map(lambda t: f"max({t[0]}, {t[1]})")
    ),
    max_leaves=5,
)
SYMBOLS = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


@given(
    SIDES, SIDES, SYMBOLS, SYMBOLS, st.integers(-9, 9), st.integers(-9, 9),
    st.lists(st.tuples(st.floats(0, 20), st.floats(-20, 20)), min_size=20, max_size=20),
)  # fmt: skip
def test_what_is_called_tightened_implies_the_old_one(
    left: str, right: str, symbol: str, other: str, number: int, further: int, seen: list[tuple[float, float]]
) -> None:
    """No observation satisfies a tightened comparison and not the one it replaces; a is never negative here."""
    old, new = f"{left} {symbol} {right} * {number}", f"{left} {other} {right} * {further}"
    verdict = relation(old, new, Known(frozenset({"a"})))
    assume(verdict is not None)
    narrow, wide = (parse(new), parse(old)) if verdict == "tightened" else (parse(old), parse(new))
    for a, b in seen:
        try:
            inside = narrow.evaluate({"a": a, "b": b})
            outside = wide.evaluate({"a": a, "b": b})
        except ArithmeticError:
            continue
        near = abs(inside.left - inside.right) < 1e-9 * max(1, abs(inside.left)) or abs(
            outside.left - outside.right
        ) < 1e-9 * max(1, abs(outside.left))
        assert outside.holds or not inside.holds or near


def test_a_name_that_a_guard_bounds_is_no_size() -> None:
    """Below 1 its logarithm is negative, and a smaller factor makes the bound larger."""
    assert relation("x < 3*ln(p)", "x < 2*ln(p)") == "tightened"
    assert relation("x < 3*ln(p)", "x < 2*ln(p)", known_from(["p > 0", "p < 1"], ["p > 0"])) is None

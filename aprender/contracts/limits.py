"""Comparisons beside one another: each as a sum of parts that is compared with a number, and what many leave of it.

``2 * a < b`` and ``b - 2 * a > 0`` are written differently and say the same; so do ``y >= abs(x)`` and
``abs(x) - y <= 0``. In one form they can be looked up, and what a thousand of them leave costs no more than reading
each once.
"""

# No postponed annotations here: NamedTuple would compile each from its text, which costs as much as a small contract.

import _ast as ast
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from aprender.contracts.expression import Comparison, EvaluationError, value_of
from aprender.contracts.intervals import ANY, Interval, key_of, range_of

MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
Terms = dict[str, tuple[float, ast.expr]]  # by what a part says: its factor, and the part


class Bound(NamedTuple):
    """A comparison as ``parts symbol value``: the parts in order, each with its factor, which is 1 for the first."""

    parts: tuple[tuple[str, float], ...]
    symbol: str
    value: float


class Limits:
    """What all of some comparisons leave of each sum of parts."""

    def __init__(self, comparisons: Iterable[Comparison] = ()) -> None:
        self._between: dict[object, Interval] = {}
        self._not: set[tuple[object, float]] = set()
        self._names: dict[str, Interval] = {}
        self._nothing = False
        for comparison in comparisons:
            self.add(comparison)

    def add(self, comparison: Comparison) -> None:
        """Take one more comparison into account."""
        bound = bound_of(comparison)
        if bound is None:
            return
        if bound.symbol == "!=":
            self._not.add((bound.parts, bound.value))
            return
        known, left = self._between.get(bound.parts, ANY), _left_by(bound)
        both = Interval(max(known.low, left.low), min(known.high, left.high))
        self._nothing = self._nothing or both.low > both.high
        self._between[bound.parts] = both
        if len(bound.parts) == 1 and bound.parts[0][0] in comparison.names:
            self._names[bound.parts[0][0]] = both

    @property
    def names(self) -> Mapping[str, Interval]:
        """What is left of single names; nothing is said where the comparisons exclude each other."""
        return {} if self._nothing else self._names

    def outcome(self, comparison: Comparison) -> bool | None:
        """How ``comparison`` comes out wherever all of these hold; None where that is open, or nothing is left."""
        bound = bound_of(comparison)
        if bound is None or self._nothing:
            return None
        if bound.symbol in ("==", "!=") and (bound.parts, bound.value) in self._not:
            return bound.symbol == "!="
        known = self._between.get(bound.parts)
        return decided(bound.symbol, known, Interval(bound.value, bound.value)) if known else None


@lru_cache(maxsize=1024)
def bound_of(comparison: Comparison) -> Bound | None:
    """The one form of ``comparison``; None where no name is left in it, or its numbers are too large."""
    found, constant = difference(comparison)
    terms = sorted((key, factor) for key, (factor, _) in found.items() if factor)
    if not terms:
        return None
    scale = terms[0][1]
    value = -constant / scale + 0.0  # no negative zero
    parts = tuple((key, factor / scale) for key, factor in terms)
    if not all(map(math.isfinite, (value, *(factor for _, factor in parts)))):
        return None
    return Bound(parts, comparison.symbol if scale > 0 else MIRRORED[comparison.symbol], value)


def difference(comparison: Comparison) -> tuple[Terms, float]:
    """Left side minus right side as a sum: every part that is no sum, also where its factor is 0, and a constant."""
    terms: Terms = {}
    constant = add_terms(comparison.left, 1.0, terms) + add_terms(comparison.right, -1.0, terms)
    return terms, constant


def add_terms(node: ast.expr, factor: float, terms: Terms) -> float:
    """Add ``factor`` times ``node`` to ``terms``; returns what of it is constant."""
    match node:
        case ast.BinOp(op=ast.Add()):
            return add_terms(node.left, factor, terms) + add_terms(node.right, factor, terms)
        case ast.BinOp(op=ast.Sub()):
            return add_terms(node.left, factor, terms) + add_terms(node.right, -factor, terms)
        case ast.UnaryOp():
            return add_terms(node.operand, -factor if isinstance(node.op, ast.USub) else factor, terms)
        case ast.BinOp(op=ast.Mult()) if (number := constant_of(node.left)) is not None:
            return add_terms(node.right, factor * number, terms)
        case ast.BinOp(op=ast.Mult()) if (number := constant_of(node.right)) is not None:
            return add_terms(node.left, factor * number, terms)
        case ast.BinOp(op=ast.Div()) if number := constant_of(node.right):
            return add_terms(node.left, factor / number, terms)
        case _ if (number := constant_of(node)) is not None:
            return factor * number
    key = key_of(node)
    terms[key] = terms.get(key, (0.0, node))[0] + factor, node
    return 0.0


@lru_cache(maxsize=1024)
def constant_of(node: ast.expr) -> float | None:
    """The value of a part that is the same for every observation: no name in it, or equal things divided."""
    try:
        return value_of(node, {})
    except EvaluationError:
        return None
    except KeyError:
        reached = range_of(node, {})
        return reached.low if reached and reached.low == reached.high else None


def decided(symbol: str, left: Interval, right: Interval) -> bool | None:
    """What all numbers of two intervals have in common, if anything."""
    if symbol in (">", ">="):
        return decided(MIRRORED[symbol], right, left)
    if symbol in ("==", "!="):
        apart = left.high < right.low or right.high < left.low
        one = left.low == left.high == right.low == right.high
        return (symbol == "!=") is apart if apart or one else None
    never = left.low > right.high or (symbol == "<" and left.low == right.high)
    always = left.high < right.low or (symbol == "<=" and left.high == right.low)
    return always if always or never else None


def _left_by(bound: Bound) -> Interval:
    symbol, value = bound.symbol, bound.value
    above = math.nextafter(value, math.inf) if symbol == ">" else value
    below = math.nextafter(value, -math.inf) if symbol == "<" else value
    return Interval(
        above if symbol in (">", ">=", "==") else ANY.low, below if symbol in ("<", "<=", "==") else ANY.high
    )

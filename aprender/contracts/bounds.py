"""Which of two comparisons allows more.

Decided from the text alone, and only where it can be: the comparisons are the same up to numbers and the operator, and
every changed number moves a side in a direction that is known whatever is observed. Nothing is taken for granted of a
name but what both versions say where they hold: ``ln(p)`` is not negative where ``p >= 1`` is a guard, ``e`` is not
where ``abs(x) <= 2 * e`` holds.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Literal

from aprender.contracts.expression import Comparison, EvaluationError, ExpressionError, parse
from aprender.contracts.intervals import ANY, LARGEST, Interval, key_of, range_of

Relation = Literal["same", "tightened", "weakened"]
Ranges = Mapping[str, Interval]

# For which signs of (left - right) each comparison holds.
_HOLDS = {"<": {-1}, "<=": {-1, 0}, ">": {1}, ">=": {0, 1}, "==": {0}, "!=": {-1, 1}}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


class _Unlike(Exception):
    """The two sides differ in more than numbers, or in a number of which the effect is not known."""


@lru_cache(maxsize=4096)
def comparison_or_none(text: str) -> Comparison | None:
    """The comparison that ``text`` is, None where it is prose."""
    try:
        return parse(text)
    except ExpressionError:
        return None


def relation(old: str, new: str, ranges: Ranges | None = None) -> Relation | None:
    """What ``new`` is beside ``old``; None where that can't be told. ``ranges`` are what is known of names."""
    before, after = comparison_or_none(old), comparison_or_none(new)
    if before is None or after is None:
        return "same" if old.split() == new.split() else None
    known = _narrowed(ranges or {}, before, after)
    symbol, left, right = before.symbol, before.left, before.right
    for symbol_before, sides in ((symbol, (left, right)), (_MIRRORED[symbol], (right, left))):
        try:
            return _relation(symbol_before, sides, after, _Signs(known))
        except _Unlike:
            continue
    return None


def ranges_of(old: Collection[str], new: Collection[str]) -> dict[str, Interval]:
    """Where names are by the guards of OLD or by those of NEW, each set for itself, such as ``envelope > 0``."""
    return _hull(_stated(old), _stated(new))


def _hull(one: Ranges, other: Ranges) -> dict[str, Interval]:
    return {
        name: Interval(min(one[name].low, other[name].low), max(one[name].high, other[name].high))
        for name in one.keys() & other.keys()
    }


def _stated(guards: Collection[str]) -> dict[str, Interval]:
    found: dict[str, Interval] = {}
    for comparison in filter(None, map(comparison_or_none, guards)):
        for symbol, name, bound in _both_ways(comparison):
            value = _number(bound)
            if isinstance(name, ast.Name) and symbol != "!=" and value is not None:
                low, high = found.get(name.id, ANY)
                above, below = (
                    math.nextafter(value, way) if len(symbol) == 1 else value for way in (LARGEST, -LARGEST)
                )
                low = low if symbol[0] == "<" else max(low, above)
                found[name.id] = Interval(low, high if symbol[0] == ">" else min(high, below))
    return {name: reached for name, reached in found.items() if reached.low <= reached.high}


def _both_ways(comparison: Comparison) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    yield comparison.symbol, comparison.left, comparison.right
    yield _MIRRORED[comparison.symbol], comparison.right, comparison.left


def _narrowed(ranges: Ranges, old: Comparison, new: Comparison) -> Ranges:
    """``ranges``, and what either comparison says where it holds: one of the two implies the other only there."""
    known = dict(ranges)
    for name, reached in _hull(_implied(old, ranges), _implied(new, ranges)).items():
        low, high = known.get(name, ANY)
        if reached.low <= high:
            known[name] = Interval(max(low, reached.low), high)
    return known


def _implied(comparison: Comparison, ranges: Ranges) -> dict[str, Interval]:
    """Where the smaller side is never negative, neither is the larger one: ``abs(x) <= 2 * e`` says so of ``e``."""
    for symbol, smaller, larger in _both_ways(comparison):
        reached = range_of(smaller, ranges) if symbol[0] == "<" else None
        if reached is not None and reached.low >= 0:
            return _where_not_negative(larger)
    return {}


def _where_not_negative(node: ast.expr) -> dict[str, Interval]:
    match node:
        case ast.Name():
            return {node.id: Interval(0.0, LARGEST)}
        case ast.Call(func=ast.Name(id="ln" | "log2"), args=[ast.Name(id=name)]):
            return {name: Interval(1.0, LARGEST)}
        case ast.BinOp(op=ast.Mult() | ast.Div()) if (_number(node.right) or 0) > 0:
            return _where_not_negative(node.left)
        case ast.BinOp(op=ast.Mult()) if (_number(node.left) or 0) > 0:
            return _where_not_negative(node.right)
    return {}


def _relation(symbol: str, sides: tuple[ast.expr, ast.expr], after: Comparison, signs: _Signs) -> Relation | None:
    left, right = (signs.effect(old, new) for old, new in zip(sides, (after.left, after.right), strict=True))
    moved = _sum(right, -left)  # +1: the right side grew, as seen from the left
    allowed, allows = _HOLDS[symbol], _HOLDS[after.symbol]
    by_operator: Relation | None
    if allowed == allows:
        by_operator = "same"
    else:
        by_operator = "weakened" if allowed < allows else "tightened" if allows < allowed else None
    if moved == 0 or by_operator is None:
        return by_operator
    if symbol[0] not in "<>":
        return None
    by_bound: Relation = "weakened" if (moved > 0) == (symbol[0] == "<") else "tightened"
    if by_operator in ("same", by_bound):
        return by_bound
    # x < 4 to x <= 3: the bound outweighs the operator, unless it may move by nothing (3 * e where e is 0).
    strict = all(_number(new) is not None for new, by in ((after.left, left), (after.right, right)) if by)
    return by_bound if strict and symbol[0] == after.symbol[0] else None


class _Signs:
    """What is known of values whatever is observed: the sign of a node, and which way a side moved."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges = ranges

    def effect(self, old: ast.expr, new: ast.expr) -> int:
        """1 if ``new`` is never smaller than ``old``, -1 if never larger, 0 if the same. Raises _Unlike."""
        if key_of(old) == key_of(new):
            return 0
        before, after = _number(old), _number(new)
        if before is not None and after is not None:
            return (after > before) - (after < before)
        match old, new:
            case ast.UnaryOp(), ast.UnaryOp() if type(old.op) is type(new.op):
                effect = self.effect(old.operand, new.operand)
                return -effect if isinstance(old.op, ast.USub) else effect
            case ast.Call(func=ast.Name(id=name)), ast.Call(func=ast.Name(id=other)) if name == other:
                effects = [self.effect(*pair) for pair in zip(old.args, new.args, strict=True)]
                return self._of_call(name, effects, old.args, new.args)
            case ast.BinOp(), ast.BinOp() if type(old.op) is type(new.op):
                return self._binary(old, new)
        raise _Unlike

    def _of_call(self, name: str, effects: list[int], old: list[ast.expr], new: list[ast.expr]) -> int:
        moved = _sum(*effects)
        if moved == 0 or name in ("min", "max"):
            return moved
        sign = self._common_sign(old[0], new[0])
        if name != "abs" and sign < 0:
            raise _Unlike
        if name in ("ln", "log2"):
            self._must_differ_from_zero(old[0], new[0])
        return moved * sign

    def _binary(self, old: ast.BinOp, new: ast.BinOp) -> int:
        left, right = self.effect(old.left, new.left), self.effect(old.right, new.right)
        match old.op:
            case ast.Add():
                return _sum(left, right)
            case ast.Sub():
                return _sum(left, -right)
        if left == right == 0:
            return 0
        if isinstance(old.op, ast.Pow):
            return self._power(old, new, left, right)
        by_left = left and left * self._common_sign(old.right, new.right)
        by_right = right and right * self._common_sign(old.left, new.left)
        if isinstance(old.op, ast.Div):
            if right:  # a denominator that passes zero moves the quotient anywhere
                self._common_sign(old.right, new.right)
                self._must_differ_from_zero(old.right, new.right)
            by_right = -by_right
        return _sum(by_left, by_right)

    def _power(self, old: ast.BinOp, new: ast.BinOp, left: int, right: int) -> int:
        base, exponent = _number(old.left), _number(old.right)
        if right == 0 and exponent is not None and self._common_sign(old.left, new.left) == 1:
            if exponent < 0:
                self._must_differ_from_zero(old.left, new.left)
            return left if exponent > 0 else -left
        if left == 0 and base is not None and base > 0:
            return right if base >= 1 else -right
        raise _Unlike

    def _common_sign(self, old: ast.expr, new: ast.expr) -> int:
        sign = self.sign(old)
        if sign == 0 or sign != self.sign(new):
            raise _Unlike
        return sign

    def sign(self, node: ast.expr) -> int:
        """1 if the value is never negative, -1 if never positive, 0 if that isn't known."""
        reached = range_of(node, self.ranges)
        if reached is None:
            return 0
        return 1 if reached.low >= 0 else -1 if reached.high <= 0 else 0

    def _must_differ_from_zero(self, *nodes: ast.expr) -> None:
        """Where one version has no value (it is ERROR) and the other has one, neither implies the other."""
        for node in nodes:
            reached = range_of(node, self.ranges)
            if reached is None or reached.low <= 0 <= reached.high:
                raise _Unlike


def _sum(*effects: int) -> int:
    """The effect of several: they must not pull in different directions."""
    directions = {effect for effect in effects if effect}
    if len(directions) > 1:
        raise _Unlike
    return directions.pop() if directions else 0


def _number(node: ast.expr) -> float | None:
    """The value of a node without names, None for any other."""
    if any(isinstance(inner, ast.Name) and inner.id not in ("ln", "log2", "sqrt", "abs", "min", "max")
           for inner in ast.walk(node)):  # fmt: skip
        return None
    try:
        return parse(f"{ast.unparse(node)} == 0").evaluate({}).left
    except (ExpressionError, EvaluationError):
        return None

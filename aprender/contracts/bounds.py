"""Which of two comparisons allows more.

Decided from the text alone, and only where it can be: the comparisons are the same up to numbers and the operator, and
every changed number moves a side in a direction that is known whatever is observed. Two things are taken for granted: a
name inside of ``ln`` or ``log2`` is a size, at least 1, unless a guard bounds it from above, as sizes never are; a name
that a guard of both versions keeps from being negative is not negative.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from functools import lru_cache
from typing import Literal, NamedTuple

from aprender.contracts.expression import Comparison, EvaluationError, ExpressionError, parse

Relation = Literal["same", "tightened", "weakened"]

# For which signs of (left - right) each comparison holds.
_HOLDS = {"<": {-1}, "<=": {-1, 0}, ">": {1}, ">=": {0, 1}, "==": {0}, "!=": {-1, 1}}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


class Known(NamedTuple):
    """What guards say of names: which are at least 0 in both versions, which are bounded from above in one."""

    not_negative: frozenset[str] = frozenset()
    bounded: frozenset[str] = frozenset()


class _Unlike(Exception):
    """The two sides differ in more than numbers, or in a number of which the effect is not known."""


@lru_cache(maxsize=4096)
def comparison_or_none(text: str) -> Comparison | None:
    """The comparison that ``text`` is, None where it is prose."""
    try:
        return parse(text)
    except ExpressionError:
        return None


def relation(old: str, new: str, known: Known = Known()) -> Relation | None:  # noqa: B008 - a tuple of frozen sets
    """What ``new`` is beside ``old``; None where that can't be told."""
    before, after = comparison_or_none(old), comparison_or_none(new)
    if before is None or after is None:
        return "same" if old.split() == new.split() else None
    symbol, left, right = before.symbol, before.left, before.right
    for symbol_before, sides in ((symbol, (left, right)), (_MIRRORED[symbol], (right, left))):
        try:
            return _relation(symbol_before, sides, after, _Signs(known))
        except _Unlike:
            continue
    return None


def known_from(old_guards: Collection[str], new_guards: Collection[str]) -> Known:
    """What the guards of two versions say of names."""
    (low, high), (new_low, new_high) = _bounded(old_guards), _bounded(new_guards)
    return Known(low & new_low, high | new_high)


def _bounded(guards: Collection[str]) -> tuple[frozenset[str], frozenset[str]]:
    """The names that a guard keeps from being negative, as in ``envelope > 0``, and those bounded from above."""
    low: set[str] = set()
    high: set[str] = set()
    for comparison in filter(None, map(comparison_or_none, guards)):
        sides = [(comparison.symbol, comparison.left, comparison.right)]
        sides.append((_MIRRORED[comparison.symbol], comparison.right, comparison.left))
        for symbol, name, bound in sides:
            value = _number(bound)
            if isinstance(name, ast.Name) and symbol in (">", ">=", "==") and value is not None and value >= 0:
                low.add(name.id)
            if isinstance(name, ast.Name) and symbol in ("<", "<=", "=="):
                high.add(name.id)
    return frozenset(low), frozenset(high)


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

    def __init__(self, known: Known) -> None:
        self.known = known

    def effect(self, old: ast.expr, new: ast.expr) -> int:
        """1 if ``new`` is never smaller than ``old``, -1 if never larger, 0 if the same. Raises _Unlike."""
        before, after = _number(old), _number(new)
        if before is not None and after is not None:
            return (after > before) - (after < before)
        match old, new:
            case ast.Name(id=name), ast.Name(id=other) if name == other:
                return 0
            case ast.UnaryOp(), ast.UnaryOp() if type(old.op) is type(new.op):
                effect = self.effect(old.operand, new.operand)
                return -effect if isinstance(old.op, ast.USub) else effect
            case ast.Call(func=ast.Name(id=name)), ast.Call(func=ast.Name(id=other)) if name == other:
                effects = [self.effect(*pair) for pair in zip(old.args, new.args, strict=True)]
                if name == "abs" and effects[0]:
                    return effects[0] * self._common_sign(old.args[0], new.args[0])
                return _sum(*effects)
            case ast.BinOp(), ast.BinOp() if type(old.op) is type(new.op):
                return self._binary(old, new)
        raise _Unlike

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
            return self._power(old, left, right)
        by_left = left and left * self._common_sign(old.right, new.right)
        by_right = right and right * self._common_sign(old.left, new.left)
        if isinstance(old.op, ast.Div):
            if right:
                self._common_sign(old.right, new.right)  # a denominator that passes zero moves the quotient anywhere
            by_right = -by_right
        return _sum(by_left, by_right)

    def _power(self, old: ast.BinOp, left: int, right: int) -> int:
        base, exponent = _number(old.left), _number(old.right)
        if right == 0 and exponent is not None and self.sign(old.left) == 1:
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
        value = _number(node)
        if value is not None:
            return 1 if value >= 0 else -1
        match node:
            case ast.Name():
                return int(node.id in self.known.not_negative)
            case ast.UnaryOp():
                return -self.sign(node.operand) if isinstance(node.op, ast.USub) else self.sign(node.operand)
            case ast.Call(func=ast.Name(id="abs" | "sqrt")):
                return 1
            case ast.Call(func=ast.Name(id="ln" | "log2"), args=[argument]):
                return int(isinstance(argument, ast.Name) and argument.id not in self.known.bounded)
            case ast.Call(func=ast.Name(id=function)):
                return _extreme(function, [self.sign(argument) for argument in node.args])
            case ast.BinOp(op=ast.Mult() | ast.Div()):
                return self.sign(node.left) * self.sign(node.right)
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                right = self.sign(node.right) * (1 if isinstance(node.op, ast.Add) else -1)
                return right if right == self.sign(node.left) else 0
        return 0


def _extreme(function: str, signs: list[int]) -> int:
    """The sign of ``min`` or ``max``: one decisive argument is enough, else they must agree."""
    decisive = 1 if function == "max" else -1
    if decisive in signs:
        return decisive
    return signs[0] if len(set(signs)) == 1 else 0


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

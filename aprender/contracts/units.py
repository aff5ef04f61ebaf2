"""Whether the two sides of a comparison, and what is added in them, have one unit.

A number that is written down takes the unit of what stands beside it. ``ln`` gives nats and ``log2`` bits, or a pure
number: an entropy and a logarithm of a ratio are written alike; but two logarithms that are compared are those of like
things. Units are words, so ``tokens`` and ``rows`` differ.
"""

from __future__ import annotations

import _ast as ast
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from aprender.contracts.expression import Comparison, EvaluationError, source_of, value_of

Dimension = tuple[tuple[str, float], ...]  # base unit and exponent, in order of the units
PURE: Dimension = ()
_LOGARITHMS = {"ln": "nat", "log2": "bit"}
_IN_BITS: Dimension = (("bit", -1.0), ("nat", 1.0))  # what ln(2) is when nats become bits


class Quantity(NamedTuple):
    """The dimensions that a part may have; ``logarithm`` is the unit of the logarithm that it stems from.

    ``inside`` are the dimensions of what the logarithm is of, where it stands alone: not added to, not multiplied.
    """

    dimensions: frozenset[Dimension]
    logarithm: str | None = None
    inside: frozenset[Dimension] = frozenset()


class UnlikeUnits(Exception):
    """Two things of different units meet; ``node`` is the second one."""

    def __init__(self, message: str, node: ast.expr) -> None:
        super().__init__(message)
        self.node = node


def check_units(comparison: Comparison, units: Mapping[str, str]) -> None:
    """Raises UnlikeUnits where ``comparison`` mixes units; ``units`` has the unit of each of its names."""
    checker = _Checker(units)
    left, right = checker.of(comparison.left), checker.of(comparison.right)
    checker.alike("compares", "with", (comparison.left, left), (comparison.right, right))


def dimension_of(unit: str) -> Dimension:
    """A unit such as ``tokens``, ``tokens/s`` or ``degC^2``; empty is a pure number."""
    exponents: dict[str, float] = {}
    for word, exponent in _words_of(unit):
        name = _singular(word)
        exponents[name] = exponents.get(name, 0.0) + exponent
    return _dimension(exponents)


def _words_of(unit: str) -> Iterator[tuple[str, float]]:
    """The words of a unit, each with its exponent."""
    for part in unit.replace("**", "^").replace("/", "*/").split("*"):
        word = part.strip()
        base, _, power = word.removeprefix("/").partition("^")
        if base.strip() not in ("", "1"):
            yield base.strip(), (-1.0 if word.startswith("/") else 1.0) * _number(power)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def _singular(word: str) -> str:
    plural = len(word) > 3 and word.endswith("s") and not word.endswith("ss")
    return word[:-1] if plural else word


def _dimension(exponents: Mapping[str, float]) -> Dimension:
    return tuple(sorted((name, exponent) for name, exponent in exponents.items() if exponent))


def _scaled(dimension: Dimension, factor: float) -> Dimension:
    return _dimension({name: exponent * factor for name, exponent in dimension})


def _times(one: Dimension, other: Dimension) -> Dimension:
    exponents = dict(one)
    for name, exponent in other:
        exponents[name] = exponents.get(name, 0.0) + exponent
    return _dimension(exponents)


class _Checker:
    """Walks one side; None is the unit of a number that is written down: whatever it needs to be."""

    def __init__(self, units: Mapping[str, str]) -> None:
        self.units = units
        self.written = {"nat": "nats", "bit": "bits"}
        words = {word for unit in units.values() for word, _ in _words_of(unit)}
        self.written |= {_singular(word): word for word in sorted(words, key=len)}  # rather the plural

    def of(self, node: ast.expr) -> Quantity | None:
        match node:
            case ast.Name():
                return Quantity(frozenset((dimension_of(self.units[node.id]),)))
            case ast.UnaryOp():
                return self.of(node.operand)
            case ast.BinOp(op=ast.Add()):
                return self.common("adds", "and", *self._both((node.left, node.right)))
            case ast.BinOp(op=ast.Sub()):
                return self.common("subtracts", "and", *self._both((node.left, node.right)))
            case ast.BinOp(op=ast.Pow()):
                return self._power(node)
            case ast.BinOp():
                return self._product(node)
            case ast.Call(func=ast.Name(id=function)):
                return self._call(function, node.args)
            case _:
                return None

    def alike(
        self, verb: str, link: str, one: tuple[ast.expr, Quantity | None], other: tuple[ast.expr, Quantity | None]
    ) -> Quantity | None:
        """As ``common``, for two things of which one is to be the larger: their logarithms are those of like things.

        What has no unit may count anything, so that a perplexity goes with a number of tokens.
        """
        shared = self.common(verb, link, one, other)
        (left, first), (right, second) = one, other
        inside = [quantity.inside for quantity in (first, second) if quantity and quantity.inside]
        if len(inside) == 2 and not inside[0] & inside[1] and PURE not in inside[0] | inside[1]:
            units = f" {link} one of ".join(self._words(Quantity(dimensions)) for dimensions in inside)
            message = f"{verb} a logarithm of {units}: '{source_of(left)}' {link} '{source_of(right)}'"
            raise UnlikeUnits(message, right)
        return shared

    def common(
        self, verb: str, link: str, one: tuple[ast.expr, Quantity | None], other: tuple[ast.expr, Quantity | None]
    ) -> Quantity | None:
        """The unit that both have. Raises UnlikeUnits where there is none."""
        (left, first), (right, second) = one, other
        if first is None or second is None:
            return first or second
        logarithms = {first.logarithm, second.logarithm} - {None}
        shared = first.dimensions & second.dimensions
        if shared and len(logarithms) < 2:
            return Quantity(shared, next(iter(logarithms), None))
        units = f"{self._words(first)} {link} {self._words(second)}"
        message = f"{verb} {units}: '{source_of(left)}' {link} '{source_of(right)}'"
        if {"nat", "bit"} <= {name for q in (first, second) for d in q.dimensions for name, _ in d}:
            message += "; ln gives nats and log2 bits, and nats / ln(2) are bits"
        raise UnlikeUnits(message, right)

    def _words(self, quantity: Quantity) -> str:
        dimension = max(quantity.dimensions, key=lambda one: (one != PURE, -len(one), one))
        if dimension == PURE:
            return "a pure number"
        named = [(self.written[name], exponent) for name, exponent in dimension]
        above = [name if exponent == 1 else f"{name}^{exponent:g}" for name, exponent in named if exponent > 0]
        below = [name if exponent == -1 else f"{name}^{-exponent:g}" for name, exponent in named if exponent < 0]
        return "/".join(["*".join(above) or "1", *below])

    def _both(self, nodes: Iterable[ast.expr]) -> list[tuple[ast.expr, Quantity | None]]:
        return [(node, self.of(node)) for node in nodes]

    def _call(self, function: str, arguments: list[ast.expr]) -> Quantity | None:
        found = self._both(arguments)
        quantity = found[0][1]
        if function in ("min", "max"):
            return self.alike(f"takes the {function} of", "and", *found)
        if function == "sqrt" and quantity is not None:
            return Quantity(frozenset(_scaled(one, 0.5) for one in quantity.dimensions))
        if function in _LOGARITHMS and quantity is not None:
            unit = _LOGARITHMS[function]
            return Quantity(frozenset((PURE, ((unit, 1.0),))), unit, quantity.dimensions)
        return quantity

    def _product(self, node: ast.BinOp) -> Quantity | None:
        sign = -1.0 if isinstance(node.op, ast.Div) else 1.0
        (left, first), (right, second) = self._both((node.left, node.right))
        if first is not None and _is_ln_2(right):
            return _converted(first, -sign)
        if second is not None and _is_ln_2(left) and sign > 0:
            return _converted(second, -sign)
        if first is None and second is None:
            return None
        if second is None:
            return first
        factors = first.dimensions if first else (PURE,)
        products = frozenset(_times(a, _scaled(b, sign)) for a in factors for b in second.dimensions)
        return Quantity(products, second.logarithm if first is None and sign > 0 else None)

    def _power(self, node: ast.BinOp) -> Quantity | None:
        base = self.of(node.left)
        if base is None:
            return None  # 2 ** bits is a number of what the bits tell apart
        try:
            power = value_of(node.right, {})
        except (EvaluationError, KeyError):
            if base.dimensions == {PURE}:
                return base
            message = f"raises {self._words(base)} to a power that is observed: '{source_of(node)}' has no unit"
            raise UnlikeUnits(message, node.right) from None
        return Quantity(frozenset(_scaled(one, power) for one in base.dimensions))


def _is_ln_2(node: ast.expr) -> bool:
    return source_of(node) in ("ln(2)", "ln(2.0)")


def _converted(quantity: Quantity, sign: float) -> Quantity:
    """Times or divided by ln(2), which may be meant as the number of nats in a bit or as a number."""
    if quantity.logarithm == ("nat" if sign > 0 else "bit"):
        unit = "bit" if sign > 0 else "nat"
        return Quantity(frozenset((PURE, ((unit, 1.0),))), unit)
    converted = {_times(one, _scaled(_IN_BITS, -sign)) for one in quantity.dimensions}
    return Quantity(quantity.dimensions | converted)

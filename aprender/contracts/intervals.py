"""Which values a side of a comparison can take, whatever finite numbers are observed.

The ends are computed with the operations that judge an observation. Those round monotonically, so an end is never
inside of what can be reached, and a proof from intervals holds of floating point, not only on paper.
"""

# No postponed annotations here: NamedTuple would compile each from its text, which costs as much as a small contract.

import _ast as ast
import math
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

LARGEST = sys.float_info.max
SMALLEST = math.ulp(0.0)


class Interval(NamedTuple):
    """All numbers from ``low`` to ``high``; an end may be infinite where an operation may overflow."""

    low: float
    high: float

    @property
    def finite(self) -> "Interval | None":
        """The part that a judge accepts as a value; None where there is none."""
        low, high = max(self.low, -LARGEST), min(self.high, LARGEST)
        return Interval(low, high) if low <= high else None


ANY = Interval(-LARGEST, LARGEST)
UNBOUNDED = Interval(-math.inf, math.inf)


@lru_cache(maxsize=1024)  # asked again for every operation above: without it deep nesting costs its square
def key_of(node: ast.expr) -> str:
    """Equal for parts that have the same value for every observation because they are written alike."""
    match node:
        case ast.Name():
            return node.id
        case ast.Constant(value=int() | float() as number):
            return repr(float(number))
        case ast.BinOp(op=ast.Add() | ast.Mult()):
            first, second = sorted((key_of(node.left), key_of(node.right)))
            return f"({first} {type(node.op).__name__} {second})"
        case ast.BinOp():
            return f"({key_of(node.left)} {type(node.op).__name__} {key_of(node.right)})"
        case ast.UnaryOp(op=ast.UAdd()):
            return key_of(node.operand)
        case ast.UnaryOp():
            return f"(-{key_of(node.operand)})"
        case ast.Call(func=ast.Name(id="abs"), args=[ast.BinOp(op=ast.Sub()) as apart]):
            return f"abs({' Sub '.join(sorted((key_of(apart.left), key_of(apart.right))))})"
        case ast.Call(func=ast.Name(id=function)):
            arguments = [key_of(argument) for argument in node.args]
            return f"{function}({', '.join(sorted(arguments))})"
        case _:
            raise AssertionError(f"parse() let {node!r} through")


def range_of(node: ast.expr, bounds: Mapping[str, Interval]) -> Interval | None:
    """The values that ``node`` can take for names within ``bounds`` (any number without one); None: never a value."""
    match node:
        case ast.Name():
            return bounds.get(node.id, ANY)
        case ast.Constant(value=int() | float() as number):
            return Interval(float(number), float(number))
        case ast.UnaryOp():
            operand = range_of(node.operand, bounds)
            return _negative(operand) if operand and isinstance(node.op, ast.USub) else operand
        case ast.BinOp():
            left, right = range_of(node.left, bounds), range_of(node.right, bounds)
            if left is None or right is None:
                return None
            return _of_operation(node, left, right)
        case ast.Call(func=ast.Name(id=function)):
            arguments = [range_of(argument, bounds) for argument in node.args]
            known = [argument for argument in arguments if argument is not None]
            return _FUNCTIONS[function](*known) if len(known) == len(arguments) else None
        case _:
            raise AssertionError(f"parse() let {node!r} through")


def _of_operation(node: ast.BinOp, left: Interval, right: Interval) -> Interval | None:
    alike = key_of(node.left) == key_of(node.right)
    match node.op:
        case ast.Add():
            return _between(left.low + right.low, left.high + right.high)
        case ast.Sub():
            return Interval(0.0, 0.0) if alike else _between(left.low - right.high, left.high - right.low)
        case ast.Mult():
            return _power(left, Interval(2.0, 2.0)) if alike else _product(left, right)
        case ast.Div():
            return _quotient(left, right) if not alike else None if right == (0, 0) else Interval(1.0, 1.0)
        case _:
            return _power(left, right)


def _between(*ends: float) -> Interval:
    return UNBOUNDED if any(map(math.isnan, ends)) else Interval(min(ends), max(ends))


def _negative(one: Interval) -> Interval:
    return Interval(-one.high, -one.low)


def _product(left: Interval, right: Interval) -> Interval:
    # Zero times an infinite end is zero: the end stands for arbitrarily large numbers, not for infinity itself.
    return _between(*(0.0 if 0 in (a, b) else a * b for a in left for b in right))


def _quotient(left: Interval, right: Interval) -> Interval | None:
    if right == (0, 0):
        return None
    if right.low < 0 < right.high:
        return Interval(0.0, 0.0) if left == (0, 0) else UNBOUNDED
    side = 1.0 if right.low >= 0 else -1.0
    return _between(*(_divided(a, b, side) for a in left for b in right))


def _divided(a: float, b: float, side: float) -> float:
    """One end of a quotient; a divisor's end of zero is approached from the ``side`` of its interval."""
    if a == 0 or math.isinf(b):
        return 0.0
    return math.copysign(math.inf, a) * side if b == 0 else a / b


def _power(base: Interval, exponent: Interval) -> Interval | None:
    whole = exponent.low == exponent.high and exponent.low % 1 == 0
    if base.low < 0 and whole:
        return _whole_power(base, exponent.low)
    if base.low < 0 and exponent.low != exponent.high:
        return UNBOUNDED  # a negative base has a value at whole exponents only
    if base.high < 0:
        return None
    # For a base that is not negative a power is monotone in each of the two, so the corners are the ends.
    base = Interval(max(base.low, 0.0), base.high)
    return _between(*(_raised(b, e) for b in base for e in exponent))


def _whole_power(base: Interval, exponent: float) -> Interval | None:
    if exponent < 0:
        below = _whole_power(base, -exponent)
        return _quotient(Interval(1.0, 1.0), below) if below else None
    if exponent % 2:
        return _between(*(math.copysign(_raised(abs(end), exponent), end) for end in base))
    size = _size(base)
    return _between(*(_raised(end, exponent) for end in size))


def _raised(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except (OverflowError, ValueError):  # too large, or zero to a negative power
        return math.inf


def _size(one: Interval) -> Interval:
    largest = max(abs(one.low), abs(one.high))
    return Interval(0.0 if one.low <= 0 <= one.high else min(abs(one.low), abs(one.high)), largest)


def _logarithm(function: Callable[[float], float]) -> Callable[[Interval], Interval | None]:
    def of(one: Interval) -> Interval | None:
        low = max(one.low, SMALLEST)
        return Interval(function(low), function(one.high)) if low <= one.high else None

    return of


def _square_root(one: Interval) -> Interval | None:
    return Interval(math.sqrt(max(one.low, 0.0)), math.sqrt(one.high)) if one.high >= 0 else None


_FUNCTIONS: dict[str, Callable[..., Interval | None]] = {
    "ln": _logarithm(math.log),
    "log2": _logarithm(math.log2),
    "sqrt": _square_root,
    "abs": _size,
    "min": lambda a, b: Interval(min(a.low, b.low), min(a.high, b.high)),
    "max": lambda a, b: Interval(max(a.low, b.low), max(a.high, b.high)),
}

"""Whether an expectation or guard can come out either way, found without any system: the judge is tried on numbers.

A comparison is foregone where that is proved: from the intervals that its sides can reach, or from its names
cancelling. Where a name stands in it more than once intervals say too little; then it is foregone if it came out the
same for a rich, fixed sample of observations and a search from the closest of them. A false alarm is worse than a miss.
"""

from __future__ import annotations

import _ast as ast
import math
from collections.abc import Iterable, Mapping, Sequence

from aprender.contracts.expression import Comparison, EvaluationError, source_of, value_of
from aprender.contracts.intervals import ANY, LARGEST, Interval, key_of, range_of
from aprender.contracts.samples import Effort, repeats_a_name, sampled

NO_MATTER_WHAT = "no observation can change the outcome"
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_SIGNS = {"<": {-1}, "<=": {-1, 0}, "==": {0}, "!=": {-1, 1}}  # of left minus right, as _form has them
_WEAKER = {"<": "<=", "==": "<="}  # what an operator implies besides itself
_NOT_FINITE = frozenset(("nan", "inf", "infinity"))


def foregone(comparison: Comparison, guards: Sequence[Comparison] = (), effort: Effort | None = None) -> str | None:
    """Why the outcome is the same for every observation (that passes ``guards``), None where it may differ.

    Comparisons that share an ``effort`` share what may be spent on trying.
    """
    if word := next((name for name in sorted(comparison.names) if name.lower() in _NOT_FINITE), None):
        return f"'{word}' is no number here: a bound is finite"
    if reason := _without_value(comparison):
        return reason
    if reason := _same_for_all(comparison):
        return reason
    terms, constant = _difference(comparison)
    if not terms:
        return f"the names cancel out: {NO_MATTER_WHAT}"
    if nothing := next(filter(_takes_from_itself, comparison.parts()), None):
        return f"'{source_of(nothing)}' is zero whatever is observed"
    outcome, whose = _outcome_of_all(comparison, terms, constant), ""
    if outcome is None and guards:
        outcome, whose = _outcome_of_guarded(comparison, terms, constant, guards), " that passes the guards"
    if outcome is None:
        outcome, whose = sampled(comparison, effort or Effort()), ""
    if outcome is None:
        return None
    if outcome:
        return f"holds of every observation{whose}: nothing can violate it"
    return f"holds of no observation{whose}: nothing can satisfy it"


def _same_for_all(comparison: Comparison) -> str | None:
    if not comparison.names:
        return f"compares constants: {NO_MATTER_WHAT}"
    if key_of(comparison.left) == key_of(comparison.right):
        return f"compares '{source_of(comparison.left)}' with itself: {NO_MATTER_WHAT}"
    return None


def _outcome_of_all(
    comparison: Comparison, terms: Mapping[str, tuple[float, ast.expr]], constant: float
) -> bool | None:
    if comparison.symbol in ("==", "!=") and _never_zero(terms, constant):
        return comparison.symbol == "!="
    return _proved(comparison, terms, constant, {})


def _outcome_of_guarded(
    comparison: Comparison, terms: Mapping[str, tuple[float, ast.expr]], constant: float, guards: Sequence[Comparison]
) -> bool | None:
    if _implied(comparison, guards):
        return True
    bounds = _bounds(guards)
    return _proved(comparison, terms, constant, bounds) if bounds else None


def contradicted(comparisons: Sequence[Comparison]) -> tuple[Comparison, Comparison] | None:
    """The first comparison that leaves nothing of what an earlier one lets through, and that one."""
    known = [(one, _form(one), _intervals((one,))) for one in comparisons]  # once for each: pairs are many
    for index, (later, form, left) in enumerate(known):
        for earlier, other, left_before in known[:index]:
            if later.names != earlier.names:
                continue
            if _opposite(form, other) or any(
                _apart(left[name], left_before[name]) for name in left.keys() & left_before
            ):
                return later, earlier
    return None


def _opposite(one: tuple[str, str, str], other: tuple[str, str, str]) -> bool:
    """Whether two comparisons of the same sides hold for no sign of their difference in common."""
    (symbol, *sides), (other_symbol, *other_sides) = one, other
    if sides == other_sides:
        return not _SIGNS[symbol] & _SIGNS[other_symbol]
    return sides == other_sides[::-1] and not _SIGNS[symbol] & {-sign for sign in _SIGNS[other_symbol]}


def _apart(one: Interval, other: Interval) -> bool:
    return max(one.low, other.low) > min(one.high, other.high)


def repeated(comparisons: Sequence[Comparison]) -> list[tuple[Comparison, Comparison]]:
    """Each comparison that says the same as an earlier one, and that one."""
    first: dict[tuple[str, str, str], Comparison] = {}
    return [(one, earlier) for one in comparisons if (earlier := first.setdefault(_form(one), one)) is not one]


def _implied(comparison: Comparison, guards: Sequence[Comparison]) -> bool:
    """Whether a guard is ``comparison`` in another notation, or with a stricter operator between the same sides."""
    symbol, left, right = _form(comparison)
    for guard in guards:
        if guard.names == comparison.names:
            given, *sides = _form(guard)
            turned = given == "==" and sides == [right, left]
            if (sides == [left, right] or turned) and symbol in (given, _WEAKER.get(given)):
                return True
    return False


def _form(comparison: Comparison) -> tuple[str, str, str]:
    """The comparison with its smaller side left; sides that are equal, or not, in the order of their text."""
    symbol, left, right = comparison.symbol, key_of(comparison.left), key_of(comparison.right)
    if symbol in (">", ">=") or (symbol in ("==", "!=") and right < left):
        return _MIRRORED[symbol], right, left
    return symbol, left, right


def hold_of_nothing(guards: Sequence[Comparison]) -> bool:
    """Whether all ``guards`` hold of an observation in which every name is zero: nothing was measured."""
    outcomes = [_outcome(guard, dict.fromkeys(guard.names, 0.0)) for guard in guards]
    return all(outcome is True for outcome in outcomes)


def only_not_negative(guard: Comparison) -> bool:
    """Whether the guard says of a count no more than that it is one: zero passes, everything negative does not."""
    if not guard.names:
        return False
    counts = dict.fromkeys(guard.names, Interval(0.0, LARGEST))
    negative = dict.fromkeys(guard.names, Interval(-LARGEST, -1.0))
    return _from_ranges(guard, counts) is True and _from_ranges(guard, negative) is False


def _takes_from_itself(part: ast.expr) -> bool:
    """Whether ``part`` is ``x - x``: nobody means that, though what is made of it may still come out either way."""
    match part:
        case ast.BinOp(op=ast.Sub(), left=ast.Name(id=name), right=ast.Name(id=other)):
            return name == other
        case ast.BinOp(op=ast.Sub()):
            return key_of(part.left) == key_of(part.right) and _constant(part.left) is None
    return False


def _never_zero(terms: Mapping[str, tuple[float, ast.expr]], constant: float) -> bool:
    """Whether the difference of the sides is a number divided by a name, which is not zero even for the largest."""
    if constant or len(terms) != 1:
        return False
    ((_, atom),) = terms.values()
    match atom:
        case ast.BinOp(left=numerator, op=ast.Div(), right=ast.Name(id=name)) if _constant(numerator):
            pass
        case ast.BinOp(left=ast.Name(id=name), op=ast.Pow(), right=exponent) if (_constant(exponent) or 0) < 0:
            pass
        case _:
            return False
    try:
        return value_of(atom, {name: LARGEST}) != 0
    except EvaluationError:
        return False


def _outcome(comparison: Comparison, values: Mapping[str, float]) -> bool | None:
    try:
        return comparison.evaluate(values).holds
    except EvaluationError:
        return None


def _without_value(comparison: Comparison) -> str | None:
    """A part that is never a finite number, such as ``1 / 0``: the smallest one."""
    if all((reached := range_of(side, {})) and reached.finite for side in (comparison.left, comparison.right)):
        return None
    for part in reversed(list(comparison.parts())):  # parts come after the whole
        reached = range_of(part, {})
        if reached is None or reached.finite is None:
            advice = "the verdict would be ERROR whatever is observed"
            return f"'{source_of(part)}' never has a finite value: {advice}"
    return None


def _proved(
    comparison: Comparison, terms: Mapping[str, tuple[float, ast.expr]], constant: float, bounds: Mapping[str, Interval]
) -> bool | None:
    outcome = _from_ranges(comparison, bounds)
    if outcome is not None or len(terms) > 1 or not repeats_a_name(comparison):
        return outcome
    # One term is left of many: its range decides, with room for what rounding may do to the rest.
    ((factor, atom),) = terms.values()
    reached = range_of(atom, bounds)
    if reached is None:
        return None
    ends = sorted(constant + factor * end for end in reached)
    room = 1e-9 * abs(constant)
    return _decided(comparison.symbol, Interval(ends[0] - room, ends[1] + room), Interval(0.0, 0.0))


def _from_ranges(comparison: Comparison, bounds: Mapping[str, Interval]) -> bool | None:
    left, right = range_of(comparison.left, bounds), range_of(comparison.right, bounds)
    left, right = left and left.finite, right and right.finite
    return _decided(comparison.symbol, left, right) if left and right else None


def _decided(symbol: str, left: Interval, right: Interval) -> bool | None:
    """What all numbers of two intervals have in common, if anything."""
    if symbol in (">", ">="):
        return _decided(_MIRRORED[symbol], right, left)
    if symbol in ("==", "!="):
        apart = left.high < right.low or right.high < left.low
        one = left.low == left.high == right.low == right.high
        return (symbol == "!=") is apart if apart or one else None
    never = left.low > right.high or (symbol == "<" and left.low == right.high)
    always = left.high < right.low or (symbol == "<=" and left.high == right.low)
    return always if always or never else None


def _difference(comparison: Comparison) -> tuple[dict[str, tuple[float, ast.expr]], float]:
    """Left side minus right side as a sum: a factor for each part that is no sum itself, and a constant."""
    terms: dict[str, tuple[float, ast.expr]] = {}
    constant = _add(comparison.left, 1.0, terms) + _add(comparison.right, -1.0, terms)
    return {key: term for key, term in terms.items() if term[0] != 0}, constant


def _add(node: ast.expr, factor: float, terms: dict[str, tuple[float, ast.expr]]) -> float:
    """Add ``factor`` times ``node`` to ``terms``; returns what of it is constant."""
    match node:
        case ast.BinOp(op=ast.Add()):
            return _add(node.left, factor, terms) + _add(node.right, factor, terms)
        case ast.BinOp(op=ast.Sub()):
            return _add(node.left, factor, terms) + _add(node.right, -factor, terms)
        case ast.UnaryOp():
            return _add(node.operand, -factor if isinstance(node.op, ast.USub) else factor, terms)
        case ast.BinOp(op=ast.Mult()) if (number := _constant(node.left)) is not None:
            return _add(node.right, factor * number, terms)
        case ast.BinOp(op=ast.Mult()) if (number := _constant(node.right)) is not None:
            return _add(node.left, factor * number, terms)
        case ast.BinOp(op=ast.Div()) if number := _constant(node.right):
            return _add(node.left, factor / number, terms)
        case _ if (number := _constant(node)) is not None:
            return factor * number
    key = key_of(node)
    terms[key] = terms.get(key, (0.0, node))[0] + factor, node
    return 0.0


def _constant(node: ast.expr) -> float | None:
    """The value of a part that is the same for every observation: no name in it, or equal things divided."""
    try:
        return value_of(node, {})
    except EvaluationError:
        return None
    except KeyError:
        reached = range_of(node, {})
        return reached.low if reached and reached.low == reached.high else None


def _bounds(guards: Iterable[Comparison]) -> dict[str, Interval] | None:
    """What guards of the form ``name >= 2`` leave of each name; None where that is nothing."""
    bounds = _intervals(guards)
    return None if any(one.low > one.high for one in bounds.values()) else bounds


def _intervals(guards: Iterable[Comparison]) -> dict[str, Interval]:
    bounds: dict[str, Interval] = {}
    for guard in guards:
        sides = ((guard.symbol, guard.left, guard.right), (_MIRRORED[guard.symbol], guard.right, guard.left))
        for symbol, name, bound in sides:
            value = _constant(bound)
            if isinstance(name, ast.Name) and value is not None:
                known, left = bounds.get(name.id, ANY), _left_by(symbol, value)
                bounds[name.id] = Interval(max(known.low, left.low), min(known.high, left.high))
    return bounds


def _left_by(symbol: str, value: float) -> Interval:
    above = math.nextafter(value, math.inf) if symbol == ">" else value
    below = math.nextafter(value, -math.inf) if symbol == "<" else value
    return Interval(
        above if symbol in (">", ">=", "==") else ANY.low, below if symbol in ("<", "<=", "==") else ANY.high
    )

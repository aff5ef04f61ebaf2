"""Whether an expectation or guard can come out either way, found without any system: the judge is tried on numbers.

A comparison is foregone where that is proved: from the intervals that its sides can reach, from its names cancelling,
or from what the guards say already. Where a name stands in it more than once intervals say too little; then it is
foregone if it came out the same for a rich, fixed sample of observations and a search from the closest of them. A false
alarm is worse than a miss.
"""

from __future__ import annotations

import _ast as ast
import math
from collections.abc import Mapping, Sequence

from aprender.contracts.expression import Comparison, EvaluationError, children, has_name, source_of
from aprender.contracts.intervals import LARGEST, Interval, key_of, range_of
from aprender.contracts.limits import Bound, Limits, Terms, add_terms, bound_of, constant_of, decided, difference
from aprender.contracts.samples import Effort, repeats_a_name, sampled

NO_MATTER_WHAT = "no observation can change the outcome"
_NOT_FINITE = frozenset(("nan", "inf", "infinity"))


def foregone(comparison: Comparison, guards: Limits | None = None, effort: Effort | None = None) -> str | None:
    """Why the outcome is the same for every observation (that passes ``guards``), None where it may differ.

    Comparisons that share an ``effort`` share what may be spent on trying.
    """
    if word := next((name for name in sorted(comparison.names) if name.lower() in _NOT_FINITE), None):
        return f"'{word}' is no number here: a bound is finite"
    if reason := _without_value(comparison) or _without_names(comparison):
        return reason
    outcome, whose = _proved(comparison, {}), ""
    if outcome is None and guards:
        outcome, whose = guards.outcome(comparison), " that passes the guards"
        if outcome is None and guards.names:
            outcome = _proved(comparison, guards.names)
    if outcome is None:
        outcome, whose = sampled(comparison, effort or Effort()), ""
    if outcome is None:
        return None
    if outcome:
        return f"holds of every observation{whose}: nothing can violate it"
    return f"holds of no observation{whose}: nothing can satisfy it"


def contradicted(comparisons: Sequence[Comparison]) -> tuple[Comparison, Comparison] | None:
    """A comparison that can't hold beside the others, and one that it contradicts (the last one, if only all do)."""
    limits = Limits()
    for index, comparison in enumerate(comparisons):
        if limits.outcome(comparison) is False:
            earlier = comparisons[:index]
            return comparison, next((e for e in earlier if Limits((e,)).outcome(comparison) is False), earlier[-1])
        limits.add(comparison)
    for comparison in comparisons if limits.names else ():
        if _from_ranges(comparison, limits.names) is False:
            others = [other for other in comparisons if other is not comparison]
            alone = (other for other in others if _from_ranges(comparison, Limits((other,)).names) is False)
            return comparison, next(alone, others[-1])
    return None


def repeated(comparisons: Sequence[Comparison]) -> list[tuple[Comparison, Comparison]]:
    """Each comparison that says the same as an earlier one, however it is written, and that one."""
    first: dict[Bound, Comparison] = {}
    pairs = ((one, first.setdefault(bound, one)) for one in comparisons if (bound := bound_of(one)))
    return [(one, earlier) for one, earlier in pairs if one is not earlier]


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


def _without_names(comparison: Comparison) -> str | None:
    """What no name, or not every name, has a say in: all of them cancel out, or one does within a side."""
    if not comparison.names:
        return f"compares constants: {NO_MATTER_WHAT}"
    if key_of(comparison.left) == key_of(comparison.right):
        return f"compares '{source_of(comparison.left)}' with itself: {NO_MATTER_WHAT}"
    if not any(factor for factor, _ in difference(comparison)[0].values()):
        return f"the names cancel out: {NO_MATTER_WHAT}"
    for part in reversed(list(comparison.parts())):  # parts come after the whole
        if (value := constant_of(part)) is not None and has_name(part):
            return f"'{source_of(part)}' is {value:g} whatever is observed"
    if found := _cancelled(comparison.left) or _cancelled(comparison.right):
        cancelled, whole = map(source_of, found)
        return f"'{cancelled}' cancels out of '{whole}': whatever it is, the outcome is the same"
    return None


def _cancelled(node: ast.expr) -> tuple[ast.expr, ast.expr] | None:
    """A part that cancels out of a sum within one side, as in ``x + y - x``, and that sum: nobody means that."""
    terms: Terms = {}
    add_terms(node, 1.0, terms)
    for factor, part in terms.values():
        if not factor:
            return part, node
    inner = (_cancelled(child) for _, part in terms.values() for child in children(part))
    return next(filter(None, inner), None)


def _proved(comparison: Comparison, bounds: Mapping[str, Interval]) -> bool | None:
    outcome = _from_ranges(comparison, bounds)
    if outcome is not None:
        return outcome
    if comparison.symbol in ("==", "!=") and _differ(comparison.left, comparison.right):
        return comparison.symbol == "!="
    if not repeats_a_name(comparison):
        return None
    found, constant = difference(comparison)
    terms = [term for term in found.values() if term[0]]
    if len(terms) != 1:
        return None
    # One term is left of many: its range decides, with room for what rounding may do to the rest.
    ((factor, atom),) = terms
    reached = range_of(atom, bounds)
    if reached is None:
        return None
    ends = sorted(constant + factor * end for end in reached)
    room = 1e-9 * abs(constant)
    return decided(comparison.symbol, Interval(ends[0] - room, ends[1] + room), Interval(0.0, 0.0))


def _from_ranges(comparison: Comparison, bounds: Mapping[str, Interval]) -> bool | None:
    left, right = range_of(comparison.left, bounds), range_of(comparison.right, bounds)
    left, right = left and left.finite, right and right.finite
    return decided(comparison.symbol, left, right) if left and right else None


def _differ(one: ast.expr, other: ast.expr) -> bool:
    """Whether one side is zero and the other never is, though it has both signs: ``1 / x``."""
    return (constant_of(one) == 0 and _least_size(other) > 0) or (constant_of(other) == 0 and _least_size(one) > 0)


def _least_size(node: ast.expr) -> float:
    """A size that ``node`` never falls below, whatever is observed; as floating point has it, not only on paper."""
    reached = range_of(node, {})
    least = max(reached.low, -reached.high, 0.0) if reached else 0.0
    match node:
        case ast.UnaryOp():
            return max(least, _least_size(node.operand))
        case ast.Call(func=ast.Name(id="abs")):
            return max(least, _least_size(node.args[0]))
        case ast.BinOp(op=ast.Mult()):
            return max(least, _least_size(node.left) * _least_size(node.right))
        case ast.BinOp(op=ast.Div()):
            largest = _largest_size(node.right)
            return max(least, _least_size(node.left) / largest) if largest else least
        case ast.BinOp(op=ast.Pow()) if (exponent := constant_of(node.right)) is not None and exponent < 0:
            largest = _largest_size(node.left)
            return max(least, math.pow(largest, exponent)) if largest >= 1 else least
    return least


def _largest_size(node: ast.expr) -> float:
    reached = range_of(node, {})
    return max(abs(reached.low), abs(reached.high)) if reached else math.inf

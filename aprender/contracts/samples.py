"""Synthetic observations: what a comparison says of a rich, fixed sample of them, and of those close to a change."""

from __future__ import annotations

import _ast as ast
from collections.abc import Iterator, Mapping

from aprender.contracts.expression import Comparison, EvaluationError, Sides

_VALUES = (
    0.0, 1.0, -1.0, 0.5, -0.5, 0.9, 1.001, 1.5, 2.0, 3.7, -3.7, 7.0, 10.0, -10.0, 0.1, 2.718, 1e-3, -1e-3, 100.0, 1e3,
    -1e3, 1e-9, 1e6, -1e6, 1e12, 1e-100, 1e100, -1e100, 5e-324, 1e302, 1.7e308,
)  # fmt: skip
_ALL_COMBINATIONS_UP_TO = 2000
_SAMPLE = 1500
_ENOUGH = 12  # observations with a value for both sides: fewer show nothing
_EFFORT = 1_000_000  # parts evaluated: about a second
_STEPS = (10.0, 1.5, 1.1, 1.01, 1.0001)


class Effort:
    """What trying may cost in one file: a stranger's contract must not take minutes. Once spent, nothing is said."""

    def __init__(self) -> None:
        self.left = _EFFORT

    def observe(self, comparison: Comparison, parts: int, values: Mapping[str, float]) -> Sides | None:
        """Both sides for ``values``, None where one has no value."""
        self.left -= parts
        if self.left < 0:
            raise _Spent
        try:
            return comparison.evaluate(values)
        except EvaluationError:
            return None


class _Spent(Exception):
    """Enough was tried."""


def repeats_a_name(comparison: Comparison) -> bool:
    """Whether a name stands more than once; else the ranges of both sides are exact and have the last word."""
    names = [part.id for part in comparison.parts() if isinstance(part, ast.Name)]
    return len(names) > len(set(names))


def sampled(comparison: Comparison, effort: Effort) -> bool | None:
    """The outcome that all observations had that were tried; None where they differ or say nothing.

    That nothing met an equality shows nothing: the right numbers may not have been among those that were tried.
    """
    if not repeats_a_name(comparison):
        return None
    try:
        return _Search(comparison, effort).outcome()
    except _Spent:
        return None


class _Search:
    """The attempt to see both outcomes of one comparison."""

    def __init__(self, comparison: Comparison, effort: Effort) -> None:
        self.comparison = comparison
        self.effort = effort
        self.parts = sum(1 for _ in comparison.parts())

    def outcome(self) -> bool | None:
        """The one outcome that was seen; None where both were, or too little."""
        seen: set[bool] = set()
        margins: list[tuple[float, dict[str, float]]] = []
        for values in _observations(self.comparison):
            if sides := self.effort.observe(self.comparison, self.parts, values):
                seen.add(sides.holds)
                margins.append((_margin(sides), values))
            if len(seen) > 1:
                return None
        symbol = self.comparison.symbol
        uninformative = symbol in ("==", "!=") and seen == {symbol == "!="}
        if len(margins) < _ENOUGH or uninformative:
            return None
        (outcome,) = seen
        closest = sorted(margins, key=lambda found: found[0])[:8]
        return None if any(self._meets_the_other(outcome, *start) for start in closest) else outcome

    def _meets_the_other(self, outcome: bool, margin: float, start: Mapping[str, float]) -> bool:
        """Whether a search for ever smaller differences of the sides, one name at a time, meets the other outcome."""
        values = dict(start)
        for step in _STEPS:
            for _ in range(12):
                best = None
                for tried in _neighbours(values, step):
                    sides = self.effort.observe(self.comparison, self.parts, tried)
                    if sides is None:
                        continue
                    if sides.holds is not outcome:
                        return True
                    if (closer := _margin(sides)) < margin:
                        margin, best = closer, tried
                if best is None:
                    break
                values = best
        return False


def _neighbours(values: Mapping[str, float], step: float) -> Iterator[dict[str, float]]:
    for name, value in values.items():
        for changed in (value * step, value / step, value + step, value - step):
            yield {**values, name: changed}


def _margin(sides: Sides) -> float:
    size = max(abs(sides.left), abs(sides.right))
    return abs(sides.left / size - sides.right / size) if size else 0.0


def _observations(comparison: Comparison) -> Iterator[dict[str, float]]:
    """Synthetic observations: all combinations of the values where they are few, else equal ones and a fixed sample."""
    constants = (part.value for part in comparison.parts() if isinstance(part, ast.Constant))
    numbers = [float(value) for value in constants if isinstance(value, int | float)]
    near = [number + change for number in numbers[:10] for change in (0.0, -1.0, 1.0)]
    values = list(dict.fromkeys((*_VALUES, *near)))
    names = sorted(comparison.names)
    if len(values) ** len(names) <= _ALL_COMBINATIONS_UP_TO:
        from itertools import product

        yield from (dict(zip(names, chosen, strict=True)) for chosen in product(values, repeat=len(names)))
        return
    yield from (dict.fromkeys(names, value) for value in values)
    state = 1
    for _ in range(_SAMPLE):
        observation = {}
        for name in names:
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64  # Knuth's MMIX generator
            observation[name] = values[(state >> 33) % len(values)]
        yield observation

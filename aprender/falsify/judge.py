"""From an observation to GREEN, RED or ERROR. The judge sees numbers only, never the system."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aprender.contracts.contract import Falsifier
from aprender.contracts.expression import Comparison, EvaluationError, Sides
from aprender.falsify.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Judged:
    """One expectation or guard with both sides' values (None where a side has no value)."""

    text: str
    holds: bool
    left: float | None
    right: float | None

    def to_json(self) -> dict[str, Any]:
        """All fields as plain data."""
        return {"text": self.text, "holds": self.holds, "left": self.left, "right": self.right}


@dataclass(frozen=True)
class Judgement:
    """GREEN, RED or ERROR, the reason in words, and every comparison that led to it."""

    verdict: Verdict
    reason: str
    expectations: tuple[Judged, ...] = ()
    guards: tuple[Judged, ...] = ()


def judge(falsifier: Falsifier, values: Mapping[str, float | int], observes: Mapping[str, str]) -> Judgement:
    """Judge observed ``values`` of a probe that declared ``observes``.

    ERROR before anything else: a missing, undeclared or non-finite number, a guard that does not hold, a side
    without a value. Then RED where an expectation does not hold. Otherwise GREEN.
    """
    if problem := _malformed(values, observes):
        return Judgement(Verdict.ERROR, problem)
    guards, problems = _evaluate(falsifier.guards, values)
    expectations, more = _evaluate(falsifier.expectations, values)
    problems += more
    failed_guards = [guard for guard in guards if not guard.holds]
    if problems or failed_guards or not expectations:
        reasons = problems + [f"guard does not hold: {describe(guard)}" for guard in failed_guards]
        reason = "; ".join(reasons) or "the falsifier expects nothing: nothing was judged"
        return Judgement(Verdict.ERROR, reason, expectations, guards)
    broken = [expectation for expectation in expectations if not expectation.holds]
    if broken:
        return Judgement(Verdict.RED, "; ".join(map(describe, broken)), expectations, guards)
    return Judgement(Verdict.GREEN, "every expectation holds", expectations, guards)


def describe(judged: Judged) -> str:
    """One comparison in words: its text, and what its sides were."""
    if judged.left is None or judged.right is None:
        return judged.text
    return f"{judged.text}, observed {judged.left:.6g} against {judged.right:.6g}"


def _malformed(values: Mapping[str, float | int], observes: Mapping[str, str]) -> str | None:
    if missing := [name for name in observes if name not in values]:
        return f"the probe declares but did not observe: {', '.join(missing)}"
    if extra := [name for name in values if name not in observes]:
        return f"the probe observed what it does not declare: {', '.join(extra)}"
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{name} is {value!r} ({type(value).__name__}), not a number"
        if isinstance(value, int) and abs(value) > 2**53:
            return f"{name} is beyond 2**53: no exact number"
        if not math.isfinite(value):
            return f"{name} is {value}: not a finite number"
    return None


def _evaluate(
    comparisons: tuple[Comparison, ...], values: Mapping[str, float | int]
) -> tuple[tuple[Judged, ...], list[str]]:
    judged: list[Judged] = []
    problems: list[str] = []
    for comparison in comparisons:
        try:
            sides = comparison.evaluate(values)
        except (EvaluationError, KeyError) as error:
            problems.append(f"{comparison.text}: {error}")
            judged.append(Judged(comparison.text, False, None, None))
        else:
            judged.append(_judged(comparison, sides))
    return tuple(judged), problems


def _judged(comparison: Comparison, sides: Sides) -> Judged:
    return Judged(comparison.text, sides.holds, sides.left, sides.right)

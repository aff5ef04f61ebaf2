"""Teeth: a GREEN counts only when every declared defect class, planted, turned the same probe RED."""

from __future__ import annotations

from aprender.contracts.contract import DefectClass, Falsifier
from aprender.falsify.judge import describe, judge
from aprender.falsify.observe import Observed
from aprender.falsify.record import Outcome, Witness
from aprender.falsify.verdict import Verdict


def witness(falsifier: Falsifier, defect: DefectClass, clean: Observed, planted: Observed) -> Witness:
    """What the planted observation says of ``defect``, next to the clean one.

    Caught: RED, and every expectation that the class declares in ``violates`` is among the broken ones (named first).
    Inert: bit-identical to the clean run. An ERROR (NaN, a failed guard) is not a catch.
    """
    if planted.output_digest == clean.output_digest and dict(planted.values) == dict(clean.values):
        return Witness(defect.name, Outcome.INERT, "the observation is bit-identical to the clean run")
    judgement = judge(falsifier, planted.values, planted.units)
    if judgement.verdict is Verdict.GREEN:
        return Witness(defect.name, Outcome.SURVIVED, "planted, and every expectation still holds")
    if judgement.verdict is not Verdict.RED:
        return Witness(defect.name, Outcome.SURVIVED, f"{judgement.verdict} is not RED: {judgement.reason}")
    violated = (judged for judged in judgement.expectations if not judged.holds)
    broken = tuple(sorted(violated, key=lambda judged: judged.text not in defect.violates))
    texts = {judged.text for judged in broken}
    if still := [text for text in defect.violates if text not in texts]:
        detail = f"RED, but not for the declared reason: still holds: {'; '.join(still)}"
        return Witness(defect.name, Outcome.SURVIVED, detail, broken)
    return Witness(defect.name, Outcome.CAUGHT, "; ".join(map(describe, broken)), broken)


def unproven(falsifier: Falsifier, witnesses: tuple[Witness, ...]) -> str | None:
    """Why the teeth are not proven, naming each class without a witness; None where all were caught.

    An expectation that no planted defect broke was not shown able to fail: that is not proven either.
    """
    if not witnesses:
        return "no defect class is declared: nothing shows that this falsifier can go RED"
    missing = [w for w in witnesses if w.outcome is not Outcome.CAUGHT]
    reasons = [f"{w.defect} {w.outcome.words} ({w.detail})" for w in missing]
    broken = {judged.text for w in witnesses for judged in w.violated}
    unbroken = [comparison.text for comparison in falsifier.expectations if comparison.text not in broken]
    reasons += [f"no planted defect breaks '{text}'" for text in unbroken if not missing]
    return "; ".join(reasons) or None

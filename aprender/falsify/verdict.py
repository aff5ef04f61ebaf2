"""The seven verdicts, from worst to best, and the exit codes they lead to."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Verdict(StrEnum):
    """What is known of one falsifier. Defined from worst to best; the worst wins."""

    TAMPERED = "TAMPERED"
    RED = "RED"
    ERROR = "ERROR"
    UNPROVEN = "UNPROVEN"
    STALE = "STALE"
    SKIPPED = "SKIPPED"
    GREEN = "GREEN"


_ORDER = {verdict: rank for rank, verdict in enumerate(Verdict)}

EXIT_HOLDS, EXIT_RED, EXIT_NOTHING_TO_DO, EXIT_NOT_PROVEN, EXIT_TAMPERED = range(5)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of ``verdicts``; raises ValueError where there is none, because nothing measured is not GREEN."""
    return min(verdicts, key=_ORDER.__getitem__)


def exit_code(verdicts: Iterable[Verdict], *, skipped_may_pass: bool) -> int:
    """The process exit code for a set of verdicts.

    ``skipped_may_pass``: on a host that lacks a GPU, ``pv run`` passes when all that could run holds and at
    least one falsifier ran; the gate never lets a skip pass.
    """
    present = set(verdicts)
    if not present or (skipped_may_pass and present == {Verdict.SKIPPED}):
        return EXIT_NOTHING_TO_DO
    if skipped_may_pass:
        present.discard(Verdict.SKIPPED)
    match worst(present):
        case Verdict.GREEN:
            return EXIT_HOLDS
        case Verdict.RED:
            return EXIT_RED
        case Verdict.TAMPERED:
            return EXIT_TAMPERED
        case _:
            return EXIT_NOT_PROVEN

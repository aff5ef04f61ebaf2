"""The one record of a falsifier run. Every report and the evidence are derived from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from aprender.contracts.contract import Contract, Falsifier
from aprender.falsify.judge import Judged
from aprender.falsify.verdict import Verdict


class Outcome(StrEnum):
    """What became of one declared defect class."""

    CAUGHT = "caught"
    SURVIVED = "survived"
    INERT = "inert"
    NOT_PLANTED = "not_planted"
    CRASHED = "crashed"

    @property
    def words(self) -> str:
        """As people read it."""
        return self.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Witness:
    """Whether a planted defect turned the probe RED for the declared reason.

    ``violated`` are the expectations that it broke, each with what was measured and what is allowed; those that the
    class declares come first.
    """

    defect: str
    outcome: Outcome
    detail: str
    violated: tuple[Judged, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All fields as plain data."""
        return {
            "defect": self.defect,
            "outcome": str(self.outcome),
            "detail": self.detail,
            "violated": [judged.to_json() for judged in self.violated],
        }


@dataclass(frozen=True)
class FalsifierRun:
    """One falsifier, run once: verdict, reason, and everything that led to it.

    ``seconds`` is the time this run took; ``reused`` of its ``observed`` observations came from the cache.
    ``provenance`` holds digests, host, system facts and options, as evidence records them.
    """

    contract: Contract
    falsifier: Falsifier
    verdict: Verdict
    reason: str
    values: Mapping[str, float | int] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    expectations: tuple[Judged, ...] = ()
    guards: tuple[Judged, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    seconds: float = 0.0
    observed: int = 0
    reused: int = 0
    observed_at: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def count(self, outcome: Outcome) -> int:
        """How many defect classes came out as ``outcome``."""
        return sum(witness.outcome is outcome for witness in self.witnesses)

    def to_json(self) -> dict[str, Any]:
        """The part of the record that ``pv run --json`` prints per falsifier."""
        return {
            "id": self.falsifier.id,
            "contract": str(self.contract.path),
            "verdict": str(self.verdict),
            "reason": self.reason,
            "ship_blocking": self.falsifier.ship_blocking,
            "observations": {
                name: {"value": _plain(value), "unit": self.units.get(name, "")} for name, value in self.values.items()
            },
            "expectations": [judged.to_json() for judged in self.expectations],
            "guards": [judged.to_json() for judged in self.guards],
            "witnesses": [witness.to_json() for witness in self.witnesses],
            "observed_at": self.observed_at,
            "reused": self.reused,
            "seconds": round(self.seconds, 3),
        }


def _plain(value: object) -> object:
    """A number that JSON can hold as it is, anything else (NaN, an infinity, no number at all) as text."""
    if isinstance(value, int | float) and math.isfinite(value) and abs(value) <= 2**53:
        return value
    return str(value)

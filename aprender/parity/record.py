"""What one comparison found, as plain data: every report is derived from these records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

Verdict = Literal["RED", "ERROR", "GREEN"]  # from worst to best
VERDICTS: tuple[Verdict, ...] = ("RED", "ERROR", "GREEN")


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of ``verdicts``. Nothing compared is ERROR."""
    return min(verdicts, key=VERDICTS.index, default="ERROR")


class Measured(NamedTuple):
    """One statistic of one tensor: the block where it is worst, what was observed there and what is allowed.

    ``alarms`` is false where the statistic's null is not calibrated on this kind of device: reported, never judged.
    """

    statistic: str
    label: str
    observed: float
    allowed: float
    alarms: bool = True
    block: tuple[str, int] = ("tensor", 0)

    @property
    def ratio(self) -> float:
        """Observed/allowed; infinite where nothing is allowed and something was observed, or nothing is finite."""
        if not math.isfinite(self.observed) or math.isnan(self.allowed):
            return math.inf
        if self.allowed == 0:
            return math.inf if self.observed else 0.0
        return self.observed / self.allowed

    def scaled(self, factor: float | None) -> Measured:
        """With the calibrated allowance; without a calibration (None) it does not alarm."""
        return self._replace(alarms=False) if factor is None else self._replace(allowed=self.allowed * factor)


class Element(NamedTuple):
    """The worst element of the worst block: where it is, and both values."""

    place: tuple[int, ...]
    candidate: float
    oracle: float


class Judgement(NamedTuple):
    """One tensor, judged by every statistic; ``worst`` is the largest ratio of those that may alarm."""

    worst: Measured | None
    measured: tuple[Measured, ...]
    element: Element
    relative_error: float

    @property
    def ratio(self) -> float:
        """The verdict: GREEN up to 1. Infinite where no statistic may alarm: nothing was judged."""
        return math.inf if self.worst is None else self.worst.ratio


@dataclass(frozen=True, slots=True)
class Reproducer:
    """The smallest input on which the stage is still RED: regenerate with ``seed``, crop to ``shapes``."""

    seed: int
    rows: tuple[int, int]
    positions: tuple[int, int]
    shapes: tuple[tuple[int, ...], ...]
    ratio: float


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One tensor of one stage. ``tensor`` is ``output``, ``d_input 0`` or ``d_parameter weight``.

    ``reason`` says why the verdict is ERROR; ``fault``: because the device, its driver or a compiler of kernels failed,
    which says nothing of the candidate. ``sensitivity`` is, by parameter, the ratio that the oracle itself would
    get with that parameter 10% off; ``detection_limit`` the smallest error of one element that is RED, in root mean
    squares of the oracle's tensor, by place.
    """

    stage: str
    direction: Literal["forward", "backward"]
    tensor: str
    verdict: Verdict
    reason: str = ""
    fault: bool = False
    dtype: str = ""
    shape: tuple[int, ...] = ()
    elements: int = 0
    statistic: str = ""
    ratio: float = math.nan
    observed: float = math.nan
    allowed: float = math.nan
    block: str = ""
    worst: Element | None = None
    relative_error: float = math.nan
    seed: int = 0
    ratios: Mapping[str, float] = field(default_factory=dict)
    uncalibrated: tuple[str, ...] = ()
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    detection_limit: Mapping[str, float] = field(default_factory=dict)
    reproducer: Reproducer | None = None

    @property
    def inconclusive(self) -> bool:
        """Whether too little was seen to judge: an ERROR of the input, not of the candidate."""
        return self.verdict == "ERROR" and self.reason.startswith("inconclusive")

    def to_json(self) -> dict[str, Any]:
        """All fields as data that JSON can hold: numbers that are not finite become their names."""
        return {name: _plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that one pass compared, in stage order."""

    records: tuple[StageRecord, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of all; ERROR where nothing was compared."""
        return worst(record.verdict for record in self.records)

    @property
    def first(self) -> StageRecord | None:
        """Where the defect is: the first RED in stage order, forward before backward; else the first ERROR.

        What the candidate broke (it raises, a gradient is missing) comes before what is inconclusive.
        """
        bad = [record for record in self.records if record.verdict == self.verdict != "GREEN"]
        return min(bad, key=lambda record: (record.inconclusive, record.direction == "backward"), default=None)

    @property
    def ratio(self) -> float:
        """The largest observed/allowed over all stages, elements, positions, heads and layers."""
        return max((record.ratio for record in self.records if not math.isnan(record.ratio)), default=math.nan)

    def of(self, stage: str) -> Comparison:
        """Only what concerns one stage."""
        return Comparison(tuple(record for record in self.records if record.stage == stage))

    def to_json(self) -> dict[str, Any]:
        """The record that every report is made from."""
        first = self.first
        return {
            "verdict": self.verdict,
            "ratio": _plain(self.ratio),
            "first": None if first is None else {"stage": first.stage, "tensor": first.tensor},
            "compared": len(self.records),
            "elements": sum(record.elements for record in self.records),
            "records": [record.to_json() for record in self.records],
        }


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value

"""Laws: what must hold of a callable whatever its numbers are. No oracle, and bit for bit wherever that can be asked.

Each law returns a ``LawRecord``. ``allowed`` is 0 where outputs must be equal bit for bit; where the law compares
computations of different shapes (cached decode and prefill) the caller may allow the rounding that he measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from aprender.parity.exact import bits

Model = Callable[[Tensor], Tensor]  # tokens_BT (int64) or x_BTD to anything whose first axes are [B, T]


@dataclass(frozen=True, slots=True)
class LawRecord:
    """One law on one callable: how many elements were compared, and the largest difference beside what is allowed.

    ``vacuous`` says why the law could not have failed on this input; then it does not hold.
    """

    law: str
    compared: int
    differing: int
    largest: float
    allowed: float = 0.0
    vacuous: str = ""

    @property
    def holds(self) -> bool:
        """Whether something was compared, could have differed, and did not by more than is allowed."""
        small = self.largest <= self.allowed if self.allowed else self.differing == 0
        return not self.vacuous and self.compared > 0 and small

    def to_json(self) -> dict[str, Any]:
        """All fields and the verdict, as data that JSON can hold."""
        largest = self.largest if math.isfinite(self.largest) else str(self.largest)
        return asdict(self) | {"largest": largest, "holds": self.holds}


def causality(model: Model, x_BT: Tensor, position: int, replacements: Sequence[Tensor]) -> LawRecord:
    """What comes after ``position`` can't be seen there or before: outputs up to it stay the same, bit for bit.

    ``replacements`` are futures of the same shape as ``x_BT[:, position + 1:]``: other tokens, or NaN where the model
    reads vectors (a mask that multiplies instead of selecting lets NaN through). Vacuous where no later output moves.
    """
    before = model(x_BT)
    records, moved = [], False
    for future in replacements:
        after = model(torch.cat((x_BT[:, : position + 1], future), 1))
        records.append(compared("causality", before[:, : position + 1], after[:, : position + 1]))
        moved = moved or bool((bits(before[:, position + 1 :]) != bits(after[:, position + 1 :])).any())
    return _merged(records, "" if moved else "no later output depends on its own input")


def batch_permutation(model: Model, x_BT: Tensor, allowed: float = 0.0) -> LawRecord:
    """Rows do not see each other: permuting them permutes the outputs. Vacuous for one row, or rows all alike."""
    order = torch.arange(len(x_BT), device=x_BT.device).roll(1)
    right = model(x_BT)
    record = compared("batch permutation", right[order], model(x_BT[order]), allowed)
    return record if bool((bits(right) != bits(right[order])).any()) else _vacuous(record, "all rows are alike")


def padding(model: Model, padded: Model, x_BT: Tensor, places_BT: Tensor, allowed: float = 0.0) -> LawRecord:
    """Padding changes nothing: ``padded(x_BT)`` at ``places_BT`` (bool, where tokens stand) equals each row on its own.

    ``padded`` is told of the padding by its caller; ``model`` gets every row without it, as a batch of one.
    """
    together = padded(x_BT)
    rows = zip(together, x_BT, places_BT, strict=True)
    records = [compared("padded = unpadded", model(x_T[at][None])[0], y_T[at], allowed) for y_T, x_T, at in rows]
    return _merged(records, "nothing is padded" if bool(places_BT.all()) else "")


def cached_decode(
    prefill: Model, decode: Callable[[Tensor], Iterator[Tensor]], x_BT: Tensor, allowed: float
) -> LawRecord:
    """Decoding step by step gives what one prefill gives: ``decode(x_BT)`` yields each step's outputs [B, t, ...]."""
    steps = torch.cat(list(decode(x_BT)), 1)
    record = compared("cached decode = prefill", prefill(x_BT), steps, allowed)
    return record if x_BT.shape[1] > 1 else _vacuous(record, "one position needs no cache")


def determinism(run: Callable[[], Tensor], times: int = 20) -> LawRecord:
    """The same call returns the same bits, ``times`` times."""
    first = run().clone()
    return _merged([compared("determinism", first, run()) for _ in range(times - 1)])


class Poison(Protocol):
    """Fills the memory that the next call will be given with a value, or with its previous contents negated."""

    def __call__(self, value: float | None) -> AbstractContextManager[None]:
        """A context inside which fresh memory holds ``value``; None negates what was there."""


def poisoned(run: Callable[[], Tensor], poison: Poison) -> LawRecord:
    """No memory is read before it is written: NaN, 1e30 and the previous result negated leave the output as it is."""
    clean = run().clone()
    records = []
    for value in (math.nan, 1e30, None):
        with poison(value):
            records.append(compared("poison", clean, run()))
    return _merged(records)


def bias_only(stage: Callable[[Tensor], Tensor], x: Tensor, bias_N: Tensor) -> LawRecord:
    """``stage`` has zero weights: every row of its output is the bias, bit for bit. Vacuous for a bias that is zero."""
    y = stage(x)
    record = compared("bias only", bias_N.to(y.dtype).expand_as(y), y)
    return record if bool(bias_N.any()) else _vacuous(record, "the bias is zero")


def scale_response(norm: Callable[[Tensor], Tensor], x: Tensor, eps: float, factor: float, allowed: float) -> LawRecord:
    """RMSNorm of ``factor x`` over that of x is ``factor sqrt((m + eps) / (factor^2 m + eps))``.

    m is the mean square of a row. Without eps the two are equal, so this isolates it. ``allowed`` is relative: a few
    roundings; a power of two as ``factor`` costs none. Vacuous where eps would move no row by more than that.
    """
    m = x.double().square().mean(-1, keepdim=True)
    expected = factor * ((m + eps) / (factor**2 * m + eps)).sqrt()
    plain, scaled = norm(x).double(), norm(x * factor).double()
    difference = (scaled - plain * expected).abs()
    worst = float(
        (difference / (plain * expected).abs().clamp_min(torch.finfo(x.dtype).tiny)).nan_to_num(math.inf).max()
    )
    record = LawRecord("scale response", x.numel(), int(worst > allowed), worst, allowed)
    seen = float((expected - 1).abs().max())
    return record if seen > 10 * allowed else _vacuous(record, f"eps moves no row by more than {seen:.1e}")


def compared(law: str, right: Tensor, found: Tensor, allowed: float = 0.0) -> LawRecord:
    """Compare bit for bit (or, with ``allowed``, within it). Another shape or dtype, or NaN, is a difference."""
    if right.shape != found.shape or right.dtype != found.dtype:
        return LawRecord(law, right.numel(), right.numel(), math.inf, allowed)
    differs = bits(right) != bits(found)
    gap = (right.double() - found.double()).abs()
    largest = float(torch.where(differs, gap, 0.0).nan_to_num(math.inf).max()) if right.numel() else 0.0
    return LawRecord(law, right.numel(), int(differs.sum()), largest, allowed)


def _merged(records: Sequence[LawRecord], vacuous: str = "") -> LawRecord:
    worst = max(records, key=lambda record: record.largest)
    return LawRecord(
        worst.law,
        sum(record.compared for record in records),
        sum(record.differing for record in records),
        worst.largest,
        worst.allowed,
        vacuous,
    )


def _vacuous(record: LawRecord, why: str) -> LawRecord:
    return LawRecord(record.law, record.compared, record.differing, record.largest, record.allowed, why)

"""The envelope of one tensor: what honest rounding may do to it, measured once from legal plans, then judged against.

Words: ``z`` is the oracle's float64 result on the rounded inputs, ``y_j`` what the legal rounding plans return,
``s_j = y_j - z`` their errors, ``y`` the candidate's result, ``r = y - z`` its error. ``q_i^2`` is the variance of one
correct rounding of ``z_i``: no implementation that stores its result can be asked for less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from aprender.parity.blocks import Blocks
from aprender.parity.calibration import Calibration
from aprender.parity.projections import Projections
from aprender.parity.record import Element, Judgement, Measured
from aprender.parity.rounding import UNIT_ROUNDOFF_ACCUMULATOR, rounding_variance
from aprender.parity.tails import NORMAL, norm_excess, undeclared

# Below this many effective terms one draw of s_j says little about its expectation: the chi-square's lower tail at
# FALSE_ALARMS, 1 - 2 sqrt(27.6 / n), is a third there.
FEW = 256

MAX_NET = 2.0  # FlashAttention's own rule (Dao-AILab/flash-attention, tests): twice the reference's largest error


class Envelope:
    """Made from the oracle's ``z``, then ``add`` every plan's result, then ``judge`` candidates.

    ``dtype`` is what results are stored in; ``directions`` say how z moves when a parameter moves by 10%. All sums are
    float64, on z's device; plans are taken one at a time and let go.
    """

    def __init__(
        self,
        z: Tensor,
        dtype: torch.dtype,
        blocks: Blocks,
        calibration: Calibration,
        directions: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.z, self.dtype, self.blocks, self.calibration = z, dtype, blocks, calibration
        self.largest_error = 0.0
        q2 = rounding_variance(z, dtype)
        self._noise = blocks.sums(q2)  # sums of squares of errors, by block system: the largest over the plans
        self._terms = blocks.effective_terms(q2)
        self._squares = blocks.sums(z**2)
        self._projections = Projections(z, q2, blocks, directions or {}, undeclared(dtype))
        self._limits: dict[str, Tensor] | None = None  # what norms are allowed; None until all plans are in

    def add(self, y: Tensor) -> None:
        """Take in what one legal rounding plan returned."""
        s = y.double().sub_(self.z)
        self.largest_error = max(self.largest_error, float(s.abs().max()))
        self._projections.add(s)
        sums = self.blocks.sums(s**2)
        relative = sums["tensor"] / self._squares["tensor"]
        for name, values in sums.items():
            pooled = torch.where(self._terms[name] < FEW, relative * self._squares[name], 0.0)
            self._noise[name] = torch.maximum(self._noise[name], torch.maximum(values, pooled))
        self._limits = None

    def judge(self, y: Tensor) -> Judgement:
        """Compare ``y`` (finite, of z's shape, of any float dtype) by every statistic; the largest ratio counts."""
        r = y.to(self.z.device).double().sub_(self.z)
        plain = [*self._norms(r), self._max(r), *self._projections.measure(r)]
        measured = [self._scaled(m, y.device) for m in plain]  # by the calibration of where the candidate ran
        alarming = [m for m in measured if m.alarms]
        worst = max(alarming, key=lambda m: m.ratio, default=None)
        norm = float(self.z.square().sum().sqrt())
        return Judgement(
            worst, tuple(measured), self._element(r, y, worst), _ratio(float(r.square().sum().sqrt()), norm)
        )

    def rounded(self) -> Tensor:
        """The oracle's result rounded once to the dtype in question: the best that a candidate can return."""
        return self.z.to(self.dtype)

    def element_allowance(self) -> float:
        """What the max net allows one element: the coarsest statistic's envelope."""
        return self._scaled(self._max(torch.zeros_like(self.z)), self.z.device).allowed

    def _allowed(self) -> dict[str, Tensor]:
        """(A): allowed = c(n) sqrt(noise) + phi. c is chance (tails.py) and plans that are not declared.

        n counts effective terms, ``(sum q^2)^2 / sum q^4``: a few huge channels are few terms. phi is for blocks that
        are zero by the mathematics (structural cancellation, masks) beside a tensor that is not: there the terms that
        cancel, of the tensor's size, leave their accumulator's rounding behind, and no relative rule holds.
        """
        if self._limits is None:
            rms = (self._squares["tensor"] / self.z.numel()).sqrt()
            longest_sum = math.sqrt(max(self.z.shape, default=1))
            phi = NORMAL * longest_sum * UNIT_ROUNDOFF_ACCUMULATOR * rms
            self._limits = {}
            for name, size in self.blocks.sums(torch.ones_like(self.z)).items():
                c = undeclared(self.dtype) * norm_excess(self._terms[name])
                zero = self._squares[name] <= (UNIT_ROUNDOFF_ACCUMULATOR * rms) ** 2 * size
                self._limits[name] = c * self._noise[name].sqrt() + torch.where(zero, phi * size.sqrt(), 0.0)
        return self._limits

    def _norms(self, r: Tensor) -> Iterator[Measured]:
        allowed = self._allowed()
        for name, squares in self.blocks.sums(r**2).items():
            index = int((squares.sqrt() / allowed[name]).argmax())
            label = self.blocks.label(name, index)
            yield Measured(
                f"norm {name}", label, float(squares[index].sqrt()), float(allowed[name][index]), block=(name, index)
            )

    def _max(self, r: Tensor) -> Measured:
        """(B): a coarse net. The second term is what one rounding does to values of the size of 0.3 and more.

        The largest of few errors is hardly more than one draw: there one element may take all that the norm allows.
        """
        y = self.rounded()
        granularity = float((y + 0.3 - 0.3 - y).abs().max())
        allowed = max(MAX_NET, undeclared(self.dtype)) * (self.largest_error + granularity)
        if self.z.numel() < FEW:
            allowed = max(allowed, float(self._allowed()["tensor"][0]))
        return Measured("max", "tensor", float(r.abs().max()), allowed)

    def _scaled(self, measured: Measured, device: torch.device) -> Measured:
        return measured.scaled(self.calibration.factor(device, self.dtype, measured.statistic.split(":")[0]))

    def _element(self, r: Tensor, y: Tensor, worst: Measured | None) -> Element:
        system, index = worst.block if worst is not None else ("tensor", 0)
        place = self.blocks.largest(r.abs(), system, index)
        return Element(place, float(y[place]), float(self.z[place]))


def _ratio(a: float, b: float) -> float:
    return a / b if b else math.inf if a else 0.0

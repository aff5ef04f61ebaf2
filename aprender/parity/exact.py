"""Operators that admit no rounding of their own: gathers, copies, casts, residual adds, masks. Compared bit by bit."""

from __future__ import annotations

import torch
from torch import Tensor

from aprender.parity.blocks import Blocks
from aprender.parity.record import Element, Judgement, Measured

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Exact:
    """The oracle's result rounded once to ``dtype``: the only legal one. Judges like ``Envelope``."""

    def __init__(self, z: Tensor, dtype: torch.dtype, blocks: Blocks) -> None:
        self.z, self.dtype, self.blocks = z, dtype, blocks

    def rounded(self) -> Tensor:
        """The one legal result."""
        return self.z.to(self.dtype)

    def judge(self, y: Tensor) -> Judgement:
        """How many elements differ in any bit; none may."""
        y = y.to(self.z.device)
        differs = bits(y) != bits(self.rounded())
        count = int(differs.sum())
        error = (y.double() - self.z.double()).abs()
        place = self.blocks.largest(torch.where(differs, error, -1.0), "tensor", 0)
        measured = Measured("bitwise", f"{count} of {y.numel()} elements differ", float(count), 0.0)
        norm = float(self.z.double().square().sum().sqrt())
        relative = float(error.square().sum().sqrt()) / norm if norm else 0.0
        return Judgement(measured, (measured,), Element(place, float(y[place]), float(self.z[place])), relative)


def bits(x: Tensor) -> Tensor:
    """The same storage as integers: 0.0 and -0.0 differ, and so do two NaN with other payloads."""
    return x.contiguous().view(_BITS[x.element_size()]) if x.dtype != torch.bool else x


def equal_bits(x: Tensor, y: Tensor) -> bool:
    """Whether two tensors have the same dtype, shape and bits."""
    return x.dtype == y.dtype and x.shape == y.shape and bool((bits(x) == bits(y)).all())

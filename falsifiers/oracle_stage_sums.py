"""Sums of the oracle's VJPs in other orders, for the legal rounding plans of the stages."""

from __future__ import annotations

import torch
from torch import Tensor

from aprender.transformer.oracle import operators


def rms_norm_gradients(x: Tensor, gain_D: Tensor, eps: float, dy: Tensor, splits: int) -> tuple[Tensor, Tensor]:
    """The oracle's dx and dgain, with dgain as ``splits`` partial sums over rows, added in order."""
    dx, dgain = operators.rms_norm_vjp(x, gain_D, eps, dy)
    if splits == 1:
        return dx, dgain
    parts = (y.flatten(0, -2).tensor_split(min(splits, y[..., 0].numel())) for y in (x, dy))
    total = torch.zeros_like(dgain)
    for x_mD, dy_mD in zip(*parts, strict=True):
        total = total + operators.rms_norm_vjp(x_mD, gain_D, eps, dy_mD)[1]
    return dx, total

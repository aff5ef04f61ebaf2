"""What one rounding to a floating-point format costs, element by element."""

from __future__ import annotations

import torch
from torch import Tensor

# Every implementation worth comparing accumulates in float32 at least; its elementary functions are those of float32.
UNIT_ROUNDOFF_ACCUMULATOR = 2.0**-24


def unit_roundoff(dtype: torch.dtype) -> float:
    """Half the distance from 1 to the next number: float32 2^-24, bfloat16 2^-8."""
    return torch.finfo(dtype).eps / 2


def ulp(z: Tensor, dtype: torch.dtype) -> Tensor:
    """The distance between neighbours in ``dtype`` at each of ``z`` (float64): float64 of the same shape, never zero.

    Below the smallest normal number the distance stays what it is there.
    """
    limits = torch.finfo(dtype)
    _, exponent = torch.frexp(z.abs().clamp_min(limits.tiny))
    return torch.ldexp(torch.full_like(z, limits.eps), exponent - 1)


def rounding_variance(z: Tensor, dtype: torch.dtype) -> Tensor:
    """The variance of one correct rounding of ``z`` to ``dtype``, shape of ``z``: an error uniform over one ulp."""
    return ulp(z, dtype).square_().div_(12)

"""How far chance goes: tails of sums of rounding errors at one agreed probability of a false alarm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FALSE_ALARMS = 1e-12  # per test: a run makes about 1e6 of them, so one run in a million raises a false alarm

# Standard deviations of a normal variable, from its tail bound 2 exp(-l^2 / 2): 7.53, as in envelopes.LAMBDA.
NORMAL = math.sqrt(2 * math.log(2 / FALSE_ALARMS))

# How far honest implementations lie beyond the declared plans, in norm. In 16 bits the last rounding dominates: a
# second legal rounding is within 0.2% of L2, undeclared orders of the same roundings within 15% (parity.md 3.1). In
# float32 the error is that of sums and elementary functions, which differ from library to library (torch's attention
# on a CPU has an exp of 20 ulp: measured 1.6, and 2.1 over a whole layer): there FlashAttention's rule for backward
# holds, 3, and a defect is thousands of times larger.
UNDECLARED_IN_16_BITS, UNDECLARED_IN_FLOAT32 = 1.15, 3.0


def undeclared(dtype: torch.dtype) -> float:
    """The factor for what results in ``dtype`` may add to the declared plans."""
    return UNDECLARED_IN_FLOAT32 if torch.finfo(dtype).bits >= 32 else UNDECLARED_IN_16_BITS


def students(terms: float) -> float:
    """Student's t for an sd estimated from ``terms``: its first Cornish-Fisher term, Abramowitz and Stegun 26.7.5."""
    return NORMAL + (NORMAL**3 + NORMAL) / (4 * terms)


def norm_excess(terms: Tensor) -> Tensor:
    """How far the norm of ``terms`` independent errors exceeds the root of its expected square: at least 1.

    The upper tail of a chi-square, ``1 + 2 sqrt(x / n) + 2 x / n`` with x = ln(1 / FALSE_ALARMS): Laurent and Massart
    2000 (Ann. Statist. 28(5)), lemma 1. Rounding errors are bounded: their squares have lighter tails than a normal's.
    """
    share = math.log(1 / FALSE_ALARMS) / terms
    return (1 + 2 * torch.sqrt(share) + 2 * share).sqrt()

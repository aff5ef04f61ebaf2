"""Envelopes: the largest error that honest rounding can cause, element by element.

A sum of K terms, each rounded with unit roundoff u, errs by at most ``LAMBDA sqrt(K) u sum|terms|``, in whatever
order it is taken, but for a probability of ``2 exp(-LAMBDA^2 / 2)`` (Higham and Mary 2019, SIAM J. Sci. Comput.
41(5), theorem 2.4; Ipsen and Zhou, arXiv 1906.10465). LAMBDA = 7.5 makes that 1e-12 per element: a run that compares a
million elements raises one false alarm in a million runs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

UNIT_ROUNDOFF_FLOAT32 = 2.0**-24
SMALLEST_NORMAL_FLOAT32 = 2.0**-126
LAMBDA = 7.5

# Roundings of an RMSNorm besides its sum: mean, + eps, reciprocal root (2 ulp on CUDA), two products; one to spare
# for the product with the weight. Relative, so they scale what the projection sums.
_NORM_ROUNDINGS = 8


def normed_projection_envelope(
    normed_BTD: Tensor, weight_ND: Tensor, bias_N: Tensor | None, u: float = UNIT_ROUNDOFF_FLOAT32
) -> Tensor:
    """The envelope, shape [B, T, N], of ``rms_norm(x) W^T + b`` in a precision with unit roundoff ``u``.

    ``normed_BTD`` is the exact norm of x. Two sums over D: the projection's, and the norm's sum of squares, whose
    relative error the square root halves. Adding the bias rounds once, relative to the result. Where every term is
    zero, what is left is underflow: half a smallest normal number per product, so that no envelope is zero.
    """
    D = weight_ND.shape[1]
    roundings = 1.5 * LAMBDA * math.sqrt(D) + _NORM_ROUNDINGS
    magnitude_BTN = normed_BTD.abs() @ weight_ND.abs().T
    result_BTN = magnitude_BTN if bias_N is None else magnitude_BTN + bias_N.abs()
    return u * (roundings * magnitude_BTN + result_BTN) + D * SMALLEST_NORMAL_FLOAT32 / 2


def rope_envelope(
    before_BTHC: Tensor, envelope_BTHC: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, u: float = UNIT_ROUNDOFF_FLOAT32
) -> Tensor:
    """The envelope after half-split RoPE of values ``before_BTHC`` that carry ``envelope_BTHC`` already.

    Each output is ``a cos - b sin``: both inputs' errors, weighted by the tables, and four roundings (table entry,
    two products, their sum).
    """
    cos_BT1R, sin_BT1R = cos_BTR.abs()[:, :, None], sin_BTR.abs()[:, :, None]

    def weighted(z_BTHC: Tensor) -> Tensor:
        a_BTHR, b_BTHR = z_BTHC.chunk(2, -1)
        return torch.cat((a_BTHR * cos_BT1R + b_BTHR * sin_BT1R, b_BTHR * cos_BT1R + a_BTHR * sin_BT1R), -1)

    return weighted(envelope_BTHC) + 4 * u * weighted(before_BTHC.abs())

"""Sums of the oracle's VJPs in other orders, for the legal rounding plans of the stages."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from aprender.transformer.oracle import operators


def linear_in_parts(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None, splits: int) -> Tensor:
    """The oracle's ``linear``, with ``splits`` partial products added up in place: half the calls, for hundreds."""
    K = weight_NK.shape[1]
    first, *others = pairwise([K * i // splits for i in range(splits + 1)])
    x_MK = x.reshape(-1, K)
    y_MN = operators.linear(x_MK[:, : first[1]], weight_NK[:, : first[1]])
    for start, stop in others:
        y_MN.addmm_(x_MK[:, start:stop], weight_NK[:, start:stop].T)
    y = y_MN.view(*x.shape[:-1], -1)
    return y if bias_N is None else y + bias_N


def rms_norm_gradients(x: Tensor, gain_D: Tensor, eps: float, dy: Tensor, splits: int) -> tuple[Tensor, Tensor]:
    """The oracle's dx and dgain, with dgain as ``splits`` partial sums over rows, added in order."""
    dx, dgain = operators.rms_norm_vjp(x, gain_D, eps, dy)
    if splits == 1:
        return dx, dgain
    terms_MD = (dy * operators.rms_norm(x, torch.ones_like(gain_D), eps)).flatten(0, -2)
    total = torch.zeros_like(dgain)
    for part_mD in terms_MD.tensor_split(min(splits, len(terms_MD))):
        total = total + part_mD.sum(0)
    return dx, total


def truncated_product(a_MK: Tensor, b_NK: Tensor, most_parts: int) -> Tensor:
    """``a b^T`` in float32 as tensor cores add it up: 16 products at a time, each sum so far rounded towards zero.

    Fasi, Higham, Mikaitis and Pranesh 2021, "Numerical behavior of NVIDIA tensor cores" (PeerJ Comput. Sci. 7:e330),
    section 4. Long sums have ``most_parts`` larger blocks.
    """
    parts = max(1, min(most_parts, -(-a_MK.shape[1] // 16)))
    total = torch.zeros(len(a_MK), len(b_NK), dtype=torch.float32, device=a_MK.device)
    for a_Mk, b_Nk in zip(a_MK.tensor_split(parts, 1), b_NK.tensor_split(parts, 1), strict=True):
        exact = total.double() + a_Mk.double() @ b_Nk.double().T
        nearest = exact.float()
        beyond = nearest.double().abs() > exact.abs()
        total = torch.where(beyond, torch.nextafter(nearest, torch.zeros_like(nearest)), nearest)
    return total

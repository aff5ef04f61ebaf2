"""The oracle's operators: each a small pure function of tensors, with its vector-Jacobian product right below it.

Only elementary operations (products of matrices, exp, log, sqrt, sums, indexing), in the dtype and on the device of
what they are given. A ``..._vjp`` takes what the forward function took and the gradient of a scalar by its result
(``dy``), and returns the gradient by each differentiable argument; the formulas are the chain rule written out,
checked in the tests by finite differences and by autograd.

Letters in names give shapes: B rows, T query positions, S key positions, D hidden, F feed-forward, V vocabulary, H
query heads, G key/value heads, C channels of a head, R = C/2 rotation pairs, K and N a projection's input and output
width, M rows and positions together.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor


def embed(weight_VD: Tensor, tokens_BT: Tensor) -> Tensor:
    """Look rows up: ``x[b, t] = weight[tokens[b, t]]``. Tokens are int64 in 0..V-1; result x_BTD."""
    return weight_VD[tokens_BT]


def embed_vjp(tokens_BT: Tensor, dx_BTD: Tensor, vocab_size: int) -> Tensor:
    """``dweight[v] = sum of dx[b, t] over all places where token v stands``: shape [V, D].

    A product with a matrix of zeros and ones: sums by scattered addition have no fixed order on a GPU.
    """
    found_U, which_M = torch.unique(tokens_BT.flatten(), return_inverse=True)
    stands_UM = which_M == torch.arange(len(found_U), device=which_M.device)[:, None]
    dweight_VD = dx_BTD.new_zeros(vocab_size, dx_BTD.shape[-1])
    dweight_VD[found_U] = stands_UM.to(dx_BTD.dtype) @ dx_BTD.flatten(0, 1)
    return dweight_VD


def linear(x_BTK: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None, k_splits: int = 1) -> Tensor:
    """Project: ``y = x W^T + b``, the sum over K taken as ``k_splits`` partial products added in order.

    Every number of splits is the same mathematics; in float32 each is another legal order of summation.
    """
    K = weight_NK.shape[1]
    edges = [K * i // k_splits for i in range(k_splits + 1)]
    y_BTN = x_BTK[..., : edges[1]] @ weight_NK[:, : edges[1]].T
    for start, stop in pairwise(edges[1:]):
        y_BTN = y_BTN + x_BTK[..., start:stop] @ weight_NK[:, start:stop].T
    return y_BTN if bias_N is None else y_BTN + bias_N


def linear_vjp(x_BTK: Tensor, weight_NK: Tensor, dy_BTN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``dx = dy W``, ``dW = dy^T x``, ``db = sum dy``, the sums over all rows and positions: (dx_BTK, dW_NK, db_N)."""
    dy_MN, x_MK = dy_BTN.flatten(0, -2), x_BTK.flatten(0, -2)
    return dy_BTN @ weight_NK, dy_MN.T @ x_MK, dy_MN.sum(0)


def rms_norm(x_BTD: Tensor, gain_D: Tensor, eps: float) -> Tensor:
    """Scale by the root mean square over the last axis: ``gain * x / sqrt(mean(x^2) + eps)``.

    Zhang and Sennrich 2019 (arXiv 1910.07467), eq. 4, with eps inside the root as Llama has it.
    """
    return x_BTD / torch.sqrt((x_BTD * x_BTD).mean(-1, keepdim=True) + eps) * gain_D


def rms_norm_vjp(x_BTD: Tensor, gain_D: Tensor, eps: float, dy_BTD: Tensor) -> tuple[Tensor, Tensor]:
    """With ``n = x / rms`` and ``e = gain * dy``: ``dx = (e - n mean(n e)) / rms`` and ``dgain = sum dy n``.

    The second term of dx is the root's own dependence on x; without it the rms would count as a constant.
    Returns (dx_BTD, dgain_D).
    """
    rms_BT1 = torch.sqrt((x_BTD * x_BTD).mean(-1, keepdim=True) + eps)
    n_BTD, e_BTD = x_BTD / rms_BT1, gain_D * dy_BTD
    dx_BTD = (e_BTD - n_BTD * (n_BTD * e_BTD).mean(-1, keepdim=True)) / rms_BT1
    return dx_BTD, (dy_BTD * n_BTD).flatten(0, -2).sum(0)


def softmax(scores: Tensor) -> Tensor:
    """Normalise over the last axis: ``exp(s - max s) / sum exp(s - max s)``; a score of -inf weighs 0.

    A row without one finite score (a query at padding) weighs nothing at all: zeros, not NaN.
    """
    largest = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - torch.where(largest == -math.inf, 0.0, largest))
    total = weights.sum(-1, keepdim=True)
    return weights / torch.where(total == 0, 1.0, total)


def softmax_vjp(weights: Tensor, dweights: Tensor) -> Tensor:
    """``ds_i = p_i (dp_i - sum_j p_j dp_j)``, from the softmax's result p: every score moves every weight."""
    return weights * (dweights - (weights * dweights).sum(-1, keepdim=True))


def sigmoid(z: Tensor) -> Tensor:
    """``1 / (1 + e^-z)``; where e^-z overflows the quotient is 0, as it should be."""
    return 1 / (1 + torch.exp(-z))


def swiglu(gate_BTF: Tensor, up_BTF: Tensor) -> Tensor:
    """Gate: ``silu(gate) * up`` with ``silu(z) = z sigmoid(z)``. Shazeer 2020 (arXiv 2002.05202), sec. 2."""
    return gate_BTF * sigmoid(gate_BTF) * up_BTF


def swiglu_vjp(gate_BTF: Tensor, up_BTF: Tensor, dh_BTF: Tensor) -> tuple[Tensor, Tensor]:
    """``silu'(z) = s (1 + z (1 - s))`` with ``s = sigmoid(z)``: (dgate_BTF, dup_BTF)."""
    s_BTF = sigmoid(gate_BTF)
    dgate_BTF = dh_BTF * up_BTF * s_BTF * (1 + gate_BTF * (1 - s_BTF))
    return dgate_BTF, dh_BTF * gate_BTF * s_BTF


def cross_entropy(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    """``log(sum_v e^(z_v)) - z_target`` in nats per position, shape [T]; no exponent is above 0."""
    largest_T1 = logits_TV.amax(-1, keepdim=True)
    log_sum_T = torch.log(torch.exp(logits_TV - largest_T1).sum(-1)) + largest_T1[:, 0]
    return log_sum_T - logits_TV.gather(-1, targets_T[:, None])[:, 0]


def cross_entropy_vjp(logits_TV: Tensor, targets_T: Tensor, dloss_T: Tensor) -> Tensor:
    """``dz = dloss (softmax(z) - onehot(target))``: shape [T, V]."""
    minus_one_T1 = -torch.ones_like(dloss_T)[:, None]
    return dloss_T[:, None] * softmax(logits_TV).scatter_add(-1, targets_T[:, None], minus_one_T1)

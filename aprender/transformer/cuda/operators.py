"""The operators of the CUDA path, one small class each: an instance is a stage of the model.

An operator holds what it needs and nothing else, and is called with tensors; it never changes them. Letters in
names give shapes: B rows, T positions, D hidden, F feed-forward, V vocabulary, H query heads, G key/value heads, C
channels of a head, R = C/2 rotation pairs, K and N a projection's input and output width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from aprender.errors import AprenderError


@dataclass(slots=True)
class Embedding:
    """Row lookup: tokens_BT -> x_BTD."""

    weight: Tensor  # [V, D]

    def __call__(self, tokens_BT: Tensor) -> Tensor:
        return functional.embedding(tokens_BT, self.weight)


@dataclass(slots=True)
class Linear:
    """``y = x W^T + b``: x_..K -> y_..N. ``bias`` is None where the family has none."""

    weight: Tensor  # [N, K]
    bias: Tensor | None  # [N]

    def __call__(self, x_BTK: Tensor) -> Tensor:
        return functional.linear(x_BTK, self.weight, self.bias)


@dataclass(slots=True)
class RMSNorm:
    """``gain * x / sqrt(mean(x^2) + eps)`` over the last axis: x_BTD -> x_BTD. arXiv 1910.07467."""

    weight: Tensor  # [D]
    eps: float

    def __call__(self, x_BTD: Tensor) -> Tensor:
        return functional.rms_norm(x_BTD, self.weight.shape, self.weight, self.eps)


@dataclass(slots=True)
class Rope:
    """Rotary positions, half-split pairs (r, r + C/2): x_BTHC -> x_BTHC. arXiv 2104.09864.

    Row t of the tables belongs to position t; AprenderError when T exceeds their rows.
    """

    cos: Tensor  # [positions, R]
    sin: Tensor  # [positions, R]

    def __call__(self, x_BTHC: Tensor) -> Tensor:
        T = x_BTHC.shape[1]
        if len(self.cos) < T:
            raise AprenderError(f"{T} positions, but the model was built for at most {len(self.cos)}")
        cos_T1R, sin_T1R = self.cos[:T, None], self.sin[:T, None]
        a_BTHR, b_BTHR = x_BTHC.chunk(2, dim=-1)
        return torch.cat((a_BTHR * cos_T1R - b_BTHR * sin_T1R, b_BTHR * cos_T1R + a_BTHR * sin_T1R), dim=-1)


def rope_tables(
    positions: int, head_dim: int, theta: float, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Tabulate cos_TR and sin_TR of ``t / theta^(2r / head_dim)``: float64 on the CPU, then cast and moved."""
    exponent_R = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    angle_TR = torch.outer(torch.arange(positions, dtype=torch.float64), theta**-exponent_R)
    return angle_TR.cos().to(device, dtype), angle_TR.sin().to(device, dtype)


@dataclass(slots=True)
class CausalAttention:
    """Grouped-query attention: q_BTHC, k_BTGC, v_BTGC -> out_BTHC; query head h reads head h // (H/G)."""

    scale: float

    def __call__(self, q_BTHC: Tensor, k_BTGC: Tensor, v_BTGC: Tensor) -> Tensor:
        out_BHTC = functional.scaled_dot_product_attention(
            q_BTHC.transpose(1, 2),
            k_BTGC.transpose(1, 2),
            v_BTGC.transpose(1, 2),
            is_causal=True,
            scale=self.scale,
            enable_gqa=True,
        )
        return out_BHTC.transpose(1, 2)


@dataclass(slots=True)
class SwiGLU:
    """``silu(gate) * up``: gate_BTF, up_BTF -> x_BTF. arXiv 2002.05202."""

    def __call__(self, gate_BTF: Tensor, up_BTF: Tensor) -> Tensor:
        return functional.silu(gate_BTF) * up_BTF


def next_token_losses(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """``ln(sum_v e^(z_v)) - z_target`` in nats: shape [N].

    Not torch's fused cross_entropy: on a CPU it adds up e^(z_v) one after the other in float32, and on a large
    vocabulary the many small terms are lost beside the large ones (9e-5 nats too low at 151,936 tokens, every time).
    """
    return torch.logsumexp(logits_NV, dim=-1) - logits_NV.gather(-1, targets_N[:, None])[:, 0]

"""One layer of the transformer: forward, keeping what backward needs, and backward from that."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.transformer.config import TransformerConfig
from aprender.transformer.oracle import attention, operators, rope
from aprender.transformer.oracle.parameters import Parameters

Gradients = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Setting:
    """What all layers of one pass share; ``cos_BTR`` and ``sin_BTR`` are the rotary tables of the batch's places."""

    config: TransformerConfig
    cos_BTR: Tensor
    sin_BTR: Tensor
    k_splits: int

    @property
    def scale(self) -> float:
        """What q k^T is multiplied by: ``1 / sqrt(head_dim)``, arXiv 1706.03762, section 3.2.1."""
        return 1 / math.sqrt(self.config.head_dim)


@dataclass(frozen=True, slots=True)
class Trace:
    """What one layer computed. ``k_BSGC`` (rotated) and ``v_BSGC`` are all that was seen, the past before the new."""

    x_BTD: Tensor
    normed_BTD: Tensor  # what the projections of q, k, v read
    projected_q_BTHC: Tensor
    projected_k_BTGC: Tensor
    q_BTHC: Tensor  # what attention reads: after QK-norm and RoPE
    k_BSGC: Tensor
    v_BSGC: Tensor
    allowed_BTS: Tensor
    mixed_BTHC: Tensor  # what attention returns
    middle_BTD: Tensor  # the residual stream between attention and MLP
    mlp_normed_BTD: Tensor
    gate_BTF: Tensor
    up_BTF: Tensor
    out_BTD: Tensor


def forward(
    weights: Parameters,
    setting: Setting,
    x_BTD: Tensor,
    allowed_BTS: Tensor,
    past: tuple[Tensor, Tensor] | None = None,
) -> Trace:
    """``m = x + o_proj(attention(norm(x)))``, ``out = m + mlp(norm(m))``: pre-norm residual blocks as in Llama.

    Touvron et al. 2023 (arXiv 2302.13971), section 2.2. ``past`` holds the keys and values before these positions.
    """
    normed_BTD = norm(weights, setting, "input_layernorm", x_BTD)
    projected_q_BTHC, projected_k_BTGC, v_BTGC = (heads(weights, setting, name, normed_BTD) for name in "qkv")
    q_BTHC = place(weights, setting, "q", projected_q_BTHC)
    k_BTGC = place(weights, setting, "k", projected_k_BTGC)
    k_BSGC, v_BSGC = (k_BTGC, v_BTGC) if past is None else appended(past, k_BTGC, v_BTGC)
    mixed_BTHC = attention.attention(q_BTHC, k_BSGC, v_BSGC, allowed_BTS, setting.scale)
    middle_BTD = x_BTD + project(weights, setting, "self_attn.o_proj", mixed_BTHC.flatten(-2))
    mlp_normed_BTD = norm(weights, setting, "post_attention_layernorm", middle_BTD)
    gate_BTF = project(weights, setting, "mlp.gate_proj", mlp_normed_BTD)
    up_BTF = project(weights, setting, "mlp.up_proj", mlp_normed_BTD)
    out_BTD = middle_BTD + project(weights, setting, "mlp.down_proj", operators.swiglu(gate_BTF, up_BTF))
    return Trace(
        x_BTD, normed_BTD, projected_q_BTHC, projected_k_BTGC, q_BTHC, k_BSGC, v_BSGC, allowed_BTS, mixed_BTHC,
        middle_BTD, mlp_normed_BTD, gate_BTF, up_BTF, out_BTD,
    )  # fmt: skip


def backward(weights: Parameters, setting: Setting, trace: Trace, dout_BTD: Tensor, gradients: Gradients) -> Tensor:
    """Carry the gradient of the loss through the layer: returns dx_BTD and adds every parameter's to ``gradients``.

    Only for a trace without past: no gradient flows into a cache.
    """
    hidden_BTF = operators.swiglu(trace.gate_BTF, trace.up_BTF)
    dhidden_BTF = project_back(weights, "mlp.down_proj", hidden_BTF, dout_BTD, gradients)
    dgate_BTF, dup_BTF = operators.swiglu_vjp(trace.gate_BTF, trace.up_BTF, dhidden_BTF)
    dnormed_BTD = project_back(weights, "mlp.gate_proj", trace.mlp_normed_BTD, dgate_BTF, gradients)
    dnormed_BTD = dnormed_BTD + project_back(weights, "mlp.up_proj", trace.mlp_normed_BTD, dup_BTF, gradients)
    dmiddle_BTD = dout_BTD + norm_back(
        weights, setting, "post_attention_layernorm", trace.middle_BTD, dnormed_BTD, gradients
    )

    dmixed_BTN = project_back(weights, "self_attn.o_proj", trace.mixed_BTHC.flatten(-2), dmiddle_BTD, gradients)
    dq_BTHC, dk_BTGC, dv_BTGC = attention.attention_vjp(
        trace.q_BTHC, trace.k_BSGC, trace.v_BSGC, trace.allowed_BTS, setting.scale, dmixed_BTN.view_as(trace.mixed_BTHC)
    )
    dq_BTHC = place_back(weights, setting, "q", trace.projected_q_BTHC, dq_BTHC, gradients)
    dk_BTGC = place_back(weights, setting, "k", trace.projected_k_BTGC, dk_BTGC, gradients)
    dprojected = zip("qkv", (dq_BTHC, dk_BTGC, dv_BTGC), strict=True)
    dnormed_BTD = heads_back(weights, setting, trace.normed_BTD, dprojected, gradients)
    return dmiddle_BTD + norm_back(weights, setting, "input_layernorm", trace.x_BTD, dnormed_BTD, gradients)


def project(weights: Parameters, setting: Setting, name: str, x_BTK: Tensor) -> Tensor:
    """A projection without bias: y_BTN."""
    return operators.linear(x_BTK, weights[f"{name}.weight"], None, setting.k_splits)


def project_back(weights: Parameters, name: str, x_BTK: Tensor, dy_BTN: Tensor, gradients: Gradients) -> Tensor:
    """Through ``project``: dx_BTK."""
    dx_BTK, gradients[f"{weights.prefix}{name}.weight"], _ = operators.linear_vjp(
        x_BTK, weights[f"{name}.weight"], dy_BTN
    )
    return dx_BTK


def norm(weights: Parameters, setting: Setting, name: str, x: Tensor) -> Tensor:
    """RMSNorm over the last axis with the gain called ``name``."""
    return operators.rms_norm(x, weights[f"{name}.weight"], setting.config.rms_norm_eps)


def norm_back(weights: Parameters, setting: Setting, name: str, x: Tensor, dy: Tensor, gradients: Gradients) -> Tensor:
    """Through ``norm``: dx."""
    dx, gradients[f"{weights.prefix}{name}.weight"] = operators.rms_norm_vjp(
        x, weights[f"{name}.weight"], setting.config.rms_norm_eps, dy
    )
    return dx


def heads(weights: Parameters, setting: Setting, kind: str, normed_BTD: Tensor) -> Tensor:
    """The projection of ``kind`` q, k or v, with its bias where the family has one, as heads: q_BTHC or k_BTGC."""
    name = f"self_attn.{kind}_proj"
    bias_N = weights[f"{name}.bias"] if setting.config.qkv_bias else None
    y_BTN = operators.linear(normed_BTD, weights[f"{name}.weight"], bias_N, setting.k_splits)
    return y_BTN.reshape(*y_BTN.shape[:2], -1, setting.config.head_dim)


def heads_back(
    weights: Parameters,
    setting: Setting,
    normed_BTD: Tensor,
    dprojected: Iterable[tuple[str, Tensor]],
    gradients: Gradients,
) -> Tensor:
    """Through ``heads`` of q, k and v, which read the same input: dnormed_BTD is the sum of three."""
    dnormed_BTD = torch.zeros_like(normed_BTD)
    for kind, dheads_BTHC in dprojected:
        name = f"self_attn.{kind}_proj"
        dx_BTD, dweight_ND, dbias_N = operators.linear_vjp(
            normed_BTD, weights[f"{name}.weight"], dheads_BTHC.flatten(-2)
        )
        gradients[f"{weights.prefix}{name}.weight"] = dweight_ND
        if setting.config.qkv_bias:
            gradients[f"{weights.prefix}{name}.bias"] = dbias_N
        dnormed_BTD = dnormed_BTD + dx_BTD
    return dnormed_BTD


def place(weights: Parameters, setting: Setting, kind: str, heads_BTHC: Tensor) -> Tensor:
    """Give q or k its position: an RMSNorm over each head where the family has it (Qwen3), then RoPE."""
    if setting.config.qk_norm:
        heads_BTHC = norm(weights, setting, f"self_attn.{kind}_norm", heads_BTHC)
    return rope.rotate(heads_BTHC, setting.cos_BTR, setting.sin_BTR)


def place_back(
    weights: Parameters, setting: Setting, kind: str, heads_BTHC: Tensor, dplaced_BTHC: Tensor, gradients: Gradients
) -> Tensor:
    """Through ``place``: dheads_BTHC."""
    dheads_BTHC = rope.rotate_vjp(dplaced_BTHC, setting.cos_BTR, setting.sin_BTR)
    if setting.config.qk_norm:
        return norm_back(weights, setting, f"self_attn.{kind}_norm", heads_BTHC, dheads_BTHC, gradients)
    return dheads_BTHC


def appended(past: tuple[Tensor, Tensor], k_BTGC: Tensor, v_BTGC: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of the past with the new ones after them: k_BSGC and v_BSGC."""
    return torch.cat((past[0], k_BTGC), 1), torch.cat((past[1], v_BTGC), 1)

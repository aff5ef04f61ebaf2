"""Planted defects of the other operators: most of them pass a loss gate and every single-token test."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from aprender.falsify.probe import Defects
from aprender.transformer.cuda.ops import Attention, Linear, RMSNorm, Rope
from aprender.transformer.cuda.rope_tables import rope_tables
from falsifiers.planting import Planting, everywhere, stages_wrong
from falsifiers.projections import WrongParts
from falsifiers.transformer_system import TransformerUnderContract

DEFECTS = Defects()


@DEFECTS.plant("projection_wrongly_transposed")
def projection_wrongly_transposed(system: TransformerUnderContract) -> Planting:
    """q_proj's buffer [N, K] is read as [K, N] and transposed: right only for a square symmetric matrix."""

    def compute(projection: Linear, x_BTK: Tensor) -> Tensor:
        N, K = projection.weight.shape
        return functional.linear(x_BTK, projection.weight.reshape(K, N).T, projection.bias)

    return everywhere(system, "qkv_proj", lambda original: WrongParts(original, ("q_proj",), compute))


def _attention_wrong(system: TransformerUnderContract, mask_of: Callable[[int], Tensor]) -> Planting:
    """Attention under the boolean mask ``mask_of(T)``: True where query t may look at key s."""

    def wrong(original: Attention) -> Callable[..., Tensor]:
        def stage(q_BTHC: Tensor, k_BTGC: Tensor, v_BTGC: Tensor, *places: Tensor) -> Tensor:
            q, k, v = (x.transpose(1, 2) for x in (q_BTHC, k_BTGC, v_BTGC))
            mask_TT = mask_of(q.shape[2]).to(q.device)
            out_BHTC = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask_TT, scale=original.scale, enable_gqa=True
            )
            return out_BHTC.transpose(1, 2)

        return stage

    return everywhere(system, "attention", wrong)


@DEFECTS.plant("no_causal_mask")
def no_causal_mask(system: TransformerUnderContract) -> Planting:
    """Every position sees the whole row."""
    return _attention_wrong(system, lambda T: torch.ones(T, T, dtype=torch.bool))


@DEFECTS.plant("mask_leaks_the_next_token")
def mask_leaks_the_next_token(system: TransformerUnderContract) -> Planting:
    """The mask's diagonal is off by one: each position sees the token that it must predict."""
    return _attention_wrong(system, lambda T: torch.ones(T, T, dtype=torch.bool).tril(diagonal=1))


@DEFECTS.plant("gqa_heads_tiled")
def gqa_heads_tiled(system: TransformerUnderContract) -> Planting:
    """Query head h reads key/value head h % G instead of h // (H / G)."""

    def wrong(original: Attention) -> Callable[..., Tensor]:
        def stage(q_BTHC: Tensor, k_BTGC: Tensor, v_BTGC: Tensor, *places: Tensor) -> Tensor:
            ratio = q_BTHC.shape[2] // k_BTGC.shape[2]
            return original(q_BTHC, k_BTGC.repeat(1, 1, ratio, 1), v_BTGC.repeat(1, 1, ratio, 1), *places)

        return stage

    return everywhere(system, "attention", wrong)


@DEFECTS.plant("softmax_scale_of_hidden_size")
def softmax_scale_of_hidden_size(system: TransformerUnderContract) -> Planting:
    """1/sqrt(hidden_size / heads) where head_dim is meant, or 1/sqrt(hidden_size) where the two agree."""
    config = system.model.config
    guessed = config.hidden_size / config.num_attention_heads
    width = guessed if guessed != config.head_dim else config.hidden_size
    return everywhere(system, "attention", lambda original: Attention(width**-0.5, original.window))


@DEFECTS.plant("rope_interleaved_pairs")
def rope_interleaved_pairs(system: TransformerUnderContract) -> Planting:
    """Neighbouring channels are rotated as pairs, under weights that were trained with half-split pairs."""

    def wrong(original: Rope) -> Callable[[Tensor, Tensor], Tensor]:
        def stage(x_BTHC: Tensor, positions_BT: Tensor) -> Tensor:
            C = x_BTHC.shape[-1]
            to_pairs = torch.arange(C, device=x_BTHC.device).reshape(C // 2, 2).T.flatten()
            rotated_BTHC: Tensor = original(x_BTHC[..., to_pairs], positions_BT)
            return rotated_BTHC[..., to_pairs.argsort()]

        return stage

    return stages_wrong(system, ("biased", "bias_free"), ("q_rope", "k_rope"), lambda original, _: wrong(original))


@DEFECTS.plant("rope_theta_not_from_config")
def rope_theta_not_from_config(system: TransformerUnderContract) -> Planting:
    """A theta compiled into the kernel: 1e4, or 5e5 where the checkpoint itself says 1e4."""
    config = system.model.config
    theta = 5e5 if math.isclose(config.rope_theta, 1e4, rel_tol=1e-3) else 1e4

    def wrong(original: Rope, _: int) -> Rope:
        return Rope(*rope_tables(replace(config, rope_theta=theta), len(original.cos), system.device))

    return stages_wrong(system, ("biased", "bias_free"), ("q_rope", "k_rope"), wrong)


@DEFECTS.plant("rms_norm_eps_not_from_config")
def rms_norm_eps_not_from_config(system: TransformerUnderContract) -> Planting:
    """An eps compiled into the kernel: 1e-6, or 1e-5 where the checkpoint itself says 1e-6."""
    # GGUF keeps eps in float32: 1e-6 comes back as 9.9999999747e-7
    eps = 1e-5 if math.isclose(system.model.config.rms_norm_eps, 1e-6, rel_tol=1e-3) else 1e-6
    return everywhere(system, "input_layernorm", lambda original: RMSNorm(original.weight, eps))


@DEFECTS.plant("gelu_for_silu")
def gelu_for_silu(system: TransformerUnderContract) -> Planting:
    """GELU gates the MLP."""
    return everywhere(system, "swiglu", lambda _: lambda gate_BTF, up_BTF: functional.gelu(gate_BTF) * up_BTF)

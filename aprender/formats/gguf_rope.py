"""Scaling of RoPE in GGUF files.

linear and YaRN are metadata. Llama 3's is not: converters compute one factor to each frequency and store them as the
tensor rope_freqs.weight, so its parameters are recognised here by computing the factors from those of every published
Llama 3 model and comparing.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence

from aprender.formats.fields import Fields
from aprender.formats.rope_scaling import BETA_FAST, BETA_SLOW, yarn_attention_factor
from aprender.transformer.config import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling

RopeFactors = Sequence[float]

# Llama 3.1, 3.2 and 3.3 all have these; their factors (8 and 32) are the largest of the stored ones.
_LOW, _HIGH, _ORIGINAL_LENGTH = 1.0, 4.0, 8192
_KEYS = {"type", "factor", "original_context_length", "finetuned", "attn_factor", "yarn_attn_factor"}
_KEYS |= {"yarn_beta_fast", "yarn_beta_slow"}
_ROUNDING = 1e-5  # converters compute the factors in float32


def read_scaling(
    fields: Fields, architecture: str, theta: float, head_dim: int, rope_factors: RopeFactors | None
) -> RopeScaling | None:
    """The scaling that the metadata and the values of rope_freqs.weight state. Notes in ``fields`` what is wrong."""
    prefix = f"{architecture}.rope.scaling"
    for key in fields.keys_after(f"{prefix}."):
        if key.removeprefix(f"{prefix}.") not in _KEYS:
            fields.refuse(f"{key} is {reprlib.repr(fields.value(key))}, which is not supported")
    kind = fields.text(f"{prefix}.type") if f"{prefix}.type" in fields else "none"
    if kind not in ("none", "linear", "yarn"):
        fields.refuse(f"{prefix}.type is {reprlib.repr(kind)}, which is not supported: none, linear and yarn are")
        return None
    old_key = f"{architecture}.rope.scale_linear"
    factor_key = old_key if old_key in fields and f"{prefix}.factor" not in fields else f"{prefix}.factor"
    if rope_factors is not None:
        return _llama3(fields, f"{architecture} {kind}", rope_factors, theta, head_dim)
    if kind == "none":
        if factor_key in fields and fields.number(factor_key) not in (0.0, 1.0):
            fields.refuse(f"{factor_key} is {fields.value(factor_key)}, but {prefix}.type doesn't say how to scale")
        return None
    factor = fields.number(factor_key)
    if kind == "linear":
        return LinearScaling(factor)
    return _yarn(fields, prefix, factor)


def _yarn(fields: Fields, prefix: str, factor: float) -> YarnScaling:
    """llama.cpp multiplies cos and sin by the paper's factor and by two of its own, which are 1 where absent."""

    def optional(key: str, defined: float) -> float:
        return fields.number(f"{prefix}.{key}") if f"{prefix}.{key}" in fields else defined

    return YarnScaling(
        factor=factor,
        beta_fast=optional("yarn_beta_fast", BETA_FAST),
        beta_slow=optional("yarn_beta_slow", BETA_SLOW),
        attention_factor=yarn_attention_factor(factor)
        * optional("attn_factor", 1.0)
        * optional("yarn_attn_factor", 1.0),
        truncate=True,  # llama.cpp has no other
        original_max_position_embeddings=fields.integer(f"{prefix}.original_context_length"),
    )


def _llama3(fields: Fields, kind: str, factors: RopeFactors, theta: float, head_dim: int) -> Llama3Scaling | None:
    if kind != "llama none":
        fields.refuse(f"rope_freqs.weight rescales RoPE, which a file of the kind {kind} has no place for")
    if len(factors) != head_dim // 2 or not theta > 1 or not all(1 <= factor < 1e6 for factor in factors):
        fields.refuse(f"rope_freqs.weight has {len(factors)} factors that aren't those of a llama3 scaling")
        return None
    scaling = Llama3Scaling(max(factors), _LOW, _HIGH, _ORIGINAL_LENGTH)
    expected = llama3_factors(scaling, theta, head_dim)
    if any(abs(a / b - 1) > _ROUNDING for a, b in zip(factors, expected, strict=True)):
        fields.refuse("rope_freqs.weight rescales RoPE in a way that isn't any published Llama 3 model's")
        return None
    return scaling


def llama3_factors(scaling: Llama3Scaling, theta: float, head_dim: int) -> list[float]:
    """What each frequency is divided by. transformers/modeling_rope_utils.py, _compute_llama3_parameters."""
    factors = []
    for pair in range(head_dim // 2):
        wavelength = 2 * math.pi * theta ** (2 * pair / head_dim)
        turns = scaling.original_max_position_embeddings / wavelength
        share = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        kept = min(max(share, 0.0), 1.0)
        factors.append(1 / ((1 - kept) / scaling.factor + kept))
    return factors

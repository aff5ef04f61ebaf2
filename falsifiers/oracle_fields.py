"""Every field of a configuration, perturbed: what the oracle must not take from anywhere but the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

from aprender.transformer.config import LinearScaling, Llama3Scaling, TransformerConfig, YarnScaling
from falsifiers.oracle_cases import CASES, Case

# Shapes of tensors follow from these: a wrong one can't be overlooked. The family is a name, and changes nothing.
SIZES_AND_NAMES = {
    "family",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
}
LENGTHS = ((131,), (67, 59))  # longer than every window and every context that RoPE is scaled from
SCALINGS = (LinearScaling, Llama3Scaling, YarnScaling)


class Perturbation(NamedTuple):
    """``field`` of the configuration of ``case`` changed; ``perturbed`` is the case with the other configuration."""

    field: str
    case: Case
    perturbed: Case


def fields_expected() -> set[str]:
    """Each field of TransformerConfig that is no size and no name, and each of every RoPE scaling."""
    own = {field.name for field in fields(TransformerConfig)} - SIZES_AND_NAMES
    return own | {f"{scaling.__name__}.{field.name}" for scaling in SCALINGS for field in fields(scaling)}


def _perturbed(field: str, case: str, **changes: Any) -> Perturbation:
    before = replace(CASES[case], lengths=LENGTHS)
    return Perturbation(field, before, replace(before, config=replace(before.config, **changes)))


def _scaled(case: str, changes: Mapping[str, Any]) -> list[Perturbation]:
    scaling: Any = CASES[case].config.rope_scaling
    return [
        _perturbed(f"{type(scaling).__name__}.{field}", case, rope_scaling=replace(scaling, **{field: value}))
        for field, value in changes.items()
    ]


PERTURBATIONS = [
    _perturbed("rms_norm_eps", "qwen2", rms_norm_eps=4e-4),
    _perturbed("rope_theta", "qwen2", rope_theta=6e4),
    _perturbed("rope_scaling", "llama3-scaled", rope_scaling=None),
    _perturbed("windows", "qwen3-yarn-windows", windows=(None, 54)),
    _perturbed("windows", "qwen3-yarn-windows", windows=(53, 53)),
    _perturbed("tie_word_embeddings", "qwen2-tied", tie_word_embeddings=False),
    _perturbed("tie_word_embeddings", "qwen2", tie_word_embeddings=True),
    # Without what makes it its family, a Qwen is what Mistral is without windows.
    _perturbed("qkv_bias", "qwen2", qkv_bias=False, family="mistral"),
    _perturbed("qk_norm", "qwen3", qk_norm=False, family="mistral"),
    *_scaled("llama-linear", {"factor": 2.0}),
    *_scaled(
        "llama3-scaled",
        {"factor": 5.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 56},
    ),
    *_scaled(
        "qwen3-yarn-windows",
        {
            "factor": 4.0,
            "beta_fast": 7.0,
            "beta_slow": 0.6,
            "attention_factor": 0.9,
            "truncate": True,
            "original_max_position_embeddings": 90,
        },
    ),
]

"""The families of models that can be read, and why others can't."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """What all models of a Hugging Face ``model_type`` have in common.

    ``head_dim_from_hidden``: Hugging Face defines an absent head_dim as hidden_size / num_attention_heads.
    """

    qkv_bias: bool
    qk_norm: bool
    head_dim_from_hidden: bool


FAMILIES = {
    "llama": Family(qkv_bias=False, qk_norm=False, head_dim_from_hidden=True),
    "mistral": Family(qkv_bias=False, qk_norm=False, head_dim_from_hidden=True),
    "qwen2": Family(qkv_bias=True, qk_norm=False, head_dim_from_hidden=True),
    "qwen3": Family(qkv_bias=False, qk_norm=True, head_dim_from_hidden=False),
}
GGUF_ARCHITECTURES = ("llama", "qwen2", "qwen3")  # mistral's files say llama

_EXPERTS = "mixture-of-experts layers (a router and expert weights)"
_LINEAR = "linear attention or state-space layers (recurrent state instead of keys and values)"
_MISSING = {
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe", "qwen2moe", "qwen3moe", "deepseek_v3", "olmoe"), _EXPERTS),
    **dict.fromkeys(("gpt_oss", "llama4", "llama4_text", "phimoe", "glm4_moe", "minimax", "dbrx", "arctic"), _EXPERTS),
    **dict.fromkeys(("qwen3_next", "qwen3next", "mamba", "mamba2", "falcon_mamba", "jamba", "bamba"), _LINEAR),
    **dict.fromkeys(("rwkv", "rwkv6", "rwkv7", "zamba", "zamba2", "recurrent_gemma", "lfm2", "kimi_linear"), _LINEAR),
}
# Keys of config.json that only such models have, whatever they call themselves.
_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok", "moe_intermediate_size")
_LINEAR_KEYS = ("linear_num_value_heads", "linear_conv_kernel_dim", "mamba_d_state", "state_size", "ssm_cfg")


def refusal(key: str, name: object, supported: Iterable[str], keys: Iterable[str] = ()) -> str | None:
    """Why a model whose ``key`` is ``name`` can't be read, or None. ``keys`` are those of its configuration."""
    keys = set(keys)
    lacks = _MISSING.get(name) if isinstance(name, str) else None
    if lacks is None and (found := [k for k in (*_EXPERT_KEYS, *_LINEAR_KEYS) if k in keys]):
        lacks = f"{_EXPERTS if found[0] in _EXPERT_KEYS else _LINEAR}, which {found[0]} asks for"
    if lacks is not None:
        return f"{key} is {reprlib.repr(name)}: not supported, this transformer has no {lacks}"
    if not isinstance(name, str) or name not in supported:
        *others, last = sorted(supported)
        return f"{key} is {reprlib.repr(name)}; supported are {', '.join(others)} and {last}"
    return None

"""TransformerConfig -> the values of config.json, as transformers 5 writes them."""

from __future__ import annotations

from typing import Any

from aprender.errors import FormatError
from aprender.transformer.config import LinearScaling, Llama3Scaling, RopeScaling, TransformerConfig, YarnScaling

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)


def config_values(config: TransformerConfig) -> dict[str, Any]:
    """Every value that ``huggingface.config_from_values`` needs to give ``config`` back."""
    return {
        "architectures": [_ARCHITECTURES[config.family]],
        "model_type": config.family,
        "hidden_act": "silu",
        **{name: getattr(config, name) for name in _SIZES},
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": {"rope_theta": config.rope_theta, **rope_values(config.rope_scaling)},
        **window_values(config),
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def rope_values(scaling: RopeScaling | None) -> dict[str, Any]:
    """The entries of rope_parameters for a scaling, theta excepted."""
    if scaling is None:
        return {"rope_type": "default"}
    kind = {LinearScaling: "linear", Llama3Scaling: "llama3", YarnScaling: "yarn"}[type(scaling)]
    return {"rope_type": kind, **{name: getattr(scaling, name) for name in scaling.__slots__}}


def window_values(config: TransformerConfig) -> dict[str, Any]:
    """The keys that say which layers have a sliding window. Raises FormatError where they can't say it."""
    windows = {window for window in config.windows if window is not None}
    uniform = len(set(config.windows)) == 1
    if len(windows) > 1 or (windows and config.family == "llama") or (config.family == "mistral" and not uniform):
        raise FormatError(f"config.json has no way to give a {config.family} model the windows {config.windows}")
    window = next(iter(windows), None)
    if config.family == "mistral":
        return {"sliding_window": window}
    if config.family == "llama":
        return {}
    types = ["full_attention" if window is None else "sliding_attention" for window in config.windows]
    return {"use_sliding_window": window is not None, "sliding_window": window, "layer_types": types}

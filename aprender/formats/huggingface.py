"""config.json of a Hugging Face model folder -> TransformerConfig. What isn't implemented is refused, never ignored."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path

from aprender.errors import FormatError
from aprender.formats.families import FAMILIES, Family, refusal
from aprender.formats.fields import Fields
from aprender.formats.json_text import read_json_object
from aprender.formats.rope_scaling import read_rope
from aprender.formats.windows import read_windows
from aprender.transformer.config import TransformerConfig

# Absent, null or false means that the feature is off, in every version of transformers that wrote these keys.
_FEATURES_NOT_SUPPORTED = {
    "attention_bias": "it also gives o_proj a bias, which this transformer has no place for",
    "mlp_bias": "gate_proj, up_proj and down_proj have no biases here",
}


def read_config(path: Path) -> TransformerConfig:
    """Read the config.json at ``path``: families llama (SmolLM2 too), mistral, qwen2 and qwen3.

    Only what Hugging Face defines may be absent: ``head_dim`` is then ``hidden_size / num_attention_heads`` (not in
    qwen3), and see ``rope_scaling`` and ``windows``. Raises FormatError, naming every missing key, wrong type and
    unsupported feature at once.
    """
    return config_from_values(str(path), read_json_object(path))


def config_from_values(where: str, values: Mapping[str, object]) -> TransformerConfig:
    """The configuration that config.json's ``values`` state; ``where`` begins every message. See ``read_config``."""
    name = values.get("model_type")
    if reason := refusal("model_type", name, FAMILIES, (key for key, value in values.items() if value)):
        raise FormatError(f"{where}: {reason}")
    family_name = str(name)
    family = FAMILIES[family_name]
    nested = {
        f"{key}.{entry}": value
        for key in ("rope_parameters", "rope_scaling")
        if isinstance(entries := values.get(key), dict)
        for entry, value in entries.items()
    }
    fields = Fields(where, {**values, **nested})
    _refuse_unsupported(fields, values)
    layers = fields.layers("num_hidden_layers")
    sizes = {
        key: fields.integer(key)
        for key in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    }
    head_dim = _head_dim(fields, family, sizes)
    rms_norm_eps = fields.number("rms_norm_eps")
    rope = read_rope(fields, values)
    tied = fields.boolean("tie_word_embeddings")
    windows = read_windows(fields, values, family_name, layers)
    fields.check()
    try:
        return TransformerConfig(
            family=family_name,
            num_hidden_layers=layers,
            head_dim=head_dim,
            rms_norm_eps=rms_norm_eps,
            rope_theta=rope.theta,
            rope_scaling=rope.scaling,
            windows=windows,
            tie_word_embeddings=tied,
            qkv_bias=family.qkv_bias,
            qk_norm=family.qk_norm,
            **sizes,
        )
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from error


def _refuse_unsupported(fields: Fields, values: Mapping[str, object]) -> None:
    for key, reason in _FEATURES_NOT_SUPPORTED.items():
        if values.get(key) not in (None, False):
            fields.refuse(f"{key} is {reprlib.repr(values[key])}, which is not supported: {reason}")
    activation = fields.text("hidden_act")
    if activation not in ("", "silu"):
        fields.refuse(f"hidden_act is {reprlib.repr(activation)}, only silu is supported")


def _head_dim(fields: Fields, family: Family, sizes: Mapping[str, int]) -> int:
    if "head_dim" in fields or not family.head_dim_from_hidden:
        return fields.integer("head_dim")
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    if heads < 1:  # missing or wrong, which is noted already or refused by the configuration
        return 2
    if hidden % heads:
        fields.refuse(f"head_dim is absent, and hidden_size ({hidden}) is no multiple of num_attention_heads ({heads})")
    return hidden // heads

"""config.json of a Hugging Face model folder -> TransformerConfig. What isn't implemented is refused, never ignored."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path

from aprender.errors import FormatError
from aprender.formats.fields import Fields
from aprender.transformer.config import TransformerConfig

QKV_BIAS = {"qwen2": True, "llama": False}

# Absent, null or false means that the feature is off, in every version of transformers that wrote these keys.
_FEATURES_NOT_SUPPORTED = {
    "qwen2": {"use_sliding_window": "attention here always reaches back to the first token"},
    "llama": {
        "attention_bias": "it also gives o_proj a bias, which this transformer has no place for",
        "mlp_bias": "gate_proj, up_proj and down_proj have no biases here",
    },
}


def read_config(path: Path) -> TransformerConfig:
    """Read the config.json at ``path``.

    Only ``head_dim`` may be absent: Hugging Face defines it then as ``hidden_size / num_attention_heads``.
    Raises FormatError, naming every missing key, wrong type and unsupported feature at once.
    """
    values = read_json_object(path)
    family = values.get("model_type")
    if not isinstance(family, str) or family not in QKV_BIAS:
        raise FormatError(
            f"{path}: model_type is {reprlib.repr(family)}; supported are {' and '.join(sorted(QKV_BIAS))}"
        )
    rope_parameters = values.get("rope_parameters")
    if isinstance(rope_parameters, dict):
        values = {**values, **{f"rope_parameters.{key}": value for key, value in rope_parameters.items()}}
    fields = Fields(str(path), values)
    _refuse_unsupported(fields, values, family)
    sizes = {
        name: fields.integer(name)
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_attention_heads",
            "num_key_value_heads",
        )
    }
    sizes["num_hidden_layers"] = fields.layers("num_hidden_layers")
    stated_head_dim = fields.integer("head_dim") if "head_dim" in fields else None
    rms_norm_eps = fields.number("rms_norm_eps")
    rope_theta = _rope_theta(fields, values)
    tied = fields.boolean("tie_word_embeddings")
    fields.check()
    head_dim = _default_head_dim(path, sizes) if stated_head_dim is None else stated_head_dim
    try:
        return TransformerConfig(
            family=family,
            head_dim=head_dim,
            rms_norm_eps=rms_norm_eps,
            rope_theta=rope_theta,
            rope_scaling=None,
            windows=(None,) * sizes["num_hidden_layers"],
            tie_word_embeddings=tied,
            qkv_bias=QKV_BIAS[family],
            qk_norm=False,
            **sizes,
        )
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def read_json_object(path: Path) -> dict[str, object]:
    """The JSON object in the file at ``path``. Raises FormatError for anything else, a repeated key included."""

    def without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len({key for key, _ in pairs}) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
        return dict(pairs)

    try:
        values = json.loads(path.read_bytes(), object_pairs_hook=without_repeats)
    except OSError as error:
        raise FormatError(f"{path}: can't be read ({error.strerror}); check its permissions") from error
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, a repeated key, or nested without end
        raise FormatError(f"{path}: is not valid JSON ({error}); fetch the file again") from error
    if not isinstance(values, dict):
        raise FormatError(f"{path}: holds no JSON object but {reprlib.repr(values)}; fetch the file again")
    return values


def _refuse_unsupported(fields: Fields, values: dict[str, object], family: str) -> None:
    for key, reason in _FEATURES_NOT_SUPPORTED[family].items():
        if values.get(key) not in (None, False):
            fields.refuse(f"{key} is {reprlib.repr(values[key])}, which is not supported: {reason}")
    activation = fields.text("hidden_act")
    if activation not in ("", "silu"):
        fields.refuse(f"hidden_act is {reprlib.repr(activation)}, only silu is supported")
    layer_types = values.get("layer_types")
    if layer_types is not None and (
        not isinstance(layer_types, list) or any(kind != "full_attention" for kind in layer_types)
    ):
        fields.refuse(f"layer_types is {reprlib.repr(layer_types)}, only full_attention is supported")
    if values.get("partial_rotary_factor") not in (None, 1.0):
        fields.refuse(f"partial_rotary_factor is {reprlib.repr(values['partial_rotary_factor'])}, must be 1")
    scaling = values.get("rope_scaling")
    if scaling is not None and not (isinstance(scaling, dict) and not _scaling_entries(scaling)):
        fields.refuse(f"rope_scaling is {reprlib.repr(scaling)}, which is not supported: RoPE is unscaled here")


def _scaling_entries(rope: dict[str, object]) -> dict[str, object]:
    """The entries that ask for more than plain RoPE."""
    plain = {"rope_type": "default", "type": "default", "rope_theta": rope.get("rope_theta")}
    return {key: value for key, value in rope.items() if value is not None and value != plain.get(key)}


def _rope_theta(fields: Fields, values: dict[str, object]) -> float:
    """RoPE's theta, from ``rope_parameters`` (transformers 5) or the top level. If both state it, they must agree."""
    rope = values.get("rope_parameters")
    if rope is None:
        return fields.number("rope_theta")
    if not isinstance(rope, dict):
        fields.refuse(f"rope_parameters is {reprlib.repr(rope)}, must be an object")
        return 0.0
    fields.text("rope_parameters.rope_type")
    if scaled := _scaling_entries(rope):
        fields.refuse(f"rope_parameters has {reprlib.repr(scaled)}, which is not supported: RoPE is unscaled here")
    theta = fields.number("rope_parameters.rope_theta")
    if "rope_theta" in fields and fields.number("rope_theta") != theta:
        fields.refuse("rope_theta and rope_parameters.rope_theta differ: only one can be right")
    return theta


def _default_head_dim(path: Path, sizes: dict[str, int]) -> int:
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    if heads < 1 or hidden % heads:
        raise FormatError(
            f"{path}: head_dim is absent, and hidden_size ({hidden}) is no multiple of num_attention_heads ({heads})"
        )
    return hidden // heads

"""Planted defects of configurations: a value that doesn't come from the file."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from aprender.falsify.probe import Defects
from aprender.formats import apr_metadata, gguf_metadata, huggingface, rope_scaling
from aprender.formats.fields import Fields
from aprender.transformer.config import LinearScaling, TransformerConfig, YarnScaling
from falsifiers.weight_system import WeightLoading

Planting = Generator[None]
DEFECTS = Defects()


def _made_otherwise(**fixed: Any) -> Planting:
    """Every reader makes its configuration with these values, whatever the file says."""

    def make(**values: Any) -> TransformerConfig:
        return TransformerConfig(**(values | {k: v(values) if callable(v) else v for k, v in fixed.items()}))

    with ExitStack() as planted:
        for module in (huggingface, gguf_metadata):
            planted.enter_context(patch.object(module, "TransformerConfig", make))
        yield


@DEFECTS.plant("eps_default")
def eps_default(_: WeightLoading) -> Planting:
    """1e-6, because most files say so."""
    return _made_otherwise(rms_norm_eps=1e-6)


@DEFECTS.plant("theta_default")
def theta_default(_: WeightLoading) -> Planting:
    """1e4, as in the paper."""
    return _made_otherwise(rope_theta=1e4)


@DEFECTS.plant("head_dim_default")
def head_dim_default(_: WeightLoading) -> Planting:
    """hidden_size / num_attention_heads, though the file states another."""
    return _made_otherwise(head_dim=lambda v: max(2, v["hidden_size"] // v["num_attention_heads"] // 2 * 2))


@DEFECTS.plant("kv_heads_alias_ignored")
def kv_heads_alias_ignored(_: WeightLoading) -> Planting:
    """As many key heads as query heads: the grouped-query count goes by another name."""
    return _made_otherwise(num_key_value_heads=lambda v: v["num_attention_heads"])


@DEFECTS.plant("tie_ignored")
def tie_ignored(_: WeightLoading) -> Planting:
    """No model is tied."""
    return _made_otherwise(tie_word_embeddings=False)


@DEFECTS.plant("rope_scaling_ignored")
def rope_scaling_ignored(_: WeightLoading) -> Planting:
    """RoPE is plain, whatever the file asks for."""
    return _made_otherwise(rope_scaling=None)


@DEFECTS.plant("windows_ignored")
def windows_ignored(_: WeightLoading) -> Planting:
    """Attention always reaches back to the first token."""
    return _made_otherwise(windows=lambda v: (None,) * v["num_hidden_layers"])


@DEFECTS.plant("windows_in_all_layers")
def windows_in_all_layers(_: WeightLoading) -> Planting:
    """max_window_layers and layer_types are ignored."""
    return _made_otherwise(windows=lambda v: (next((w for w in v["windows"] if w), None),) * v["num_hidden_layers"])


@DEFECTS.plant("qk_norm_ignored")
def qk_norm_ignored(_: WeightLoading) -> Planting:
    """A qwen3 model without its norms of Q and K."""
    return _made_otherwise(qk_norm=False)


@DEFECTS.plant("wrong_architecture_stamp")
def wrong_architecture_stamp(_: WeightLoading) -> Planting:
    """Every model is a llama: no biases, no norms of Q and K."""
    return _made_otherwise(family="llama", qkv_bias=False, qk_norm=False)


@DEFECTS.plant("default_tiny_configuration")
def default_tiny_configuration(_: WeightLoading) -> Planting:
    """The file's sizes are ignored for those that somebody tested with."""
    return _made_otherwise(hidden_size=64, intermediate_size=128)


@DEFECTS.plant("stale_configuration")
def stale_configuration(_: WeightLoading) -> Planting:
    """The first configuration that was read is kept and returned for every file after it."""
    kept: list[TransformerConfig] = []

    def make(**values: Any) -> TransformerConfig:
        kept.append(TransformerConfig(**values))
        return kept[0]

    with ExitStack() as planted:
        for module in (huggingface, gguf_metadata):
            planted.enter_context(patch.object(module, "TransformerConfig", make))
        yield


@DEFECTS.plant("yarn_attention_factor_missing")
def yarn_attention_factor_missing(_: WeightLoading) -> Planting:
    """Cos and sin are not multiplied by anything."""

    def plain(values: dict[str, Any]) -> Any:
        scaling = values["rope_scaling"]
        return replace(scaling, attention_factor=1.0) if isinstance(scaling, YarnScaling) else scaling

    return _made_otherwise(rope_scaling=plain)


@DEFECTS.plant("new_form_of_rope_ignored")
def new_form_of_rope_ignored(_: WeightLoading) -> Planting:
    """Only the form before transformers 5 is looked at: rope_parameters might as well not be there."""
    original = rope_scaling.read_rope

    def read(fields: Fields, values: Any) -> Any:
        old = {key: value for key, value in values.items() if key != "rope_parameters"}
        return original(Fields("", {"rope_theta": 1e4, **old}), old)

    with patch.object(huggingface, "read_rope", read):
        yield


def _missing_is(default: Callable[[str], Any]) -> Planting:
    def integer(fields: Fields, key: str) -> int:
        return original_integer(fields, key) if key in fields else int(default(key))

    def number(fields: Fields, key: str) -> float:
        return original_number(fields, key) if key in fields else float(default(key))

    def boolean(fields: Fields, key: str) -> bool:
        return original_boolean(fields, key) if key in fields else False

    original_integer, original_number, original_boolean = Fields.integer, Fields.number, Fields.boolean
    with (
        patch.object(Fields, "integer", integer),
        patch.object(Fields, "number", number),
        patch.object(Fields, "boolean", boolean),
    ):
        yield


@DEFECTS.plant("missing_values_have_defaults")
def missing_values_have_defaults(_: WeightLoading) -> Planting:
    """What the file doesn't say is guessed."""
    return _missing_is(lambda key: 1e4 if key.endswith(("theta", "freq_base")) else 2)


@DEFECTS.plant("rope_type_not_read")
def rope_type_not_read(_: WeightLoading) -> Planting:
    """An .apr file's rope_type is taken for half-split, stated or not."""
    with patch.object(apr_metadata, "is_interleaved", lambda *_: False):
        yield


@DEFECTS.plant("one_form_of_rope_refused")
def one_form_of_rope_refused(_: WeightLoading) -> Planting:
    """Files that transformers 5 wrote are taken for unsupported."""
    original = rope_scaling.read_rope

    def read(fields: Fields, values: Any) -> Any:
        if values.get("rope_parameters") is not None:
            fields.refuse("rope_parameters is not supported")
        return original(fields, values)

    with patch.object(huggingface, "read_rope", read):
        yield


@DEFECTS.plant("llama3_scaling_taken_for_linear")
def llama3_scaling_taken_for_linear(_: WeightLoading) -> Planting:
    """The factor is read, what it applies to isn't."""
    with (
        patch.object(rope_scaling, "Llama3Scaling", lambda factor, *_: LinearScaling(factor)),
        patch.object(gguf_metadata, "read_scaling", lambda *_: LinearScaling(8.0)),
    ):
        yield

"""GGUF metadata and names -> TransformerConfig and Hugging Face names."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping

from aprender.errors import FormatError
from aprender.formats.fields import Fields
from aprender.formats.huggingface import QKV_BIAS
from aprender.transformer.config import TransformerConfig

_TOP_LEVEL = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """GGUF's name of a tensor that ``TransformerConfig.tensor_shapes`` names."""
    module, _, leaf = name.rpartition(".")
    if module in _TOP_LEVEL:
        return f"{_TOP_LEVEL[module]}.{leaf}"
    _, _, layer, module = module.split(".", 3)
    return f"blk.{layer}.{_IN_LAYER[module]}.{leaf}"


def config_from_metadata(
    where: str, metadata: Mapping[str, object], shapes: Mapping[str, tuple[int, ...]]
) -> TransformerConfig:
    """The configuration that a GGUF file's ``metadata`` and tensor ``shapes`` (by GGUF name) state.

    vocab_size is the number of rows of token_embd; embeddings are tied when there is no ``output.weight``.
    head_dim is ``attention.key_length`` or, as GGUF defines its absence, embedding_length / head_count.
    Raises FormatError, naming every missing key, wrong type and unsupported feature at once.
    """
    family = metadata.get("general.architecture")
    if not isinstance(family, str) or family not in QKV_BIAS:
        raise FormatError(
            f"{where}: general.architecture is {reprlib.repr(family)}; supported are {' and '.join(sorted(QKV_BIAS))}"
        )
    fields = Fields(where, metadata)
    sizes = {
        name: fields.integer(f"{family}.{key}")
        for name, key in (
            ("hidden_size", "embedding_length"),
            ("intermediate_size", "feed_forward_length"),
            ("num_attention_heads", "attention.head_count"),
            ("num_key_value_heads", "attention.head_count_kv"),
        )
    }
    sizes["num_hidden_layers"] = fields.layers(f"{family}.block_count")
    sizes["vocab_size"] = _vocab_size(fields, family, shapes)
    sizes["head_dim"] = _head_dim(fields, family, sizes)
    rms_norm_eps = fields.number(f"{family}.attention.layer_norm_rms_epsilon")
    rope_theta = fields.number(f"{family}.rope.freq_base")
    _refuse_unsupported(fields, metadata, family, shapes)
    fields.check()
    try:
        return TransformerConfig(
            family=family,
            rms_norm_eps=rms_norm_eps,
            rope_theta=rope_theta,
            rope_scaling=None,
            windows=(None,) * sizes["num_hidden_layers"],
            tie_word_embeddings="output.weight" not in shapes,
            qkv_bias=QKV_BIAS[family],
            qk_norm=False,
            **sizes,
        )
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from error


def _vocab_size(fields: Fields, family: str, shapes: Mapping[str, tuple[int, ...]]) -> int:
    shape = shapes.get("token_embd.weight")
    if shape is None or len(shape) != 2:
        fields.refuse(f"the tensor token_embd.weight is {'missing' if shape is None else f'of shape {list(shape)}'}")
        return 0
    if f"{family}.vocab_size" in fields and (stated := fields.integer(f"{family}.vocab_size")) != shape[0]:
        fields.refuse(f"{family}.vocab_size is {stated}, but token_embd.weight has {shape[0]} rows")
    return shape[0]


def _head_dim(fields: Fields, family: str, sizes: Mapping[str, int]) -> int:
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    key = f"{family}.attention.key_length"
    if key in fields:
        head_dim = fields.integer(key)
    elif heads > 0 and hidden % heads == 0:
        head_dim = hidden // heads
    else:
        if heads:  # when it is 0, it was missing or wrong, which is noted already or refused by the configuration
            fields.refuse(f"{key} is absent, and embedding_length ({hidden}) is no multiple of head_count ({heads})")
        return 0
    for other in (f"{family}.attention.value_length", f"{family}.rope.dimension_count"):
        if other in fields and fields.integer(other) != head_dim:
            fields.refuse(f"{other} differs from the heads' width {head_dim}, which is not supported")
    return head_dim


def _refuse_unsupported(
    fields: Fields, metadata: Mapping[str, object], family: str, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    off_values: dict[str, tuple[object, ...]] = {
        f"{family}.rope.scaling.type": ("none",),
        f"{family}.rope.scaling.factor": (0.0, 1.0),
        f"{family}.rope.scale_linear": (0.0, 1.0),  # the older name of the factor
        f"{family}.attention.sliding_window": (0,),
        "split.count": (0, 1),
    }
    for key, off in off_values.items():
        if key in fields and metadata[key] not in off:
            fields.refuse(f"{key} is {reprlib.repr(metadata[key])}, which is not supported")
    if "rope_freqs.weight" in shapes:
        fields.refuse("the tensor rope_freqs.weight rescales RoPE, which is not supported")

"""GGUF metadata and names -> TransformerConfig and Hugging Face names."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping

from aprender.errors import FormatError
from aprender.formats.families import FAMILIES, GGUF_ARCHITECTURES, refusal
from aprender.formats.fields import Fields
from aprender.formats.gguf_rope import RopeFactors, read_scaling
from aprender.transformer.config import TransformerConfig

ROPE_FACTORS = "rope_freqs.weight"

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
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
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
    where: str,
    metadata: Mapping[str, object],
    shapes: Mapping[str, tuple[int, ...]],
    rope_factors: RopeFactors | None = None,
) -> TransformerConfig:
    """The configuration that a GGUF file's ``metadata`` and tensor ``shapes`` (by GGUF name) state.

    vocab_size is the number of rows of token_embd; embeddings are tied when there is no ``output.weight``.
    head_dim is ``attention.key_length`` or, as GGUF defines its absence, embedding_length / head_count.
    A llama file with a sliding window is a mistral model. ``rope_factors`` are the values of rope_freqs.weight.
    Raises FormatError, naming every missing key, wrong type and unsupported feature at once.
    """
    name = metadata.get("general.architecture")
    experts = ("num_experts",) if metadata.get(f"{name}.expert_count") else ()
    if reason := refusal("general.architecture", name, GGUF_ARCHITECTURES, experts):
        raise FormatError(f"{where}: {reason}")
    architecture = str(name)
    fields = Fields(where, metadata)
    sizes = _sizes(fields, architecture, shapes)
    rms_norm_eps = fields.number(f"{architecture}.attention.layer_norm_rms_epsilon")
    rope_theta = fields.number(f"{architecture}.rope.freq_base")
    scaling = read_scaling(fields, architecture, rope_theta, sizes["head_dim"], rope_factors)
    window = _window(fields, architecture)
    _refuse_shards(fields)
    fields.check()
    family = "mistral" if window else architecture
    try:
        return TransformerConfig(
            family=family,
            rms_norm_eps=rms_norm_eps,
            rope_theta=rope_theta,
            rope_scaling=scaling,
            windows=(window,) * sizes["num_hidden_layers"],
            tie_word_embeddings="output.weight" not in shapes,
            qkv_bias=FAMILIES[family].qkv_bias,
            qk_norm=FAMILIES[family].qk_norm,
            **sizes,
        )
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from error


def _sizes(fields: Fields, architecture: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    sizes = {
        name: fields.integer(f"{architecture}.{key}")
        for name, key in (
            ("hidden_size", "embedding_length"),
            ("intermediate_size", "feed_forward_length"),
            ("num_attention_heads", "attention.head_count"),
            ("num_key_value_heads", "attention.head_count_kv"),
        )
    }
    sizes["num_hidden_layers"] = fields.layers(f"{architecture}.block_count")
    sizes["vocab_size"] = _vocab_size(fields, architecture, shapes)
    sizes["head_dim"] = _head_dim(fields, architecture, sizes)
    return sizes


def _vocab_size(fields: Fields, architecture: str, shapes: Mapping[str, tuple[int, ...]]) -> int:
    shape = shapes.get("token_embd.weight")
    if shape is None or len(shape) != 2:
        fields.refuse(f"the tensor token_embd.weight is {'missing' if shape is None else f'of shape {list(shape)}'}")
        return 0
    key = f"{architecture}.vocab_size"
    if key in fields and (stated := fields.integer(key)) != shape[0]:
        fields.refuse(f"{key} is {stated}, but token_embd.weight has {shape[0]} rows")
    return shape[0]


def _head_dim(fields: Fields, architecture: str, sizes: Mapping[str, int]) -> int:
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    key = f"{architecture}.attention.key_length"
    if key in fields:
        head_dim = fields.integer(key)
    elif heads > 0 and hidden % heads == 0:
        head_dim = hidden // heads
    else:
        if heads:  # when it is 0, it was missing or wrong, which is noted already or refused by the configuration
            fields.refuse(f"{key} is absent, and embedding_length ({hidden}) is no multiple of head_count ({heads})")
        return 0
    for other in (f"{architecture}.attention.value_length", f"{architecture}.rope.dimension_count"):
        if other in fields and fields.integer(other) != head_dim:
            fields.refuse(f"{other} differs from the heads' width {head_dim}, which is not supported")
    return head_dim


def _window(fields: Fields, architecture: str) -> int | None:
    """A window for all layers. Only Mistral's models have one in all, and their files say llama."""
    key = f"{architecture}.attention.sliding_window"
    window = fields.integer(key) if key in fields else 0
    if window and architecture != "llama":
        fields.refuse(f"{key} is {window}, which is not supported: GGUF doesn't say in which layers")
        return None
    return window or None


def _refuse_shards(fields: Fields) -> None:
    if (count := fields.value("split.count")) not in (None, 0, 1):
        fields.refuse(f"split.count is {reprlib.repr(count)}, which is not supported: merge the parts into one file")

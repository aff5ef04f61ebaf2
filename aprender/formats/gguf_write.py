"""Writing GGUF files, unquantized, through the ``gguf`` package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter

from aprender.errors import FormatError
from aprender.formats.gguf_metadata import ROPE_FACTORS, gguf_name
from aprender.formats.gguf_rope import llama3_factors
from aprender.formats.gguf_vocabulary import Vocabulary
from aprender.formats.rope_scaling import yarn_attention_factor
from aprender.formats.usage import Usage
from aprender.transformer.config import LinearScaling, Llama3Scaling, TransformerConfig, YarnScaling

_FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}  # general.file_type: what most tensors are
_NUMPY = {"F32": "<f4", "F16": "<f2"}


def architecture_of(config: TransformerConfig) -> str:
    """GGUF's name of the family: mistral's files say llama."""
    return "llama" if config.family == "mistral" else config.family


def write_gguf(
    path: Path,
    config: TransformerConfig,
    usage: Usage,
    vocabulary: Vocabulary,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    data: Callable[[str], npt.NDArray[np.uint8]],
) -> None:
    """Write the GGUF file ``path``: ``tensors`` gives dtype and shape by Hugging Face's name, ``data`` the bytes.

    Rows of Q and K come in the file's order already. Raises FormatError for what GGUF has no place for.
    """
    writer = GGUFWriter(path, architecture_of(config))
    try:
        _add_configuration(writer, config, usage)
        writer.add_file_type(_FILE_TYPES[next(iter(tensors.values()))[0]])
        _add_tokenizer(writer, usage, vocabulary)
        factors = _rope_factors(config)
        if factors is not None:
            writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
        for name, (dtype, shape) in tensors.items():
            _add_tensor(writer, gguf_name(name), dtype, shape)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for name in tensors:
            writer.write_tensor_data(data(name))
    finally:
        writer.close()


def _add_tensor(writer: GGUFWriter, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    kind = GGMLQuantizationType[dtype]
    _, size = gguf.GGML_QUANT_SIZES[kind]
    in_bytes = (*shape[:-1], shape[-1] * size)  # as the package wants the shape of what it doesn't interpret
    writer.add_tensor_info(name, in_bytes, np.dtype(np.uint8), int(np.prod(in_bytes, dtype=np.int64)), kind)


def _add_configuration(writer: GGUFWriter, config: TransformerConfig, usage: Usage) -> None:
    if usage.context_length is not None:
        writer.add_context_length(usage.context_length)
    writer.add_vocab_size(config.vocab_size)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    windows = set(config.windows)
    if windows != {None}:
        (window, *others) = windows
        if others or config.family != "mistral":
            raise FormatError(f"GGUF has no way to give a {config.family} model the windows {config.windows}")
        writer.add_sliding_window(window)
    _add_scaling(writer, config)


def _add_scaling(writer: GGUFWriter, config: TransformerConfig) -> None:
    scaling = config.rope_scaling
    if isinstance(scaling, LinearScaling):
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling.factor)
    if isinstance(scaling, YarnScaling):
        if not scaling.truncate:
            raise FormatError("GGUF has no place for YaRN scaling with truncate false")
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling.factor)
        writer.add_rope_scaling_orig_ctx_len(scaling.original_max_position_embeddings)
        prefix = f"{architecture_of(config)}.rope.scaling"
        writer.add_float32(f"{prefix}.yarn_beta_fast", scaling.beta_fast)
        writer.add_float32(f"{prefix}.yarn_beta_slow", scaling.beta_slow)
        writer.add_float32(f"{prefix}.attn_factor", scaling.attention_factor / yarn_attention_factor(scaling.factor))


def _rope_factors(config: TransformerConfig) -> npt.NDArray[np.float32] | None:
    if not isinstance(config.rope_scaling, Llama3Scaling):
        return None
    if architecture_of(config) != "llama":
        raise FormatError(f"GGUF has no place for llama3 scaling in a {config.family} model")
    return np.array(llama3_factors(config.rope_scaling, config.rope_theta, config.head_dim), np.float32)


def _add_tokenizer(writer: GGUFWriter, usage: Usage, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_add_bos_token(False)
    ids: dict[str, Callable[[Any], None]] = {"eos": writer.add_eos_token_id, "eot": writer.add_eot_token_id}
    for add, id_ in zip(ids.values(), usage.eos_ids[:2], strict=False):
        add(id_)
    if usage.bos_id is not None:
        writer.add_bos_token_id(usage.bos_id)
    if usage.chat_template is not None:
        writer.add_chat_template(usage.chat_template)

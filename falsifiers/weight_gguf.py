"""GGUF files with known contents, written by the gguf package; rows of Q and K are interleaved by an index map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize

from aprender.transformer.config import LinearScaling, Llama3Scaling, TransformerConfig, YarnScaling
from falsifiers.weight_checkpoints import SEED, Tensors
from falsifiers.weight_tokenizer import CHAT_TEMPLATE, gguf_lists


def interleaved(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows as llama.cpp stores them: the two that RoPE turns together become neighbours."""
    half = len(rows) // heads // 2
    order = [head * 2 * half + part * half + j for head in range(heads) for j in range(half) for part in (0, 1)]
    return rows[torch.tensor(order)]


def in_file_order(config: TransformerConfig, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Q and K of all layers interleaved."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    return {
        name: interleaved(tensor, heads[module]) if (module := name.split(".")[-2]) in heads else tensor
        for name, tensor in tensors.items()
    }


def write_gguf(
    path: Path,
    config: TransformerConfig,
    tensors: Mapping[str, torch.Tensor],
    quantized: Mapping[str, tuple[Kind, np.ndarray[Any, Any]]] | None = None,
    without: str = "",
) -> Path:
    """A GGUF file; ``tensors`` are in the file's order of rows, ``quantized`` are blocks to store in their place.

    ``without`` is a metadata key to leave out, without the architecture before it.
    """
    family = "llama" if config.family == "mistral" else config.family
    writer = gguf.GGUFWriter(path, family)
    for add, value in _gguf_numbers(writer, config):
        add(value)
    _add_scaling(writer, config)
    if config.windows[0] is not None:
        writer.add_sliding_window(config.windows[0])
    tokens, types, merges = gguf_lists()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(3)
    writer.add_eos_token_id(4)
    writer.add_eot_token_id(5)
    writer.add_chat_template(CHAT_TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config.num_hidden_layers)  # a superset of the others
    for name, tensor in tensors.items():
        kind, array = (quantized or {}).get(name, _plain(tensor))
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), array, raw_dtype=kind)
    writer.kv_data[0].pop(f"{family}.{without}", None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_numbers(writer: gguf.GGUFWriter, config: TransformerConfig) -> list[tuple[Callable[[Any], None], Any]]:
    return [
        (writer.add_context_length, 2048),
        (writer.add_embedding_length, config.hidden_size),
        (writer.add_feed_forward_length, config.intermediate_size),
        (writer.add_block_count, config.num_hidden_layers),
        (writer.add_head_count, config.num_attention_heads),
        (writer.add_head_count_kv, config.num_key_value_heads),
        (writer.add_key_length, config.head_dim),
        (writer.add_layer_norm_rms_eps, config.rms_norm_eps),
        (writer.add_rope_freq_base, config.rope_theta),
    ]


def _add_scaling(writer: gguf.GGUFWriter, config: TransformerConfig) -> None:
    scaling = config.rope_scaling
    if isinstance(scaling, LinearScaling):
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling.factor)
    elif isinstance(scaling, Llama3Scaling):
        writer.add_tensor("rope_freqs.weight", _llama3_factors(config, scaling))
    elif isinstance(scaling, YarnScaling):
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling.factor)
        writer.add_rope_scaling_orig_ctx_len(scaling.original_max_position_embeddings)
        writer.add_float32(f"{writer.arch}.rope.scaling.yarn_beta_fast", scaling.beta_fast)
        writer.add_float32(f"{writer.arch}.rope.scaling.yarn_beta_slow", scaling.beta_slow)


def _plain(tensor: torch.Tensor) -> tuple[Kind, np.ndarray[Any, Any]]:
    kind = {torch.float32: Kind.F32, torch.float16: Kind.F16, torch.bfloat16: Kind.BF16}[tensor.dtype]
    return kind, tensor.contiguous().view(torch.uint8).numpy() if kind == Kind.BF16 else tensor.numpy()


def _llama3_factors(config: TransformerConfig, scaling: Llama3Scaling) -> np.ndarray[Any, Any]:
    """As convert_hf_to_gguf.py computes them, in float32."""
    dim, factors = config.head_dim, []
    for freq in 1.0 / (config.rope_theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)):
        wavelen = 2 * torch.pi / freq
        if wavelen < scaling.original_max_position_embeddings / scaling.high_freq_factor:
            factors.append(1.0)
        elif wavelen > scaling.original_max_position_embeddings / scaling.low_freq_factor:
            factors.append(scaling.factor)
        else:
            smooth = scaling.original_max_position_embeddings / wavelen - scaling.low_freq_factor
            smooth /= scaling.high_freq_factor - scaling.low_freq_factor
            factors.append(float(1 / ((1 - smooth) / scaling.factor + smooth)))
    return np.array(factors, np.float32)


# Where the float16 scales of a block are; those types that the gguf package can quantize to need none.
_SCALES = {Kind.Q2_K: (80, 82), Kind.Q3_K: (108,), Kind.Q4_K: (0, 2), Kind.Q5_K: (0, 2), Kind.Q6_K: (208,)}
_SCALES |= {Kind.IQ4_XS: (0,), Kind.IQ2_S: (0,)}
_QUANTIZED = (*_SCALES, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0)


def quantized_blocks(
    config: TransformerConfig, tensors: Mapping[str, torch.Tensor], kinds: Sequence[Kind] = _QUANTIZED
) -> tuple[dict[str, tuple[Kind, np.ndarray[Any, Any]]], Tensors]:
    """Blocks of all ``kinds`` for the matrices of ``tensors`` in turn, and the float32 values that they stand for."""
    rng = np.random.default_rng(SEED)
    blocks: dict[str, tuple[Kind, np.ndarray[Any, Any]]] = {}
    values = {name: tensor.float() for name, tensor in tensors.items()}
    for index, name in enumerate(name for name, tensor in tensors.items() if tensor.ndim == 2):
        kind, (rows, columns) = kinds[index % len(kinds)], tensors[name].shape
        if kind in _SCALES:
            elements, size = gguf.GGML_QUANT_SIZES[kind]
            raw = rng.integers(0, 256, (rows * columns // elements, size), np.uint8)
            for at in _SCALES[kind]:
                raw[:, at : at + 2] = rng.uniform(0.5, 2, (len(raw), 1)).astype(np.float16).view(np.uint8)
            blocks[name] = kind, raw.reshape(rows, -1)
        else:
            blocks[name] = kind, quantize(tensors[name].float().numpy(), kind)
        values[name] = torch.from_numpy(dequantize(blocks[name][1], kind).reshape(rows, columns))
    return blocks, values

"""Tiny checkpoints, written the way other programs write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from aprender.transformer.config import TransformerConfig

# No two sizes agree, and head_dim is not hidden_size / num_attention_heads.
QWEN2 = TransformerConfig(
    family="qwen2",
    vocab_size=270,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=10,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    rope_scaling=None,
    windows=(None,) * 2,
    tie_word_embeddings=False,
    qkv_bias=True,
    qk_norm=False,
)
LLAMA = replace(QWEN2, family="llama", qkv_bias=False, tie_word_embeddings=True)

MERGES = ["h e", "l l", "he ll", "hell o", "Ġ Ġ", "1 2", "Ġ 1"]
TOKENS = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(m.replace(" ", "") for m in MERGES), "<|end|>", "<tool>"]
TOKEN_TYPES = [1] * (len(TOKENS) - 2) + [3, 4]


def random_tensors(config: TransformerConfig, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Random tensors of the configuration, different on every row."""
    generator = torch.Generator().manual_seed(7)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in config.tensor_shapes().items()}


def config_json(config: TransformerConfig) -> dict[str, object]:
    """What config.json states for ``config``, as transformers 5 writes it."""
    return {
        "model_type": config.family,
        "hidden_act": "silu",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"},
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def tiny_tokenizer() -> Tokenizer:
    """A byte-level tokenizer with a handful of merges."""
    vocab = {token: index for index, token in enumerate(TOKENS)}
    pairs = [(merge.split(" ")[0], merge.split(" ")[1]) for merge in MERGES]
    tokenizer = Tokenizer(models.BPE(vocab, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def write_folder(folder: Path, config: TransformerConfig, tensors: Mapping[str, torch.Tensor]) -> Path:
    """A Hugging Face folder."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_json(config)))
    save_file(dict(tensors), folder / "model.safetensors")
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def gguf_metadata(config: TransformerConfig) -> dict[str, object]:
    """The metadata that a converter writes for ``config``, but for general.architecture."""
    family = config.family
    return {
        f"{family}.block_count": config.num_hidden_layers,
        f"{family}.embedding_length": config.hidden_size,
        f"{family}.feed_forward_length": config.intermediate_size,
        f"{family}.attention.head_count": config.num_attention_heads,
        f"{family}.attention.head_count_kv": config.num_key_value_heads,
        f"{family}.attention.key_length": config.head_dim,
        f"{family}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{family}.rope.freq_base": config.rope_theta,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.token_type": TOKEN_TYPES,
    }


def gguf_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The same tensors under the names that the gguf package gives them. The rows of Q and K are left as they are."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 9)  # qwen2 has the same names
    return {names.get_name(name, (".weight", ".bias")): tensor.numpy() for name, tensor in tensors.items()}


def write_gguf(
    path: Path,
    family: str,
    metadata: Mapping[str, object],
    tensors: Mapping[str, np.ndarray],
    stored_as: Mapping[str, gguf.GGMLQuantizationType] | None = None,
) -> Path:
    """A GGUF file. ``stored_as`` gives the type of those tensors that aren't plain float32 or float16."""
    writer = gguf.GGUFWriter(path, family)
    for key, value in metadata.items():
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case float():
                writer.add_float32(key, value)
            case str():
                writer.add_string(key, value)
            case list():
                writer.add_array(key, value)
    for name, array in tensors.items():
        kind = (stored_as or {}).get(name)
        writer.add_tensor(name, array if kind is None else gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

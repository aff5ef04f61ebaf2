"""Small checkpoints with known contents, written without any of the code under contract.

safetensors files are written by the safetensors library, GGUF files by the gguf package (``weight_gguf``), .apr files
by hand (``weight_apr``). What a loader must give back is therefore known bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from aprender.transformer.config import LinearScaling, Llama3Scaling, RopeScaling, TransformerConfig
from falsifiers.weight_tokenizer import CHAT_TEMPLATE, tiny_tokenizer

Tensors = dict[str, torch.Tensor]
SEED = 20261122

# Sizes that agree with no other, so that nothing fits by accident; biases, an explicit head_dim, GQA 3:1.
QWEN2 = TransformerConfig(
    family="qwen2",
    vocab_size=307,
    hidden_size=48,
    intermediate_size=88,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=10,
    rms_norm_eps=3e-4,
    rope_theta=31_000.0,
    rope_scaling=None,
    windows=(None,) * 3,
    tie_word_embeddings=False,
    qkv_bias=True,
    qk_norm=False,
)
# q_proj and o_proj are square here: transposing them changes no shape.
LLAMA = replace(
    QWEN2,
    family="llama",
    hidden_size=96,
    head_dim=16,
    num_hidden_layers=2,
    windows=(None,) * 2,
    qkv_bias=False,
    tie_word_embeddings=True,
    rope_scaling=Llama3Scaling(8.0, 1.0, 4.0, 8192),
)
QWEN3 = replace(QWEN2, family="qwen3", qkv_bias=False, qk_norm=True, tie_word_embeddings=True)
MISTRAL = replace(LLAMA, family="mistral", rope_scaling=None, windows=(7, 7), tie_word_embeddings=False)
# Rows of whole blocks of 256: every quantized type fits.
QUANTIZED = replace(LLAMA, hidden_size=256, intermediate_size=512, num_attention_heads=8, head_dim=32)
# As many tensors as Qwen2.5-0.5B: 24 layers, biases, tied.
MANY = replace(
    QWEN2,
    hidden_size=16,
    intermediate_size=24,
    head_dim=4,
    num_hidden_layers=24,
    windows=(None,) * 24,
    tie_word_embeddings=True,
)
DTYPES = (torch.bfloat16, torch.float32, torch.float16)


@dataclass(frozen=True)
class Case:
    """A checkpoint on disk and what it holds: configuration and tensors under Hugging Face's names."""

    name: str
    path: Path
    config: TransformerConfig
    tensors: Tensors


def seeded(config: TransformerConfig, dtype: torch.dtype | None = None) -> Tensors:
    """Random tensors of ``config``, in ``dtype`` or else in all three in turn; no row is like another."""
    generator = torch.Generator().manual_seed(SEED)
    shapes = config.tensor_shapes()
    return {
        name: torch.randn(shape, generator=generator).to(dtype or DTYPES[index % 3])
        for index, (name, shape) in enumerate(shapes.items())
    }


def config_json(config: TransformerConfig) -> dict[str, Any]:
    """What config.json says of ``config``, in the form before transformers 5."""
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return {
        "model_type": config.family,
        "hidden_act": "silu",
        **{name: getattr(config, name) for name in (*sizes, "num_key_value_heads", "head_dim", "rms_norm_eps")},
        "rope_theta": config.rope_theta,
        "rope_scaling": rope_json(config.rope_scaling),
        **_windows_json(config),
        "tie_word_embeddings": config.tie_word_embeddings,
        "max_position_embeddings": 2048,
        "bos_token_id": 3,
        "eos_token_id": [4, 5],
    }


def new_config_json(config: TransformerConfig) -> dict[str, Any]:
    """The same as transformers 5 writes it: all of RoPE in rope_parameters, and what each layer attends to."""
    values = config_json(config)
    scaling = values.pop("rope_scaling") or {"rope_type": "default"}
    values["rope_parameters"] = {"rope_theta": values.pop("rope_theta"), **scaling}
    if config.family in ("qwen2", "qwen3"):
        values.pop("max_window_layers", None)
        values["layer_types"] = [
            "full_attention" if window is None else "sliding_attention" for window in config.windows
        ]
    return values


def rope_json(scaling: RopeScaling | None) -> dict[str, Any] | None:
    """The entries of a scaling, its type first."""
    if scaling is None:
        return None
    if isinstance(scaling, LinearScaling):
        return {"type": "linear", "factor": scaling.factor}
    kind = "llama3" if isinstance(scaling, Llama3Scaling) else "yarn"
    return {"rope_type": kind} | {name: getattr(scaling, name) for name in type(scaling).__slots__}


def _windows_json(config: TransformerConfig) -> dict[str, Any]:
    windows = [window for window in config.windows if window is not None]
    if config.family == "mistral":
        return {"sliding_window": windows[0] if windows else None}
    if not windows:
        return {"sliding_window": None}
    first = config.num_hidden_layers - len(windows)
    return {"use_sliding_window": True, "sliding_window": windows[0], "max_window_layers": first}


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], shards: int = 1) -> Path:
    """A Hugging Face folder; with several ``shards``, tensors are dealt out in turn."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors")
        return folder
    places = {name: f"model-{index % shards + 1:05}-of-{shards:05}.safetensors" for index, name in enumerate(tensors)}
    for file in set(places.values()):
        save_file({name: tensor for name, tensor in tensors.items() if places[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder

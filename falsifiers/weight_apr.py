"""``.apr`` files with known contents, written by hand after the layout in docs/weights.md."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType as Kind

from aprender.transformer.config import TransformerConfig
from falsifiers.weight_checkpoints import config_json
from falsifiers.weight_tokenizer import CHAT_TEMPLATE, tiny_tokenizer

# ggml's types that the format has, under ggml's own numbers.
BLOCKS = (Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K)
Stored = Mapping[str, tuple[int, tuple[int, ...], bytes]]  # dtype id, shape and bytes by name


def write_apr(path: Path, metadata: Mapping[str, Any], stored: Stored) -> Path:
    """An .apr file of version 2.0."""

    def padded(part: bytes) -> bytes:
        return part + bytes(-len(part) % 64)

    text, index, data = json.dumps(metadata).encode(), b"", b""
    for name, (dtype, shape, raw) in sorted(stored.items(), key=lambda item: item[0].encode()):
        index += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BB", dtype, len(shape))
        index += struct.pack(f"<{len(shape)}QQQ", *shape, len(data), len(raw))
        data += padded(raw)
    index_at = 64 + len(padded(text))
    head = struct.pack(
        "<4sBBHIQIQQ", b"APR\0", 2, 0, 1 << 10, len(stored), 64, len(text), index_at, index_at + len(padded(index))
    )
    head += struct.pack("<I", zlib.crc32(head + bytes(20))) + bytes(20)
    content = head + padded(text) + padded(index) + data
    path.write_bytes(content + struct.pack("<I", zlib.crc32(content)))
    return path


def apr_metadata(config: TransformerConfig, rope_type: int = 2) -> dict[str, Any]:
    """What an .apr file says of ``config``, under the format's own names."""
    values = config_json(config)
    names = {
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "num_key_value_heads": "num_kv_heads",
    }
    names |= {"model_type": "architecture", "bos_token_id": "tokenizer.bos_token_id"}
    names |= {"eos_token_id": "tokenizer.eos_token_id"}
    return {
        **{names.get(key, key): value for key, value in values.items() if key != "hidden_act"},
        "rope_type": rope_type,
        "chat_template": CHAT_TEMPLATE,
        "tokenizer.huggingface.json": tiny_tokenizer().to_str(),
    }


def apr_floats(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, tuple[int, ...], bytes]]:
    """``tensors`` as they stand."""
    ids = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 30}
    return {
        name: (ids[t.dtype], tuple(t.shape), t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, t in tensors.items()
    }


def apr_q4(values: torch.Tensor) -> tuple[bytes, torch.Tensor]:
    """.apr's dtype 8: per 32 values a float16 scale and 16 bytes, the low nibble first. Bytes and what they mean."""
    count = values.numel()
    flat = torch.cat([values.float().reshape(-1), torch.zeros(-count % 32)]).reshape(-1, 32)
    scale = (flat.abs().amax(1, keepdim=True) / 7).half()
    q = (flat / scale.float()).round().clamp(-8, 7).to(torch.int8)
    nibbles = (q + 8).to(torch.uint8).reshape(-1, 16, 2)
    packed = nibbles[..., 0] | (nibbles[..., 1] << 4)
    raw = torch.cat([scale.view(torch.uint8).reshape(-1, 2), packed], 1)
    return raw.numpy().tobytes(), (q * scale.float()).reshape(-1)[:count].reshape(values.shape)


def apr_q8(values: torch.Tensor) -> tuple[bytes, torch.Tensor]:
    """.apr's dtype 9: one float32 scale, then an int8 to a value. Bytes and what they mean."""
    scale = (values.float().abs().max() / 127).reshape(1)
    q = (values.float() / scale).round().to(torch.int8)
    return scale.numpy().tobytes() + q.numpy().tobytes(), q.float() * scale

"""Model files made wrong on purpose: byte mutations of sound ones, and headers that Hypothesis makes up."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from falsifiers import weight_apr, weight_gguf
from falsifiers.weight_checkpoints import QWEN2, config_json, seeded, write_folder

_EXTREMES = (0, 1, 2, 7, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
_TEXTS = (b"", b"{}", b"[]", b"null", b'"F32"', b"-1", b"1e999", b"[" * 2000, b'{"a":' * 2000, b"\xff\xfe", b"\0")

Edit = Callable[[random.Random, bytearray], bytearray]


def sound_files(folder: Path) -> dict[str, Path]:
    """A small sound model in each format, by the name of the file that is to be mutated."""
    tensors = seeded(QWEN2, torch.bfloat16)
    model = write_folder(folder / "model", config_json(QWEN2), tensors)
    sharded = write_folder(folder / "sharded", config_json(QWEN2), tensors, shards=2)
    metadata, stored = weight_apr.apr_metadata(QWEN2), weight_apr.apr_floats(tensors)
    return {
        "safetensors": model / "model.safetensors",
        "gguf": weight_gguf.write_gguf(folder / "model.gguf", QWEN2, tensors),
        "apr": weight_apr.write_apr(folder / "model.apr", metadata, stored),
        "config.json": model / "config.json",
        "tokenizer.json": model / "tokenizer.json",
        "index": sharded / "model.safetensors.index.json",
    }


def model_of(file: Path) -> Path:
    """What is loaded to read ``file``."""
    return file if file.suffix in (".gguf", ".apr") else file.parent


def mutated(draw: random.Random, content: bytes, kind: str) -> bytes:
    """One to four edits, most of them near the beginning, where headers are.

    Checksums of .apr files are mostly set right afterwards, or nothing behind them would be reached.
    """
    out = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        out = draw.choice(_EDITS)(draw, out)
    if kind == "safetensors" and draw.random() < 0.5 and len(out) > 8:
        out[:8] = struct.pack("<Q", _header_length(out))
    if kind == "apr" and draw.random() < 0.8 and len(out) > 68:
        out[40:44] = struct.pack("<I", zlib.crc32(out[44:64], zlib.crc32(out[:40])))
        out[-4:] = struct.pack("<I", zlib.crc32(out[:-4]))
    return bytes(out)


def _header_length(content: bytearray) -> int:
    """Up to where a header that was cut or lengthened now ends."""
    end = content.find(b"}}", 8)
    return end - 6 if end > 0 else len(content) - 8


def _place(draw: random.Random, content: bytearray) -> int:
    """Any byte, but one of the first 4096 three times out of four."""
    size = len(content)
    return draw.randrange(max(1, min(size, 4096) if draw.random() < 0.75 else size))


def _flip_bit(draw: random.Random, content: bytearray) -> bytearray:
    if content:
        content[_place(draw, content)] ^= 1 << draw.randrange(8)
    return content


def _set_byte(draw: random.Random, content: bytearray) -> bytearray:
    if content:
        content[_place(draw, content)] = draw.randrange(256)
    return content


def _set_number(draw: random.Random, content: bytearray) -> bytearray:
    width = draw.choice((2, 4, 8))
    value = draw.choice((*_EXTREMES, len(content), len(content) - 1)) % 256**width
    at = _place(draw, content)
    content[at : at + width] = value.to_bytes(width, "little")
    return content


def _cut(draw: random.Random, content: bytearray) -> bytearray:
    return content[: _place(draw, content)] if draw.random() < 0.5 else content[_place(draw, content) :]


def _remove(draw: random.Random, content: bytearray) -> bytearray:
    at = _place(draw, content)
    del content[at : at + draw.randint(1, 64)]
    return content


def _repeat(draw: random.Random, content: bytearray) -> bytearray:
    at, length = _place(draw, content), draw.randint(1, 256)
    content[at:at] = content[at : at + length] * draw.choice((1, 1, 1, 50))
    return content


def _insert(draw: random.Random, content: bytearray) -> bytearray:
    at = _place(draw, content)
    content[at:at] = draw.choice((*_TEXTS, draw.randbytes(draw.randint(1, 16))))
    return content


def _replace_word(draw: random.Random, content: bytearray) -> bytearray:
    """A number or a word of a text replaced by something else that JSON knows."""
    at = _place(draw, content)
    start = content.find(b":", at) + 1
    end = min((i for i in (content.find(sign, start) for sign in (b",", b"}", b"]")) if i > 0), default=start)
    content[start:end] = draw.choice(_TEXTS)
    return content


_EDITS: tuple[Edit, ...] = (
    *(_flip_bit, _set_byte, _set_number, _set_number, _cut, _remove, _repeat, _insert, _replace_word, _replace_word),
)


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_json = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner))
_sizes = st.integers(-2, 2**65) | st.sampled_from((0, 1, 4, 16, 64, 4096))
_entry = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(("F32", "BF16", "F64", "U8", "BOOL", "Q4_K", "F7", "")) | _json,
        "shape": st.lists(_sizes, max_size=9) | _json,
        "data_offsets": st.lists(_sizes, min_size=2, max_size=2) | _json,
    }
)
_header = st.dictionaries(st.sampled_from(("model.norm.weight", "a", "__metadata__", "\ud800", "")), _entry | _json)


def safetensors_contents() -> st.SearchStrategy[bytes]:
    """Files with a made-up header of the right length and some data."""

    def build(header: Any, data: bytes) -> bytes:
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    return st.builds(build, _header | _json, st.binary(max_size=256))


def gguf_contents() -> st.SearchStrategy[bytes]:
    """A sound beginning, keys with values of any type, records of tensors, and some data."""
    number = st.integers(0, 2**64 - 1) | st.sampled_from(_EXTREMES)
    string = st.binary(max_size=12).map(lambda raw: struct.pack("<Q", len(raw)) + raw)
    value = st.builds(lambda kind, raw: struct.pack("<I", kind) + raw, st.integers(0, 14), st.binary(max_size=24))
    array = st.builds(
        lambda kind, count, raw: struct.pack("<IIQ", 9, kind, count) + raw,
        st.integers(0, 14),
        number | st.integers(0, 4),
        st.binary(max_size=40),
    )
    key = st.builds(lambda name, held: name + held, string, value | array)
    record = st.builds(
        lambda name, sizes, kind, offset: name + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset),
        string,
        st.lists(number, max_size=6),
        st.integers(0, 45),
        number,
    )
    return st.builds(
        lambda version, keys, records, data, lie: (
            b"GGUF"
            + struct.pack("<IQQ", version, len(records) + lie, len(keys))
            + b"".join((*keys, *records))
            + bytes(16)
            + data
        ),
        st.sampled_from((2, 3)),
        st.lists(key, max_size=4),
        st.lists(record, max_size=4),
        st.binary(max_size=256),
        st.sampled_from((0, 0, 0, 1, 2**40)),
    )


def apr_contents() -> st.SearchStrategy[bytes]:
    """Sound checksums around a made-up index and made-up metadata."""

    def build(metadata: Any, index: list[tuple[bytes, int, list[int], int, int]], data: bytes, lie: int) -> bytes:
        text = json.dumps(metadata).encode()
        records = b"".join(
            struct.pack("<H", len(name)) + name + struct.pack(f"<BB{len(sizes)}QQQ", kind, len(sizes), *sizes, at, size)
            for name, kind, sizes, at, size in sorted(index)
        )
        index_at = 64 + len(text) + -len(text) % 64
        data_at = index_at + len(records) + -len(records) % 64
        places = (len(index) + lie, 64, len(text), index_at, data_at)
        head = struct.pack("<4sBBHIQIQQ", b"APR\0", 2, 0, 1 << 10, *places)
        head += struct.pack("<I", zlib.crc32(head + bytes(20))) + bytes(20)
        content = head + text + bytes(-len(text) % 64) + records + bytes(-len(records) % 64) + data
        return content + struct.pack("<I", zlib.crc32(content))

    number = st.integers(0, 2**64 - 1) | st.sampled_from((0, 4, 64, 128))
    record = st.tuples(st.binary(max_size=8), st.integers(0, 255), st.lists(number, max_size=9), number, number)
    return st.builds(build, _json, st.lists(record, max_size=4), st.binary(max_size=256), st.sampled_from((0, 0, 1)))


MADE_UP = {"safetensors": safetensors_contents, "gguf": gguf_contents, "apr": apr_contents}

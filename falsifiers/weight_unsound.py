"""Files that must be refused, each made from a sound one by a single change, and the word that the refusal must say."""

from __future__ import annotations

import json
import pickle
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import quantize

from falsifiers import weight_apr, weight_gguf
from falsifiers.weight_checkpoints import QWEN2, Tensors, config_json, seeded, write_folder

_CONFIG = replace(QWEN2, num_hidden_layers=1, windows=(None,))
_LAYER = "model.layers.0"
_Q, _NORM, _DOWN = (f"{_LAYER}.{name}.weight" for name in ("self_attn.q_proj", "input_layernorm", "mlp.down_proj"))
_EMBEDDING = "model.embed_tokens.weight"
_LAST_IN_GGUF = "output.weight"


@dataclass(frozen=True)
class Unsound:
    """A checkpoint that can't be right. ``says``: what a refusal of it must name. An empty one says: it is sound."""

    path: Path
    says: str


def write_unsound(folder: Path) -> Iterator[Unsound]:
    """All of them, and the sound ones that they were made from."""
    folder.mkdir()
    tensors = seeded(_CONFIG, torch.float32)
    yield from _changed_tensors(folder, tensors)
    yield from _changed_folders(folder, tensors)
    yield from _changed_files(folder, tensors)
    yield from _changed_apr(folder, tensors)


def _changed_tensors(folder: Path, tensors: Tensors) -> Iterator[Unsound]:
    """The same change of tensors in each of the three formats."""
    norm = tensors[_NORM]
    changes: dict[str, tuple[Tensors, str]] = {
        "sound": (tensors, ""),
        "missing": ({name: t for name, t in tensors.items() if name != _Q}, "missing"),
        "bias-missing": ({n: t for n, t in tensors.items() if not n.endswith("k_proj.bias")}, "missing"),
        "row": (tensors | {_NORM: norm.view(1, -1)}, "has shape"),
        "transposed": (tensors | {_DOWN: tensors[_DOWN].T.contiguous()}, "has shape"),
        "nan": (tensors | {_NORM: _with_last(norm, float("nan"))}, "not finite"),
        "inf": (tensors | {_NORM: _with_last(norm, float("inf"))}, "not finite"),
        "half-inf": (tensors | {_Q: _with_last(tensors[_Q].half(), -float("inf"))}, "not finite"),
        "bf16-nan": (tensors | {_Q: _with_last(tensors[_Q].bfloat16(), float("nan"))}, "not finite"),
    }
    for name, (changed, says) in changes.items():
        yield Unsound(write_folder(folder / name, config_json(_CONFIG), changed), says)
        yield Unsound(weight_gguf.write_gguf(folder / f"{name}.gguf", _CONFIG, changed), says)
        stored = weight_apr.apr_floats(changed)
        yield Unsound(weight_apr.write_apr(folder / f"{name}.apr", weight_apr.apr_metadata(_CONFIG), stored), says)


def _with_last(tensor: torch.Tensor, value: float) -> torch.Tensor:
    out = tensor.clone()
    out.view(-1)[-1] = value
    return out


def _changed_folders(folder: Path, tensors: Tensors) -> Iterator[Unsound]:
    values = config_json(_CONFIG)

    def made(name: str, changed: Tensors, shards: int = 1, **keys: Any) -> Path:
        return write_folder(folder / name, values | keys, changed, shards)

    yield Unsound(made("unexpected", tensors | {"model.layers.0.self_attn.o_proj.bias": torch.zeros(48)}), "unexpected")
    yield Unsound(made("llama-stamp", tensors, model_type="llama", sliding_window=None), "unexpected")
    yield Unsound(made("experts", tensors, num_experts=8), "mixture-of-experts")
    yield Unsound(made("tied", tensors, tie_word_embeddings=True), "lm_head.weight differs")
    small = replace(_CONFIG, vocab_size=100)
    yield Unsound(made("ids", seeded(small, torch.float32), vocab_size=100), "ids up to")
    names = list(tensors)
    one_less = made("index-lacks-a-name", tensors, shards=2) / "model.safetensors.index.json"
    index = json.loads(one_less.read_text())["weight_map"]
    one_less.write_text(json.dumps({"weight_map": {name: index[name] for name in names[1:]}}))
    yield Unsound(one_less.parent, "not in the index")
    outside = made("index-leads-outside", tensors, shards=2) / "model.safetensors.index.json"
    for shard in set(index.values()):
        (outside.parent / shard).rename(folder / shard)
    outside.write_text(json.dumps({"weight_map": {name: f"../{shard}" for name, shard in index.items()}}))
    yield Unsound(outside.parent, "weight_map")
    pickled = made("pickle", tensors)
    (pickled / "model.safetensors").unlink()
    (pickled / "pytorch_model.bin").write_bytes(pickle.dumps({"weights": 1}))
    yield Unsound(pickled, "pickle")


def _changed_files(folder: Path, tensors: Tensors) -> Iterator[Unsound]:
    """Bytes changed in a safetensors file and in a GGUF file."""
    sound = write_folder(folder / "truncated", config_json(_CONFIG), tensors) / "model.safetensors"
    sound.write_bytes(sound.read_bytes()[:-100])
    yield Unsound(sound.parent, "truncated or corrupt")
    for name, old, new, says in (
        ("dtype", b'"dtype":"F32"', b'"dtype":"X32"', "isn't known"),
        ("overlap", b'"data_offsets":[0,', b'"data_offsets":[4,', "truncated or corrupt"),
        ("twice", b"self_attn.k_proj.weight", b"self_attn.v_proj.weight", "occurs twice"),
    ):
        path = write_folder(folder / name, config_json(_CONFIG), tensors) / "model.safetensors"
        path.write_bytes(path.read_bytes().replace(old, new, 1))
        yield Unsound(path.parent, says)

    def changed(name: str, edit: Callable[[bytearray], bytes | bytearray]) -> Path:
        path = weight_gguf.write_gguf(folder / f"{name}.gguf", _CONFIG, tensors)
        path.write_bytes(edit(bytearray(path.read_bytes())))
        return path

    def record(content: bytearray) -> int:
        """Where the last tensor's record has its type: past its name, number of dimensions and two sizes."""
        return content.index(_LAST_IN_GGUF.encode()) + len(_LAST_IN_GGUF) + 4 + 2 * 8

    def with_type(content: bytearray) -> bytearray:
        content[record(content) : record(content) + 4] = struct.pack("<I", 99)
        return content

    def with_offset(content: bytearray) -> bytearray:
        content[record(content) + 4 : record(content) + 12] = bytes(8)
        return content

    yield Unsound(changed("cut-short", lambda content: content[:-4096]), "truncated or corrupt")
    yield Unsound(changed("type", with_type), "isn't known")
    yield Unsound(changed("offset", with_offset), "overlap")
    embedding = torch.zeros(_CONFIG.vocab_size, 64)
    blocks = quantize(embedding.numpy() + 1, Kind.Q8_0)
    blocks[5, :2] = (0x00, 0x7C)  # float16's infinity
    wide = replace(_CONFIG, hidden_size=64)
    path = weight_gguf.write_gguf(
        folder / "scale.gguf", wide, seeded(wide, torch.float32), {_EMBEDDING: (Kind.Q8_0, blocks)}
    )
    yield Unsound(path, "not finite")


def _changed_apr(folder: Path, tensors: Tensors) -> Iterator[Unsound]:
    """Bytes changed in an .apr file; but for those whose subject they are, checksums are right."""
    metadata, stored = weight_apr.apr_metadata(_CONFIG), weight_apr.apr_floats(tensors)

    def changed(name: str, edit: Callable[[bytearray], bytes | bytearray], *, sums: bool = True) -> Path:
        path = weight_apr.write_apr(folder / f"{name}.apr", metadata, stored)
        content = bytearray(edit(bytearray(path.read_bytes())))
        path.write_bytes(_with_sums(content) if sums else content)
        return path

    def flag(bit: int) -> Callable[[bytearray], bytearray]:
        return lambda content: content[:6] + struct.pack("<H", 1 << 10 | 1 << bit) + content[8:]

    def in_record(name: str, offset: int, new: bytes) -> Callable[[bytearray], bytearray]:
        """``offset`` from the byte that holds the dtype."""

        def edit(content: bytearray) -> bytearray:
            at = content.index(struct.pack("<H", len(name)) + name.encode()) + 2 + len(name) + offset
            return content[:at] + new + content[at + len(new) :]

        return edit

    yield Unsound(changed("flipped", lambda c: c[:-1000] + bytes([c[-1000] ^ 1]) + c[-999:], sums=False), "checksum")
    no_sum = changed("header", lambda c: _with_footer(c[:40] + bytes(4) + c[44:]), sums=False)
    yield Unsound(no_sum, "its header's checksum")
    for bit, says in ((0, "LZ4"), (1, "Zstd"), (2, "encrypted"), (11, "column-major")):
        yield Unsound(changed(f"flag-{bit}", flag(bit)), says)
    yield Unsound(changed("dtype", in_record(_NORM, 0, b"\x4d")), "isn't known")
    yield Unsound(changed("size", in_record(_NORM, 2 + 8 + 8, struct.pack("<Q", 64))), "not 192")
    yield Unsound(changed("place", in_record(_NORM, 2 + 8, bytes(8))), "overlap")


def _with_sums(content: bytearray) -> bytes:
    """Both checksums computed anew."""
    content[40:44] = struct.pack("<I", zlib.crc32(content[44:64], zlib.crc32(content[:40])))
    return _with_footer(content)


def _with_footer(content: bytearray) -> bytes:
    """The checksum at the end computed anew."""
    body = bytes(content[:-4])
    return body + struct.pack("<I", zlib.crc32(body))

"""Writing .apr files, version 2."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from io import BufferedWriter
from pathlib import Path
from typing import Any

from aprender.errors import FormatError
from aprender.formats.apr_header import (
    ALIGNMENT,
    FOOTER_SIZE,
    HEADER,
    MAGIC,
    MAX_NAME,
    ROW_MAJOR,
    TYPES,
    VERSION,
    header_checksum,
)
from aprender.formats.apr_metadata import HALF_SPLIT, TOKENIZER_KEY
from aprender.formats.huggingface_values import config_values
from aprender.formats.tensor_table import stored_size
from aprender.formats.usage import Usage
from aprender.transformer.config import TransformerConfig

_HAS_VOCABULARY = 1 << 9
_IDS = {name: number for number, name in TYPES.items()}
_FORMATS_NAMES = {
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
}


def metadata_values(config: TransformerConfig, usage: Usage, tokenizer_json: str) -> dict[str, Any]:
    """The metadata from which ``apr_metadata`` reads the same configuration, usage and tokenizer."""
    values = config_values(config)
    del values["architectures"], values["hidden_act"]
    rope = values.pop("rope_parameters")
    theta = rope.pop("rope_theta")
    tokenizer = json.loads(tokenizer_json)
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: int(item[1]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"].get("merges", ())]
    return {
        "architecture": values.pop("model_type"),
        **{_FORMATS_NAMES.get(key, key): value for key, value in values.items()},
        "rope_theta": theta,
        "rope_type": HALF_SPLIT,
        **({"rope_scaling": rope} if config.rope_scaling else {}),
        **({"max_position_embeddings": usage.context_length} if usage.context_length is not None else {}),
        **({"chat_template": usage.chat_template} if usage.chat_template is not None else {}),
        **({"tokenizer.bos_token_id": usage.bos_id} if usage.bos_id is not None else {}),
        **({"tokenizer.eos_token_id": list(usage.eos_ids)} if usage.eos_ids else {}),
        "tokenizer.vocabulary": [token for token, _ in vocabulary],
        "tokenizer.merges": merges,
        TOKENIZER_KEY: tokenizer_json,
    }


def write_apr(
    path: Path,
    metadata: Mapping[str, object],
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    data: Callable[[str], bytes | memoryview],
) -> None:
    """Write the .apr file ``path``: ``tensors`` gives dtype and shape by name, ``data`` the bytes of one.

    Every byte is known before it is written, so the file is written once, in order, one tensor in memory at a time.
    """
    names = sorted(tensors, key=str.encode)
    sizes = {name: stored_size(*tensors[name]) for name in names}
    text = json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode()
    index = _index(names, tensors, sizes)
    index_at = HEADER.size + _padded(len(text))
    flags = ROW_MAJOR | (_HAS_VOCABULARY if "tokenizer.vocabulary" in metadata else 0)
    header = HEADER.pack(
        MAGIC, *VERSION, flags, len(names), HEADER.size, len(text), index_at, index_at + _padded(len(index)), 0, b""
    )
    header = header[:40] + struct.pack("<I", header_checksum(header)) + header[44:]
    with path.open("xb") as file:
        out = _Summed(file)
        for part in (header, text, index):
            out.write(part)
        for name in names:
            raw = data(name)
            if len(raw) != sizes[name]:
                raise FormatError(f"{path}: {name} has {len(raw)} bytes, must have {sizes[name]}")
            out.write(raw)
        file.write(out.checksum.to_bytes(FOOTER_SIZE, "little"))


def _index(names: list[str], tensors: Mapping[str, tuple[str, tuple[int, ...]]], sizes: Mapping[str, int]) -> bytes:
    records, offset = [], 0
    for name in names:
        dtype, shape = tensors[name]
        raw = name.encode()
        if not 1 <= len(raw) <= MAX_NAME:
            raise FormatError(f"{name}: has {len(raw)} bytes, more than the {MAX_NAME} that an .apr file can hold")
        records.append(struct.pack("<H", len(raw)) + raw + struct.pack("<BB", _IDS[dtype], len(shape)))
        records.append(struct.pack(f"<{len(shape)}QQQ", *shape, offset, sizes[name]))
        offset += _padded(sizes[name])
    return b"".join(records)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class _Summed:
    """Writes aligned parts and sums up what was written."""

    def __init__(self, file: BufferedWriter) -> None:
        self._file = file
        self.checksum = 0

    def write(self, part: bytes | memoryview) -> None:
        for piece in (part, bytes(_padded(len(part)) - len(part))):
            self._file.write(piece)
            self.checksum = zlib.crc32(piece, self.checksum)

"""GGUF files: parsed by the ``gguf`` package, dequantized to float32 under Hugging Face's names."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import Tokenizer

from aprender.errors import FormatError
from aprender.formats.accounting import StoredTensor, take_tensors
from aprender.formats.gguf_metadata import config_from_metadata, gguf_name
from aprender.formats.gguf_tokenizer import tokenizer_from_metadata
from aprender.transformer.config import TransformerConfig

_VERSIONS = (2, 3)
_ROWS_AT_ONCE = 1024  # the library's temporaries are as large as what it is given: this bounds them


def read_gguf(path: Path) -> tuple[TransformerConfig, dict[str, torch.Tensor], Tokenizer]:
    """Configuration, float32 tensors under Hugging Face names, and tokenizer of the GGUF file at ``path``.

    Architectures qwen2 and llama; every quantization that the ``gguf`` package dequantizes. Raises FormatError
    when the file is corrupt or incomplete, or needs what isn't supported.
    """
    where = str(path)
    metadata, infos = _parse(path)
    shapes = {info.name: tuple(int(size) for size in reversed(info.shape)) for info in infos}
    config = config_from_metadata(where, metadata, shapes)
    tokenizer = tokenizer_from_metadata(where, metadata)
    _refuse_overlaps(where, infos)
    stored = {info.name: _stored(info, shapes[info.name], config) for info in infos}
    return config, take_tensors(where, config, stored, gguf_name), tokenizer


class _Reader(GGUFReader):  # type: ignore[misc]  # the package is untyped to mypy
    """The library's reader, made to notice the end of the file.

    It takes short reads for empty values, and then counts through whatever array length a corrupt file states.
    """

    data: Any

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        self.data = np.asarray(self.data)  # slicing a plain array is three times as fast as slicing a memmap
        values = super()._get(offset, dtype, count, override_order)
        if len(values) != int(count):
            raise ValueError(f"it ends before byte {offset + int(count) * np.dtype(dtype).itemsize}")
        return values


def _parse(path: Path) -> tuple[dict[str, object], list[Any]]:
    """All metadata as plain Python values, and the library's record of each tensor."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
        version = struct.unpack("<I", head[4:])[0] if len(head) == 8 else None
    except OSError as error:
        raise FormatError(f"{path}: can't be read ({error.strerror}); check its permissions") from error
    if version is not None and version not in _VERSIONS:
        raise FormatError(
            f"{path}: states GGUF version {version}; versions 2 and 3, little-endian, can be read; convert it again"
        )
    try:
        reader = _Reader(path)
        return {key: field.contents() for key, field in reader.fields.items()}, reader.tensors
    except Exception as error:  # on malformed bytes the library fails with whatever comes first
        raise FormatError(
            f"{path}: is no readable GGUF file ({error}); it is truncated or corrupt, fetch it again"
        ) from error


def _refuse_overlaps(where: str, infos: list[Any]) -> None:
    """Two tensors that share bytes mean a corrupt offset: the values would look plausible and be wrong."""
    for first, second in pairwise(sorted(infos, key=lambda info: int(info.data_offset))):
        if first.data_offset + first.n_bytes > second.data_offset:
            raise FormatError(
                f"{where}: the tensors {first.name} and {second.name} overlap; the file is corrupt, fetch it again"
            )


def _stored(info: Any, shape: tuple[int, ...], config: TransformerConfig) -> StoredTensor:
    def load() -> torch.Tensor:
        tensor = _dequantize(info, shape)
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
        module = info.name.split(".")[-2]
        if config.family == "llama" and module in heads:
            tensor = half_split_rows(tensor, heads[module])
        return tensor

    return StoredTensor(shape, load)


def half_split_rows(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a llama-architecture GGUF's Q or K, ``[heads * head_dim, in]``, back in Hugging Face's order.

    Such files pair the rows that RoPE rotates together: row ``2 j + s`` of a head there is row
    ``s * head_dim / 2 + j`` here.
    """
    paired = weight.view(heads, -1, 2, weight.shape[-1])
    return paired.transpose(1, 2).reshape(weight.shape)


def _dequantize(info: Any, shape: tuple[int, ...]) -> torch.Tensor:
    values = np.empty((int(np.prod(shape[:-1])), shape[-1]), dtype=np.float32)
    data = info.data.reshape(len(values), -1)
    try:
        # a scale that is infinite or NaN is reported by the accounting, with the tensor's name
        with np.errstate(all="ignore"):
            for start in range(0, len(values), _ROWS_AT_ONCE):
                rows = slice(start, start + _ROWS_AT_ONCE)
                values[rows] = dequantize(data[rows], info.tensor_type)
    except NotImplementedError as error:
        raise FormatError(f"is stored as {info.tensor_type.name}, which can't be dequantized") from error
    return torch.from_numpy(values.reshape(shape))

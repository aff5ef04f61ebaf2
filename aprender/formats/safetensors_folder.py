"""Weights and tokenizer of a Hugging Face folder: model.safetensors and tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from aprender.errors import FormatError
from aprender.formats.accounting import StoredTensor, take_tensors
from aprender.transformer.config import TransformerConfig

# Each is a subset of float32, so the cast is exact.
_EXACT_DTYPES = ("F32", "F16", "BF16")


def read_weights(path: Path, config: TransformerConfig) -> dict[str, torch.Tensor]:
    """Every tensor of ``config`` from the safetensors file at ``path``, as float32 under Hugging Face names.

    F32, F16 and BF16 are read. Buffers named ``rotary_emb.inv_freq`` are skipped: they follow from rope_theta.
    Raises FormatError when the file is corrupt or its tensors aren't exactly those of ``config``.
    """
    try:
        with safe_open(path, framework="pt") as file:
            stored = {
                name: _stored(file, name) for name in file.offset_keys() if not name.endswith("rotary_emb.inv_freq")
            }
            return take_tensors(str(path), config, stored, lambda name: name)
    except (SafetensorError, OSError) as error:
        raise FormatError(
            f"{path}: is no readable safetensors file ({error}); it is truncated or corrupt, fetch it again"
        ) from error


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in the tokenizer.json at ``path``. Raises FormatError when it is corrupt."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for anything it can't parse
        raise FormatError(f"{path}: is no readable tokenizer ({error}); fetch the file again") from error


def _stored(file: Any, name: str) -> StoredTensor:
    view = file.get_slice(name)
    dtype = view.get_dtype()

    def load() -> torch.Tensor:
        if dtype not in _EXACT_DTYPES:
            raise FormatError(f"is stored as {dtype}, only {', '.join(_EXACT_DTYPES)} can be read")
        # a copy even of F32: the library's tensor would change with the mapped file
        tensor: torch.Tensor = file.get_tensor(name)
        return tensor.to(torch.float32, copy=True)

    return StoredTensor(tuple(view.get_shape()), load)

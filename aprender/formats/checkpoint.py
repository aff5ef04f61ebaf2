"""A checkpoint in memory: configuration, weights under Hugging Face's names, tokenizer, and where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import torch
from tokenizers import Tokenizer

from aprender.errors import FormatError
from aprender.formats.accounting import EMBEDDING, HEAD, Account
from aprender.formats.digest import sha256_of
from aprender.formats.files import Identity, identity_of
from aprender.formats.usage import Usage
from aprender.transformer.config import TransformerConfig


@dataclass(frozen=True)
class Checkpoint:
    """Weights as loaded, never changed afterwards: oracle and CUDA path both read from here.

    ``tensors`` are on the CPU, row-major ``[out, in]`` for projections, named as ``TransformerConfig.tensor_shapes``
    names them: float32, float16 or bfloat16 as stored, float32 where they were quantized. Their memory may be the
    mapped file: it may be replaced, but not written into, as long as they are in use. ``identities`` says which bytes
    of each file were read.
    """

    config: TransformerConfig
    tensors: Mapping[str, torch.Tensor]
    tokenizer: Tokenizer
    usage: Usage
    account: Account
    source: Path
    identities: Mapping[Path, Identity]

    @property
    def head(self) -> torch.Tensor:
        """The output matrix ``[vocab_size, hidden_size]``: of a tied model the embedding, the very same tensor."""
        return self.tensors[EMBEDDING if self.config.tie_word_embeddings else HEAD]

    @cached_property
    def sha256(self) -> Mapping[str, str]:
        """The digest of each file read, by name; computed when asked for.

        Raises FormatError where a file is no longer the one that was loaded.
        """
        digests = {path.name: sha256_of(path) for path in self.identities}
        for path, identity in self.identities.items():
            if identity_of(path) != identity:
                raise FormatError(f"{path}: changed since it was loaded; load it again")
        return MappingProxyType(digests)

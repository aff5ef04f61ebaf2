"""A checkpoint in memory: configuration, weights under Hugging Face's names, tokenizer, and where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from aprender.transformer.config import TransformerConfig


@dataclass(frozen=True)
class Checkpoint:
    """Weights as loaded, never changed afterwards: oracle and CUDA path both read from here.

    ``tensors`` are float32 on the CPU, row-major ``[out, in]`` for projections, named as
    ``TransformerConfig.tensor_shapes`` names them. ``sha256`` maps each file read to its digest.
    """

    config: TransformerConfig
    tensors: Mapping[str, torch.Tensor]
    tokenizer: Tokenizer
    source: Path
    sha256: Mapping[str, str]

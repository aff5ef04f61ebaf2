"""The two orders of the rows of Q and K: halves that RoPE rotates against each other, or neighbouring pairs.

Hugging Face pairs channel j of a head with channel j + head_dim / 2 (half-split); llama.cpp's llama architecture, and
.apr files of rope_type 0, pair channels 2 j and 2 j + 1 (interleaved), and order the rows so that both compute alike.
"""

from __future__ import annotations

import torch

from aprender.transformer.config import TransformerConfig


def heads_of(name: str, config: TransformerConfig) -> int | None:
    """How many heads the rows of the tensor ``name`` (Hugging Face's) belong to, None where RoPE doesn't turn them."""
    heads = {
        "q_proj": config.num_attention_heads,
        "k_proj": config.num_key_value_heads,
        "q_norm": 1,
        "k_norm": 1,
    }
    return heads.get(name.split(".")[-2])


def half_split_rows(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Interleaved rows ``[heads * head_dim, ...]`` in half-split order, a copy.

    Row ``2 j + s`` of a head there is row ``s * head_dim / 2 + j`` here.
    """
    return rows.view(heads, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def interleaved_rows(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Half-split rows ``[heads * head_dim, ...]`` in interleaved order, a copy: the inverse of ``half_split_rows``."""
    return rows.view(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)

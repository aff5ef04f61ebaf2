"""The launches that must compile for an H100: every kernel, in both dtypes, at real models' widths."""

from __future__ import annotations

import torch
from torch import Tensor

from aprender.transformer.cuda.ops import (
    AdamW,
    AddRMSNorm,
    Attention,
    Embedding,
    LinearCrossEntropy,
    ResidualAdd,
    RMSNorm,
    Rope,
    SwiGLU,
    global_norm,
)

HEADS = ((12, 2, 128), (14, 2, 64), (8, 1, 256), (7, 1, 12))


def tensor(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def run_all(quick: bool) -> None:
    """Compile for both dtypes and all head widths, in two minutes; or one of each, in some seconds."""
    for dtype in (torch.bfloat16,) if quick else (torch.float32, torch.bfloat16):
        run_rows(dtype)
        run_loss_and_optimizer(dtype)
        for H, G, C in HEADS[:1] if quick else HEADS:
            run_attention(dtype, H, G, C, ((100, 4),) if quick else ((None, 2), (100, 4)))


def run_rows(dtype: torch.dtype) -> None:
    x, gain = tensor(2, 77, 896, dtype=dtype), tensor(896, dtype=dtype)
    y, saved = RMSNorm(gain, 1e-6).forward(x)
    RMSNorm(gain, 1e-6).backward(saved, y)
    outputs, saved = AddRMSNorm(gain, 1e-6).forward(tensor(2, 77, 896, dtype=torch.float32), x)
    AddRMSNorm(gain, 1e-6).backward(saved, outputs)
    ResidualAdd().forward(x, x)
    gate = tensor(2, 77, 4864, dtype=dtype)
    activated, saved = SwiGLU().forward(gate, gate)
    SwiGLU().backward(saved, activated)
    rope = Rope(*(tensor(4096, 32, dtype=torch.float32) for _ in range(2)))
    q, saved = rope.forward(tensor(2, 77, 14, 64, dtype=dtype), tensor(2, 77, dtype=torch.int64))
    rope.backward(saved, q)


def run_loss_and_optimizer(dtype: torch.dtype) -> None:
    table, tokens = tensor(151936, 896, dtype=dtype), tensor(2, 77, dtype=torch.int64)
    x, saved = Embedding(table).forward(tokens)
    Embedding(table).backward(saved, x)
    LinearCrossEntropy(table).forward(x, tokens)
    LinearCrossEntropy(table)(x, tokens)
    w, m, v = (tensor(896, 4864, dtype=torch.float32) for _ in range(3))
    AdamW(1e-3).update(w, tensor(896, 4864, dtype=dtype), m, v, 3, copy=tensor(896, 4864, dtype=torch.bfloat16))
    global_norm([w])


def run_attention(dtype: torch.dtype, H: int, G: int, C: int, kinds: tuple[tuple[int | None, int], ...]) -> None:
    q, k, v = (tensor(2, 777, heads, C, dtype=dtype) for heads in (H, G, G))
    places = [tensor(2, 777, dtype=torch.int32) for _ in range(4)]
    for window, documents in kinds:
        attention = Attention(C**-0.5, window)
        out, saved = attention.forward(q, k, v, *places[:documents])
        attention.backward(saved, out)

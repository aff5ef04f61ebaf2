"""Laws that need no oracle, of each layer's operators at the shape of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from aprender.parity import attention_laws, laws
from aprender.parity.laws import LawRecord
from aprender.parity.rounding import unit_roundoff
from aprender.transformer.cuda import ops
from bench.operator_stages import EPS, SEED, Draw, Shape, tables

RUNS = 3  # of each call that must repeat its bits
SHIFT = 1009  # positions


def of_layers(shape: Shape, dtype: torch.dtype, device: torch.device) -> Iterator[LawRecord]:
    """Every law, layer by layer, each layer on draws of its own."""
    rotate = ops.Rope(*tables(shape, shape.T + SHIFT, device))
    for layer in range(shape.layers):
        d = Draw(SEED + 1000 + layer, dtype, device)
        yield from _of_rows(shape, d)
        yield from _of_attention(shape, d)
        q, k = (d.normal(1, shape.T, shape.H, shape.C) for _ in range(2))
        yield attention_laws.rope_shift(rotate, q, k, torch.arange(shape.T, device=device)[None], SHIFT)


def _of_rows(shape: Shape, d: Draw) -> Iterator[LawRecord]:
    """Projections without weights, and the norm at eps."""
    x = d.normal(1, shape.T, shape.D, outlier=30.0)
    for heads in (shape.H, shape.G, shape.G):
        bias = d.normal(heads * shape.C, sd=0.5, outlier=50.0)
        weight = torch.zeros(len(bias), shape.D, dtype=d.dtype, device=d.device)
        yield laws.bias_only(ops.Linear(weight, bias), x, bias)
    # As the contracts' law of eps: two roundings of the results, and those of a sum over D in float32.
    allowed = 2 * unit_roundoff(d.dtype) + (shape.D + 8) * unit_roundoff(torch.float32)
    small = d.normal(1, shape.T, shape.D, sd=EPS**0.5)
    yield laws.scale_response(ops.RMSNorm(d.gain(shape.D), EPS), small, EPS, 4.0, allowed)


def _of_attention(shape: Shape, d: Draw) -> Iterator[LawRecord]:
    """Two rows of q, k and v in one tensor, [B, T, H + 2 G, C]; laws of one row take the first."""
    T, H, G, C = shape.T, shape.H, shape.G, shape.C
    attention = ops.Attention(C**-0.5)
    qkv = d.normal(2, T, H + 2 * G, C, sd=1.5)
    first = qkv[:1]

    def parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x[:, :, :H], x[:, :, H : H + G], x[:, :, H + G :]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        positions = torch.arange(T, device=q.device).expand(len(q), -1)
        return attention(q, k, v, positions, positions)

    def model(x: Tensor) -> Tensor:
        return attend(*parts(x))

    def gradients() -> Tensor:
        positions = torch.arange(T, device=qkv.device)[None]
        output, saved = attention.forward(*parts(first), positions, positions)
        (d_q, d_k, d_v), _ = attention.backward(saved, output)
        return torch.cat((d_q, d_k, d_v), 2)

    q, k, v = parts(first)
    after = first[:, T // 2 + 1 :]
    yield laws.causality(model, first, T // 2, (d.normal(*after.shape), torch.full_like(after, torch.nan)))
    yield laws.batch_permutation(model, qkv)
    yield attention_laws.head_isolation(attend, q, k, v)
    yield attention_laws.running_mean(attend, q, v)
    yield attention_laws.one_hot_values(attend, q, k, C**-0.5)
    yield laws.determinism(gradients, RUNS)
    yield laws.poisoned(gradients, _Poison())


class _Poison:
    """``laws.Poison`` for the memory that operators get."""

    def __init__(self) -> None:
        self.given: Sequence[Tensor] = ()

    @contextmanager
    def __call__(self, value: float | None) -> Iterator[None]:
        with ops.poisoned(self.given if value is None else value) as given:
            yield
        self.given = given

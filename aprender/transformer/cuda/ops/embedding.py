"""Token embedding: a table's row for each token.

Formula: ``x_n = W[token_n]``. Backward: ``dW[v] = sum of dx_n over the n with token_n = v``.

Rounding plan: the forward copies bits. dW is float32: the occurrences of a token are added up in float32, in the order
of their positions (a stable sort finds them; no atomics, so equal inputs give equal bits), and rows of tokens that do
not occur are 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.transformer.cuda.ops.blocks import elementwise_tile
from aprender.transformer.cuda.ops.checks import check_floats, check_integers, check_shape
from aprender.transformer.cuda.ops.memory import empty
from aprender.transformer.cuda.ops.runtime import launch, require_triton, tl, triton, triton_kernel
from aprender.transformer.cuda.ops.stage import Gradients, Saved

_OCCURRENCES = 8  # rows of d_output in flight at a time


@triton.jit
def embedding_forward(  # type: ignore[no-untyped-def]
    weight, tokens, x, N, V, D, weight_stride, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (n < N) & (column < D)
    token = tl.load(tokens + n, mask=n < N, other=0).to(tl.int64)
    # Outside the vocabulary there is no row: NaN says so, where reading on would return another tensor's numbers.
    known = (token >= 0) & (token < V)
    row = tl.load(weight + tl.where(known, token, 0) * weight_stride + column, mask=inside, other=0.0)
    row = tl.where(known, row.to(tl.float32), float("nan"))
    tl.store(x + n * D + column, row.to(x.dtype.element_ty), mask=inside)


@triton.jit
def embedding_backward(  # type: ignore[no-untyped-def]
    d_x,
    order,
    begins,
    ends,
    d_weight,
    V,
    D,
    d_x_stride,
    OCCURRENCES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    begin = tl.load(begins + token, mask=token < V, other=0).to(tl.int32)
    end = tl.load(ends + token, mask=token < V, other=0).to(tl.int32)
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(0, tl.max(end - begin, axis=0), OCCURRENCES):
        place = begin[:, None] + start + tl.arange(0, OCCURRENCES)[None, :]
        occurs = place < end[:, None]
        n = tl.load(order + place, mask=occurs, other=0).to(tl.int64)
        inside = occurs[:, :, None] & (column < D)[None, None, :]
        rows = tl.load(d_x + n[:, :, None] * d_x_stride + column[None, None, :], mask=inside, other=0.0)
        total += tl.sum(rows.to(tl.float32), axis=1)
    place = token[:, None] * D + column[None, :]
    tl.store(d_weight + place, total, mask=(token < V)[:, None] & (column < D)[None, :])


@dataclass(slots=True)
class Embedding:
    """Row lookup: tokens_BT, int32 or int64 -> x_BTD in the table's dtype.

    A token outside the vocabulary gives NaN, and no gradient. AprenderError for other dtypes and devices.
    """

    weight: Tensor  # [V, D]

    kernel = property(lambda self: triton_kernel(embedding_forward))
    backward_kernel = property(lambda self: triton_kernel(embedding_backward))

    def __post_init__(self) -> None:
        require_triton()

    def forward(self, tokens_BT: Tensor) -> tuple[Tensor, Saved]:
        """Look up; saves the tokens."""
        check_floats("Embedding", weight=self.weight)
        check_integers("Embedding", self.weight, tokens=tokens_BT)
        V, D = self.weight.shape
        weight_VD = self.weight if self.weight.stride(-1) == 1 else self.weight.contiguous()
        x = empty((*tokens_BT.shape, D), weight_VD.dtype, weight_VD.device)
        N, tile = tokens_BT.numel(), elementwise_tile(x.device)
        launch(
            embedding_forward,
            (triton.cdiv(N, tile.rows), triton.cdiv(D, tile.columns)),
            *(weight_VD, tokens_BT.contiguous(), x, N, V, D, weight_VD.stride(0)),
            ROWS=tile.rows,
            BLOCK=tile.columns,
        )
        return x, (tokens_BT,)

    def backward(self, saved: Saved, d_output: Tensor) -> Gradients:
        """Compute the table's gradient, ``weight``, [V, D] float32; tokens have none."""
        (tokens_BT,) = saved
        V, D = self.weight.shape
        check_floats("Embedding backward", weight=self.weight, d_output=d_output)
        check_shape("Embedding backward", "d_output", d_output, (*tokens_BT.shape, D))
        d_x_ND = d_output.reshape(-1, D).contiguous()
        tokens, order = torch.sort(tokens_BT.flatten(), stable=True)
        vocabulary = torch.arange(V, dtype=tokens.dtype, device=tokens.device)
        begins, ends = (torch.searchsorted(tokens, vocabulary, right=right) for right in (False, True))
        d_weight = empty((V, D), torch.float32, d_output.device)
        tile = elementwise_tile(d_output.device)
        launch(
            embedding_backward,
            (triton.cdiv(V, tile.rows), triton.cdiv(D, tile.columns)),
            *(d_x_ND, order, begins, ends, d_weight, V, D, d_x_ND.stride(0)),
            OCCURRENCES=_OCCURRENCES,
            ROWS=tile.rows,
            BLOCK=tile.columns,
        )
        return (), {"weight": d_weight}

    def __call__(self, tokens_BT: Tensor) -> Tensor:
        """Look up."""
        return self.forward(tokens_BT)[0]

"""RMSNorm, alone or fused with the residual addition before it.

Formula (Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4, eps inside the root as in Llama), over the last axis of D::

    h = x + branch            (AddRMSNorm only)
    r = 1 / sqrt(mean(h^2) + eps)
    y = gain * h * r

Backward, with ``g = dy * gain``; the second term is the gradient through r::

    dh    = r * (g - h * r * mean(g * h * r)) + d_residual
    dgain = sum over rows of dy * h * r

Rounding plan: x, branch, gain and y in their storage dtypes (float32 or bfloat16; x may be float32 beside a bfloat16
gain, a float32 residual stream). AddRMSNorm rounds h once to x's dtype, and goes on from the rounded h, so that
it equals ResidualAdd followed by RMSNorm bit by bit. Statistics, products and sums are float32; y and dh are rounded
once. dgain is float32: summed per strip of rows, then over strips, in an order that depends on shapes alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops.blocks import row_tile
from aprender.transformer.cuda.ops.checks import check_floats, check_same_device, check_shape, rows_of
from aprender.transformer.cuda.ops.memory import empty
from aprender.transformer.cuda.ops.runtime import (
    check_device,
    launch,
    library_kernel,
    note_library,
    require_triton,
    tl,
    triton,
    triton_kernel,
)
from aprender.transformer.cuda.ops.stage import Gradients, Saved


@triton.jit
def rms_norm_forward(  # type: ignore[no-untyped-def]
    x,
    branch,
    gain,
    residual,
    y,
    r,
    rows,
    x_stride,
    branch_stride,
    eps,
    D: tl.constexpr,
    HAS_BRANCH: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = (row < rows)[:, None] & (column < D)[None, :]
    place = row[:, None] * D + column[None, :]
    h = tl.load(x + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    if HAS_BRANCH:
        added = tl.load(branch + row[:, None] * branch_stride + column[None, :], mask=inside, other=0.0)
        stored = (h + added.to(tl.float32)).to(residual.dtype.element_ty)
        tl.store(residual + place, stored, mask=inside)
        h = stored.to(tl.float32)
    mean_square = tl.sum(h * h, axis=1) * (1.0 / D)
    scale = tl.div_rn(1.0, tl.sqrt_rn(mean_square + eps))
    weight = tl.load(gain + column, mask=column < D, other=0.0).to(tl.float32)
    normed = h * scale[:, None] * weight[None, :]
    tl.store(y + place, normed.to(y.dtype.element_ty), mask=inside)
    tl.store(r + row, scale, mask=row < rows)


@triton.jit
def rms_norm_backward(  # type: ignore[no-untyped-def]
    d_y,
    d_residual,
    h,
    gain,
    r,
    d_h,
    d_gain_by_strip,
    rows,
    d_y_stride,
    d_residual_stride,
    h_stride,
    D: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    STRIP: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    strip = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    weight = tl.load(gain + column, mask=column < D, other=0.0).to(tl.float32)
    d_gain = tl.zeros([WIDTH], tl.float32)
    for start in range(0, STRIP, ROWS):
        row = strip * STRIP + start + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < D)[None, :]
        d_out = tl.load(d_y + row[:, None] * d_y_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        h_row = tl.load(h + row[:, None] * h_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        scale = tl.load(r + row, mask=row < rows, other=0.0)
        normed = h_row * scale[:, None]
        weighted = d_out * weight[None, :]
        through_r = tl.sum(weighted * normed, axis=1) * (1.0 / D)
        gradient = scale[:, None] * (weighted - normed * through_r[:, None])
        if HAS_RESIDUAL:
            beside = row[:, None] * d_residual_stride + column[None, :]
            gradient += tl.load(d_residual + beside, mask=inside, other=0.0).to(tl.float32)
        tl.store(d_h + row[:, None] * D + column[None, :], gradient.to(d_h.dtype.element_ty), mask=inside)
        d_gain += tl.sum(d_out * normed, axis=0)
    tl.store(d_gain_by_strip + strip * D + column, d_gain, mask=column < D)


@dataclass(slots=True)
class RMSNorm:
    """``gain * x / sqrt(mean(x^2) + eps)``: x_..D -> y_..D in the gain's dtype.

    Over the heads of q or k, x_BTHC with a gain of C channels, this is QK-norm. ``weight`` is the gain, [D], float32 or
    bfloat16; x has its dtype or float32. AprenderError for other dtypes or devices, and for D above 16384.
    """

    weight: Tensor  # [D]
    eps: float

    kernel = property(lambda self: triton_kernel(rms_norm_forward))
    backward_kernel = property(lambda self: _backward_kernel(self.weight))

    def __post_init__(self) -> None:
        require_triton()

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """Norm each row; saves x and 1/rms of each row."""
        _check("RMSNorm", self.weight, x=x)
        y, _, r = _forward(x, None, self.weight, self.eps)
        return y, (x, r)

    def backward(self, saved: Saved, d_output: Tensor) -> Gradients:
        """Compute (d_x,) in x's dtype and the gain's gradient, ``weight``, float32."""
        x, r = saved
        d_x, d_gain = _backward(d_output, None, x, self.weight, r)
        return (d_x,), {"weight": d_gain}

    def __call__(self, x: Tensor) -> Tensor:
        """Norm each row."""
        return self.forward(x)[0]


@dataclass(slots=True)
class AddRMSNorm:
    """Residual addition and the norm after it: x_..D, branch_..D -> (x + branch, normed).

    The sum has x's dtype (float32, or the gain's), the normed tensor the gain's; branch has the gain's dtype.
    """

    weight: Tensor  # [D]
    eps: float

    kernel = property(lambda self: triton_kernel(rms_norm_forward))
    backward_kernel = property(lambda self: _backward_kernel(self.weight))

    def __post_init__(self) -> None:
        require_triton()

    def forward(self, x: Tensor, branch: Tensor) -> tuple[tuple[Tensor, Tensor], Saved]:
        """Add, then norm each row; saves the sum, and 1/rms of each row."""
        _check("AddRMSNorm", self.weight, x=x)
        check_floats("AddRMSNorm", weight=self.weight, branch=branch)
        check_shape("AddRMSNorm", "branch", branch, tuple(x.shape))
        y, residual, r = _forward(x, branch, self.weight, self.eps)
        return (residual, y), (residual, r)

    def backward(self, saved: Saved, d_output: tuple[Tensor, Tensor]) -> Gradients:
        """Compute (d_x, d_branch), the same gradient in the dtype of each, and the gain's gradient, float32."""
        residual, r = saved
        d_residual, d_y = d_output
        d_h, d_gain = _backward(d_y, d_residual, residual, self.weight, r)
        return (d_h, d_h.to(self.weight.dtype)), {"weight": d_gain}

    def __call__(self, x: Tensor, branch: Tensor) -> tuple[Tensor, Tensor]:
        """Add, then norm each row."""
        return self.forward(x, branch)[0]


def _check(stage: str, gain: Tensor, x: Tensor) -> None:
    check_floats(stage, weight=gain)
    check_floats(stage, x=x)
    check_same_device(stage, gain, "x", x)
    if x.dtype not in (gain.dtype, torch.float32):
        raise AprenderError(f"{stage}: x is {x.dtype} beside a {gain.dtype} gain; it may be {gain.dtype} or float32")
    check_shape(stage, "the last axis of x", x[(0,) * (x.ndim - 1)], tuple(gain.shape))


def _forward(x: Tensor, branch: Tensor | None, gain: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    rows = rows_of(x)
    branch_rows = rows if branch is None else rows_of(branch)
    N, D = rows.shape
    tile = row_tile(D, x.device)
    y = empty(tuple(x.shape), gain.dtype, x.device)
    residual = x if branch is None else empty(tuple(x.shape), x.dtype, x.device)
    r = empty((N,), torch.float32, x.device)
    launch(
        rms_norm_forward,
        (triton.cdiv(N, tile.rows),),
        *(rows, branch_rows, gain.contiguous(), residual, y, r),
        *(N, rows.stride(0), branch_rows.stride(0), float(eps)),
        D=D,
        HAS_BRANCH=branch is not None,
        ROWS=tile.rows,
        WIDTH=tile.width,
        num_warps=tile.warps,
    )
    return y, residual, r


def _backward_kernel(gain: Tensor) -> str:
    return f"{triton_kernel(rms_norm_backward)}+{library_kernel(gain.device, 'sum')}"


def _backward(d_y: Tensor, d_residual: Tensor | None, h: Tensor, gain: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    check_device(d_y.device)
    check_shape("RMSNorm backward", "d_output", d_y, tuple(h.shape))
    rows, d_y_rows = rows_of(h), rows_of(d_y)
    d_residual_rows = d_y_rows if d_residual is None else rows_of(d_residual)
    N, D = rows.shape
    tile = row_tile(D, h.device)
    strips = triton.cdiv(N, tile.strip)
    d_h = empty(tuple(h.shape), h.dtype, h.device)
    d_gain_by_strip = empty((strips, D), torch.float32, h.device)
    launch(
        rms_norm_backward,
        (strips,),
        *(d_y_rows, d_residual_rows, rows, gain.contiguous(), r, d_h, d_gain_by_strip),
        *(N, d_y_rows.stride(0), d_residual_rows.stride(0), rows.stride(0)),
        D=D,
        HAS_RESIDUAL=d_residual is not None,
        STRIP=tile.strip,
        ROWS=tile.rows,
        WIDTH=tile.width,
        num_warps=tile.warps,
    )
    note_library(h, "sum")
    return d_h, torch.sum(d_gain_by_strip, 0, out=empty((D,), torch.float32, h.device))

"""SwiGLU: the gated activation between the MLP's projections.

Formula (Shazeer 2020, arXiv 2002.05202; SiLU from Elfwing et al. 2017, arXiv 1702.03118), with s = 1 / (1 + e^-gate)::

    y = gate * s * up

Backward::

    d_up   = dy * gate * s
    d_gate = dy * up * s * (1 + gate * (1 - s))

Rounding plan: gate, up, y and gradients float32 or bfloat16; everything between is float32, and each result is rounded
once. s and 1 - s both come from e^-abs(gate), so that neither overflows nor cancels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from aprender.transformer.cuda.ops.blocks import elementwise_tile
from aprender.transformer.cuda.ops.checks import check_floats, check_shape, rows_of
from aprender.transformer.cuda.ops.exponential import exp
from aprender.transformer.cuda.ops.memory import empty
from aprender.transformer.cuda.ops.runtime import launch, require_triton, tl, triton, triton_kernel
from aprender.transformer.cuda.ops.stage import Gradients, Saved


@triton.jit
def sigmoid(x):  # type: ignore[no-untyped-def]
    """1 / (1 + e^-x), and 1 minus that, without cancellation."""
    decay = exp(-tl.abs(x), EXACT=True)
    larger = tl.div_rn(1.0, 1.0 + decay)
    smaller = tl.div_rn(decay, 1.0 + decay)
    return tl.where(x >= 0, larger, smaller), tl.where(x >= 0, smaller, larger)


@triton.jit
def swiglu_forward(  # type: ignore[no-untyped-def]
    gate, up, y, N, F, gate_stride, up_stride, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (row < N) & (column < F)
    g = tl.load(gate + row * gate_stride + column, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_stride + column, mask=inside, other=0.0).to(tl.float32)
    s, _ = sigmoid(g)
    tl.store(y + row * F + column, (g * s * u).to(y.dtype.element_ty), mask=inside)


@triton.jit
def swiglu_backward(  # type: ignore[no-untyped-def]
    d_y, gate, up, d_gate, d_up, N, F, d_y_stride, gate_stride, up_stride, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (row < N) & (column < F)
    d_out = tl.load(d_y + row * d_y_stride + column, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gate + row * gate_stride + column, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_stride + column, mask=inside, other=0.0).to(tl.float32)
    s, rest = sigmoid(g)
    place = row * F + column
    tl.store(d_up + place, (d_out * g * s).to(d_up.dtype.element_ty), mask=inside)
    tl.store(d_gate + place, (d_out * u * s * (1.0 + g * rest)).to(d_gate.dtype.element_ty), mask=inside)


@dataclass(slots=True)
class SwiGLU:
    """``silu(gate) * up``: gate_..F, up_..F -> y_..F, all of one dtype; the inputs may be halves of one tensor."""

    kernel = property(lambda self: triton_kernel(swiglu_forward))
    backward_kernel = property(lambda self: triton_kernel(swiglu_backward))

    def __post_init__(self) -> None:
        require_triton()

    def forward(self, gate: Tensor, up: Tensor) -> tuple[Tensor, Saved]:
        """Activate; saves both inputs."""
        check_floats("SwiGLU", gate=gate, up=up)
        check_shape("SwiGLU", "up", up, tuple(gate.shape))
        gate_rows, up_rows = rows_of(gate), rows_of(up)
        N, F = gate_rows.shape
        y = empty(tuple(gate.shape), gate.dtype, gate.device)
        tile = elementwise_tile(gate.device)
        launch(
            swiglu_forward,
            (triton.cdiv(N, tile.rows), triton.cdiv(F, tile.columns)),
            *(gate_rows, up_rows, y, N, F, gate_rows.stride(0), up_rows.stride(0)),
            ROWS=tile.rows,
            BLOCK=tile.columns,
        )
        return y, (gate, up)

    def backward(self, saved: Saved, d_output: Tensor) -> Gradients:
        """Compute (d_gate, d_up) in the inputs' dtype; there are no parameters."""
        gate, up = saved
        check_floats("SwiGLU backward", gate=gate, d_output=d_output)
        check_shape("SwiGLU backward", "d_output", d_output, tuple(gate.shape))
        d_rows, gate_rows, up_rows = rows_of(d_output), rows_of(gate), rows_of(up)
        N, F = gate_rows.shape
        d_gate, d_up = (empty(tuple(gate.shape), gate.dtype, gate.device) for _ in range(2))
        tile = elementwise_tile(gate.device)
        launch(
            swiglu_backward,
            (triton.cdiv(N, tile.rows), triton.cdiv(F, tile.columns)),
            *(d_rows, gate_rows, up_rows, d_gate, d_up),
            *(N, F, d_rows.stride(0), gate_rows.stride(0), up_rows.stride(0)),
            ROWS=tile.rows,
            BLOCK=tile.columns,
        )
        return (d_gate, d_up), {}

    def __call__(self, gate: Tensor, up: Tensor) -> Tensor:
        """Activate."""
        return self.forward(gate, up)[0]

"""Rotary positions, half-split.

Formula (Su et al. 2021, arXiv 2104.09864, eq. 34; pairs (r, r + C/2) as in GPT-NeoX and Hugging Face's checkpoints),
for a head x of C = 2R channels at position p::

    y[r]     = x[r] * cos[p, r] - x[r + R] * sin[p, r]
    y[r + R] = x[r + R] * cos[p, r] + x[r] * sin[p, r]

Backward: a rotation's transpose is its inverse, so ``dx`` is ``dy`` rotated by the negative angle.

Rounding plan: x and y float32 or bfloat16; tables, products and the sum float32; y rounded
once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops.blocks import elementwise_tile, power_of_two
from aprender.transformer.cuda.ops.checks import check_floats, check_integers, check_same_device, check_shape
from aprender.transformer.cuda.ops.memory import empty
from aprender.transformer.cuda.ops.runtime import check_device, launch, require_triton, tl, triton, triton_kernel
from aprender.transformer.cuda.ops.stage import Gradients, Saved


@triton.jit
def rope_rotate(  # type: ignore[no-untyped-def]
    x,
    positions,
    cos,
    sin,
    y,
    N,
    T,
    table_rows,
    x_stride_b,
    x_stride_t,
    x_stride_h,
    H: tl.constexpr,
    R: tl.constexpr,
    INVERSE: tl.constexpr,
    ROWS: tl.constexpr,
    HEADS: tl.constexpr,
    PAIRS: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None]
    head = tl.arange(0, HEADS)[None, :, None].to(tl.int64)
    pair = tl.arange(0, PAIRS)[None, None, :]
    inside = (head < H) & (pair < R) & (token < N)
    position = tl.load(positions + token, mask=token < N, other=0).to(tl.int64)
    # A position that the tables do not have gives NaN: what lies beyond a table must not pass for an angle.
    known = (position >= 0) & (position < table_rows)
    entry = tl.where(known, position, 0) * R + pair
    angle_cos = tl.where(known, tl.load(cos + entry, mask=pair < R, other=0.0), float("nan"))
    angle_sin = tl.load(sin + entry, mask=pair < R, other=0.0)
    if INVERSE:
        angle_sin = -angle_sin
    source = x + (token // T) * x_stride_b + (token % T) * x_stride_t + head * x_stride_h + pair
    a = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(source + R, mask=inside, other=0.0).to(tl.float32)
    target = y + (token * H + head) * (2 * R) + pair
    tl.store(target, (a * angle_cos - b * angle_sin).to(y.dtype.element_ty), mask=inside)
    tl.store(target + R, (b * angle_cos + a * angle_sin).to(y.dtype.element_ty), mask=inside)


@dataclass(slots=True)
class Rope:
    """Rotate each head by the angles of its position: x_BTHC, positions_BT -> y_BTHC, dense, in x's dtype.

    Tables are float32, [positions, R]. A position outside them, also a negative one, gives NaN for that token:
    looking at the positions here would stop the GPU. The last axis of x must be dense; the others may have any stride.
    AprenderError for other dtypes, devices and shapes.
    """

    cos: Tensor  # [positions, R]
    sin: Tensor  # [positions, R]

    kernel = property(lambda self: triton_kernel(rope_rotate))
    backward_kernel = property(lambda self: triton_kernel(rope_rotate))

    def __post_init__(self) -> None:
        require_triton()
        for name, table in (("cos", self.cos), ("sin", self.sin)):
            if table.dtype != torch.float32 or not table.is_contiguous():
                raise AprenderError(f"Rope: the table {name} must be dense float32, is {table.dtype}")
        check_shape("Rope", "the table sin", self.sin, tuple(self.cos.shape))

    def forward(self, x_BTHC: Tensor, positions_BT: Tensor) -> tuple[Tensor, Saved]:
        """Rotate; saves the positions."""
        return self._rotate(x_BTHC, positions_BT, inverse=False), (positions_BT,)

    def backward(self, saved: Saved, d_output: Tensor) -> Gradients:
        """Compute (d_x,) in d_output's dtype; there are no parameters."""
        (positions_BT,) = saved
        return (self._rotate(d_output, positions_BT, inverse=True),), {}

    def __call__(self, x_BTHC: Tensor, positions_BT: Tensor) -> Tensor:
        """Rotate."""
        return self._rotate(x_BTHC, positions_BT, inverse=False)

    def _rotate(self, x_BTHC: Tensor, positions_BT: Tensor, inverse: bool) -> Tensor:
        check_floats("Rope", x=x_BTHC)
        check_integers("Rope", x_BTHC, positions=positions_BT)
        check_same_device("Rope", x_BTHC, "the tables", self.cos)
        check_device(self.sin.device)
        B, T, H, C = x_BTHC.shape
        check_shape("Rope", "positions", positions_BT, (B, T))
        if 2 * self.cos.shape[1] != C or x_BTHC.stride(-1) != 1:
            raise AprenderError(f"Rope: x needs a dense last axis of {2 * self.cos.shape[1]} channels, it has {C}")
        y = empty((B, T, H, C), x_BTHC.dtype, x_BTHC.device)
        rows = elementwise_tile(x_BTHC.device).rows
        launch(
            rope_rotate,
            (triton.cdiv(B * T, rows),),
            *(x_BTHC, positions_BT.contiguous(), self.cos, self.sin, y),
            *(B * T, T, self.cos.shape[0], *x_BTHC.stride()[:3]),
            H=H,
            R=C // 2,
            INVERSE=inverse,
            ROWS=rows,
            HEADS=power_of_two(H),
            PAIRS=power_of_two(C // 2),
        )
        return y

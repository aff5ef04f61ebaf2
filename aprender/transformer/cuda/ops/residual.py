"""The residual stream's addition, where it is not fused with a norm.

Formula (He et al. 2015, arXiv 1512.03385, eq. 1): ``y = x + branch``. Backward: both gradients are ``dy``.

Rounding plan: the sum in float32, rounded once to x's dtype, which is float32 or branch's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops.blocks import flat_block
from aprender.transformer.cuda.ops.checks import check_floats, check_same_device, check_shape
from aprender.transformer.cuda.ops.memory import empty
from aprender.transformer.cuda.ops.runtime import launch, require_triton, tl, triton, triton_kernel
from aprender.transformer.cuda.ops.stage import Gradients, Saved


@triton.jit
def residual_add(x, branch, y, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(x + place, mask=place < n).to(tl.float32) + tl.load(branch + place, mask=place < n).to(tl.float32)
    tl.store(y + place, total.to(y.dtype.element_ty), mask=place < n)


@dataclass(slots=True)
class ResidualAdd:
    """``x + branch``: x_..D (float32 or bfloat16), branch_..D (x's dtype, or bfloat16) -> y_..D in x's dtype."""

    kernel = property(lambda self: triton_kernel(residual_add))
    backward_kernel = property(lambda self: "")

    def __post_init__(self) -> None:
        require_triton()

    def forward(self, x: Tensor, branch: Tensor) -> tuple[Tensor, Saved]:
        """Add; saves an empty tensor of branch's dtype, in which its gradient will be."""
        check_floats("ResidualAdd", x=x)
        check_floats("ResidualAdd", branch=branch)
        check_same_device("ResidualAdd", x, "branch", branch)
        check_shape("ResidualAdd", "branch", branch, tuple(x.shape))
        if x.dtype not in (branch.dtype, torch.float32):
            raise AprenderError(f"ResidualAdd: x is {x.dtype} beside a {branch.dtype} branch; it may be float32")
        y = empty(tuple(x.shape), x.dtype, x.device)
        block = flat_block(x.device)
        n = x.numel()
        launch(residual_add, (triton.cdiv(n, block),), x.contiguous(), branch.contiguous(), y, n, BLOCK=block)
        return y, (branch.new_empty(0),)

    def backward(self, saved: Saved, d_output: Tensor) -> Gradients:
        """Pass d_output on as (d_x, d_branch): the same values, d_branch rounded to branch's dtype."""
        return (d_output, d_output.to(saved[0].dtype)), {}

    def __call__(self, x: Tensor, branch: Tensor) -> Tensor:
        """Add."""
        return self.forward(x, branch)[0]

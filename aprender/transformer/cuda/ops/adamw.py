"""AdamW, one kernel per tensor, and the clipping of gradients by their global norm.

Formula (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2, with eps outside the root and the learning rate on
the decay, as torch has them), for step t = 1, 2, ...::

    m = beta1 m + (1 - beta1) g                v = beta2 v + (1 - beta2) g^2
    w = w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) - lr weight_decay w

Clipping (Pascanu et al. 2013, arXiv 1211.5063, algorithm 1): ``g * min(1, max_norm / |g|)``, over all parameters
together.

Rounding plan: w, m and v are float32; g is float32 or bfloat16; constants are computed in float64 and rounded once.
Everything is float32; the change and the decay of w are added up first, and w is rounded once. A bfloat16 copy of w,
where there is one, is rounded from the new float32 w. Squares for the norm are added up in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops.blocks import flat_block
from aprender.transformer.cuda.ops.checks import check_floats, check_same_device, check_shape
from aprender.transformer.cuda.ops.memory import empty
from aprender.transformer.cuda.ops.runtime import launch, require_triton, tl, triton, triton_kernel


@triton.jit
def adamw_step(  # type: ignore[no-untyped-def]
    w,
    g,
    m,
    v,
    clip,
    copy,
    n,
    beta1,
    rest1,
    beta2,
    rest2,
    correction1,
    correction2,
    lr,
    decay,
    eps,
    HAS_CLIP: tl.constexpr,
    HAS_COPY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < n
    weight = tl.load(w + place, mask=inside, other=0.0)
    gradient = tl.load(g + place, mask=inside, other=0.0).to(tl.float32)
    if HAS_CLIP:
        gradient *= tl.load(clip)
    first = beta1 * tl.load(m + place, mask=inside, other=0.0) + rest1 * gradient
    second = beta2 * tl.load(v + place, mask=inside, other=0.0) + rest2 * (gradient * gradient)
    root = tl.sqrt_rn(tl.div_rn(second, tl.zeros_like(second) + correction2))
    step = tl.div_rn(tl.div_rn(first, tl.zeros_like(first) + correction1), root + eps)
    weight -= lr * step + decay * weight
    tl.store(m + place, first, mask=inside)
    tl.store(v + place, second, mask=inside)
    tl.store(w + place, weight, mask=inside)
    if HAS_COPY:
        tl.store(copy + place, weight.to(copy.dtype.element_ty), mask=inside)


@triton.jit
def sum_of_squares(x, by_block, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + place, mask=place < n, other=0.0).to(tl.float64)
    tl.store(by_block + tl.program_id(0), tl.sum(values * values, axis=0))


@dataclass(frozen=True, slots=True)
class AdamW:
    """The update of one tensor at a time. Hyperparameters are plain numbers; ``lr`` may be replaced every step."""

    lr: float
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1

    kernel = property(lambda self: triton_kernel(adamw_step))

    def __post_init__(self) -> None:
        require_triton()
        if not (self.lr >= 0 and self.eps > 0 and self.weight_decay >= 0):
            raise AprenderError(f"AdamW: lr, eps and weight_decay must not be negative, nor eps 0: {self}")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise AprenderError(f"AdamW: betas must lie in [0, 1): {self.beta1} and {self.beta2}")

    def update(
        self,
        weight: Tensor,
        gradient: Tensor,
        m: Tensor,
        v: Tensor,
        t: int,
        clip: Tensor | None = None,
        copy: Tensor | None = None,
    ) -> None:
        """Take step ``t`` (the first is 1) in place: weight, m and v, dense float32; ``copy`` gets the new weight.

        ``clip``, a float32 scalar from ``clip_scale``, multiplies the gradient, which stays as it is. AprenderError
        for another dtype, shape, device or step number.
        """
        self._check(weight, gradient, m, v, t, copy)
        n, block = weight.numel(), flat_block(weight.device)
        launch(
            adamw_step,
            (triton.cdiv(n, block),),
            *(weight, gradient.contiguous(), m, v, weight if clip is None else clip, weight if copy is None else copy),
            *(n, float(self.beta1), 1.0 - self.beta1, float(self.beta2), 1.0 - self.beta2),
            *(1.0 - self.beta1**t, 1.0 - self.beta2**t, float(self.lr), self.lr * self.weight_decay, float(self.eps)),
            HAS_CLIP=clip is not None,
            HAS_COPY=copy is not None,
            BLOCK=block,
        )

    def _check(self, weight: Tensor, gradient: Tensor, m: Tensor, v: Tensor, t: int, copy: Tensor | None) -> None:
        if t < 1:
            raise AprenderError(f"AdamW: step {t}; the first step is 1")
        check_floats("AdamW", gradient=gradient)
        check_floats("AdamW", weight=weight, m=m, v=v)
        written = {"weight": weight, "m": m, "v": v} | ({} if copy is None else {"copy": copy})
        for name, tensor in written.items():
            check_shape("AdamW", name, tensor, tuple(gradient.shape))
            check_same_device("AdamW", gradient, name, tensor)
            if not tensor.is_contiguous() or (name != "copy" and tensor.dtype != torch.float32):
                raise AprenderError(f"AdamW: {name} must be dense float32 memory, it is {tensor.dtype}")


def global_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Compute the square root of the sum of all squares, as a float64 scalar on the gradients' device.

    Squares are added up in float64, so that neither their range nor their number loses any. AprenderError for none at
    all, and for gradients that are not float32 or bfloat16 on one device.
    """
    require_triton()
    if not gradients:
        raise AprenderError("the global norm of no gradients at all: nothing would be clipped")
    sums = []
    for gradient in gradients:
        check_floats("global_norm", gradient=gradient)
        check_same_device("global_norm", gradients[0], "a gradient", gradient)
        n, block = gradient.numel(), flat_block(gradient.device)
        by_block = empty((triton.cdiv(n, block),), torch.float64, gradient.device)
        launch(sum_of_squares, (len(by_block),), gradient.contiguous(), by_block, n, BLOCK=block)
        sums.append(by_block.sum())
    return torch.stack(sums).sum().sqrt()


def clip_scale(norm: Tensor, max_norm: float) -> Tensor:
    """Compute ``min(1, max_norm / norm)``, a float32 scalar, without waiting for the GPU. NaN stays NaN.

    Raises AprenderError when ``max_norm`` is not positive.
    """
    if not max_norm > 0:
        raise AprenderError(f"gradients can't be clipped to a norm of {max_norm}: it must be positive")
    return (max_norm / norm).clamp(max=1.0).to(torch.float32)

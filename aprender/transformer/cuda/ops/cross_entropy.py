"""The last projection and the loss in one stage, in chunks of positions: the logits are never all in memory.

Formula, for position n with target y_n over a vocabulary of V, in nats::

    z_n = W x_n        loss_n = ln(sum_v e^(z_nv)) - z_n[y_n]        loss = mean of loss_n over the valid n

Backward: ``dz_nv = (e^(z_nv - lse_n) - [v = y_n]) / valid``, then ``dx = dz W`` and ``dW = dz^T x``, both times
d_output. They are computed with the loss, while a chunk's logits are there (Hsu et al. 2024, Liger Kernel, arXiv
2410.10989, section 3.2).

Rounding plan: x and W float32 or bfloat16; logits, exponentials, their sum (block by block, relative to the greatest
logit so far), losses, dx and dW are float32; the mean is added up in float64. dz, divided by the number of valid
positions, is rounded to the storage dtype once, as the operand of two products; dx is rounded to it at the end, dW
never.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops.blocks import vocabulary_tile
from aprender.transformer.cuda.ops.checks import check_floats, check_integers, check_shape
from aprender.transformer.cuda.ops.exponential import exp
from aprender.transformer.cuda.ops.matmul import product
from aprender.transformer.cuda.ops.memory import empty
from aprender.transformer.cuda.ops.runtime import launch, library_kernel, require_triton, tl, triton, triton_kernel
from aprender.transformer.cuda.ops.stage import Gradients, Saved

# Logits of one chunk: 512 MiB in float32, 883 positions of Qwen2's 151,936 tokens.
_LOGITS_AT_ONCE = 2**27


@triton.jit
def cross_entropy(  # type: ignore[no-untyped-def]
    logits,
    targets,
    losses,
    d_logits,
    share,
    N,
    V,
    ignore_index,
    WITH_GRADIENT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Rows of logits: their losses, and where asked for their gradients, which may take the logits' own place."""
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)[None, :]
    target = tl.load(targets + n, mask=n < N, other=0).to(tl.int64)
    valid = target != ignore_index
    known = (target >= 0) & (target < V)
    # Read before the first reduction, which all threads wait for: later, d_logits may lie in the logits' place.
    z_target = tl.load(logits + n * V + tl.where(known, target, 0), mask=n < N, other=0.0)
    place = n[:, None] * V + column
    peak = tl.full([ROWS], float("-inf"), tl.float32)
    sums = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(0, V, BLOCK):
        inside = (n < N)[:, None] & (start + column < V)
        z = tl.load(logits + place + start, mask=inside, other=float("-inf"))
        new_peak = tl.maximum(peak, tl.max(z, axis=1))
        base = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        sums = sums * exp(peak - base, True)[:, None] + exp(z - base[:, None], True)
        peak = new_peak
    log_sum = tl.log(tl.sum(sums, axis=1))
    loss = tl.where(known, (peak - z_target) + log_sum, float("nan"))  # a target that does not exist has no loss
    tl.store(losses + n, tl.where(valid, loss, 0.0), mask=n < N)
    if WITH_GRADIENT:
        weight = tl.load(share)
        for start in range(0, V, BLOCK):
            inside = (n < N)[:, None] & (start + column < V)
            z = tl.load(logits + place + start, mask=inside, other=float("-inf"))
            p = exp((z - peak[:, None]) - log_sum[:, None], True)
            d_z = (p - (start + column == target[:, None]).to(tl.float32)) * weight
            d_z = tl.where(valid[:, None], d_z, 0.0)
            tl.store(d_logits + place + start, d_z.to(d_logits.dtype.element_ty), mask=inside)


@dataclass(slots=True)
class LinearCrossEntropy:
    """Mean loss in nats: x_..D, targets_.. (int32 or int64) -> a float32 scalar.

    Targets equal to ``ignore_index`` count for nothing: no loss, no gradient, not in the mean. Without a valid target
    the mean is NaN, as 0 / 0 is, and gradients are 0. A target outside the vocabulary gives NaN. AprenderError for
    other dtypes, devices and shapes. ``logits_at_once`` bounds a chunk.
    """

    weight: Tensor  # [V, D]
    ignore_index: int = -100
    logits_at_once: int = _LOGITS_AT_ONCE

    def __post_init__(self) -> None:
        require_triton()
        if 0 <= self.ignore_index < self.weight.shape[0]:
            raise AprenderError(f"LinearCrossEntropy: ignore_index {self.ignore_index} is a token of the vocabulary")

    @property
    def kernel(self) -> str:
        """What ``forward`` runs for each chunk; without gradients, as in ``__call__``, the first two."""
        mm = library_kernel(self.weight.device, "mm")
        return "+".join((mm, triton_kernel(cross_entropy), mm, mm))

    backward_kernel = property(lambda self: "")

    def forward(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Saved]:
        """Compute the mean loss; saves d_x and the weight's gradient for d_output = 1, both float32, and x's dtype."""
        x_ND, targets_N = self._flat(x, targets)
        share = self._share(targets_N)
        losses = empty((len(x_ND),), torch.float32, x.device)
        d_x = empty(tuple(x_ND.shape), torch.float32, x.device)
        d_weight = empty(tuple(self.weight.shape), torch.float32, x.device).zero_()
        for rows in self._chunks(len(x_ND)):
            d_logits = self._chunk(x_ND[rows], targets_N[rows], losses[rows], share)
            d_x[rows] = product(d_logits, self.weight, torch.float32)
            d_weight += product(d_logits.T, x_ND[rows], torch.float32)
        return self._mean(losses, targets_N), (d_x.view(x.shape), d_weight, x.new_empty(0))

    def backward(self, saved: Saved, d_output: Tensor) -> Gradients:
        """Compute (d_x,) in x's dtype, and ``weight``, [V, D] float32, from the scalar d_output."""
        d_x, d_weight, like_x = saved
        scale = d_output.to(torch.float32)
        return ((d_x * scale).to(like_x.dtype),), {"weight": d_weight * scale}

    def token_losses(self, x: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of each target in nats, float32, in the targets' shape; 0 where ignored."""
        x_ND, targets_N = self._flat(x, targets)
        losses = empty((len(x_ND),), torch.float32, x.device)
        for rows in self._chunks(len(x_ND)):
            self._chunk(x_ND[rows], targets_N[rows], losses[rows], None)
        return losses.view(targets.shape)

    def __call__(self, x: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean loss."""
        return self._mean(self.token_losses(x, targets).flatten(), targets.flatten())

    def _chunk(self, x_nD: Tensor, targets_n: Tensor, losses_n: Tensor, share: Tensor | None) -> Tensor:
        """Write a chunk's losses; return its d_logits in the storage dtype, when there is a ``share``."""
        logits_nV = product(x_nD, self.weight.T, torch.float32)
        d_logits_nV = logits_nV
        if share is not None and x_nD.dtype != torch.float32:
            d_logits_nV = empty(tuple(logits_nV.shape), x_nD.dtype, x_nD.device)
        tile = vocabulary_tile(x_nD.device)
        launch(
            cross_entropy,
            (triton.cdiv(len(x_nD), tile.rows),),
            *(logits_nV, targets_n, losses_n, d_logits_nV, losses_n if share is None else share),
            *(*logits_nV.shape, self.ignore_index),
            WITH_GRADIENT=share is not None,
            ROWS=tile.rows,
            BLOCK=tile.columns,
            num_warps=8,
        )
        return d_logits_nV

    def _chunks(self, N: int) -> list[slice]:
        rows = max(1, self.logits_at_once // self.weight.shape[0])
        return [slice(start, min(start + rows, N)) for start in range(0, N, rows)]

    def _flat(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        check_floats("LinearCrossEntropy", weight=self.weight, x=x)
        check_integers("LinearCrossEntropy", x, targets=targets)
        check_shape("LinearCrossEntropy", "targets", targets, tuple(x.shape[:-1]))
        check_shape("LinearCrossEntropy", "x", x, (*x.shape[:-1], self.weight.shape[1]))
        return x.reshape(-1, x.shape[-1]), targets.flatten().contiguous()

    def _share(self, targets_N: Tensor) -> Tensor:
        # One device scalar, no wait for the GPU; inf when nothing is valid, and then no row takes its product.
        return (targets_N != self.ignore_index).sum().to(torch.float32).reciprocal()

    def _mean(self, losses_N: Tensor, targets_N: Tensor) -> Tensor:
        valid = (targets_N != self.ignore_index).sum()
        return (losses_N.sum(dtype=torch.float64) / valid).to(torch.float32)

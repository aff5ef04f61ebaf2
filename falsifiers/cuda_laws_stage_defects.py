"""Planted defects of all stages but attention that laws must catch: forward."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from falsifiers.cuda_laws_attention import in_order
from falsifiers.cuda_laws_planting import computing, fed, in_tf32
from falsifiers.cuda_laws_system import IGNORED, LR, Step
from falsifiers.cuda_operator_planting import Planting, in_bfloat16, stages_wrong
from falsifiers.cuda_operator_system import ReplaceableStages

DEFECTS = Defects()
BIAS, EXACT, NORM, FUSED, ROPE, LOSS = (
    ("linear_of_zeros",),
    ("linear_of_integers",),
    ("rms_norm",),
    ("add_norm",),
    ("rope",),
    ("loss",),
)


def _linear(
    system: ReplaceableStages, names: tuple[str, ...], **changes: Callable[[Tensor], Tensor | None]
) -> Planting:
    """The right stage with another weight or bias."""

    def compute(right: Any, x: Tensor) -> Any:
        return replace(right, **{name: change(getattr(right, name)) for name, change in changes.items()})(x)

    return computing(system, names, compute)


@DEFECTS.plant("bias_dropped")
def bias_dropped(system: ReplaceableStages) -> Planting:
    """The founding defect."""
    return _linear(system, BIAS, bias=lambda bias: None)


@DEFECTS.plant("bias_added_twice")
def bias_added_twice(system: ReplaceableStages) -> Planting:
    """By the projection, and by its caller."""
    return _linear(system, BIAS, bias=lambda bias: 2 * bias)


@DEFECTS.plant("bias_rolled_by_one")
def bias_rolled_by_one(system: ReplaceableStages) -> Planting:
    """Off by one."""
    return _linear(system, BIAS, bias=lambda bias: bias.roll(1))


@DEFECTS.plant("bias_in_bfloat16")
def bias_in_bfloat16(system: ReplaceableStages) -> Planting:
    """Half of its bits."""
    return _linear(system, BIAS, bias=in_bfloat16)


@DEFECTS.plant("keys_and_values_exchanged")
def keys_and_values_exchanged(system: ReplaceableStages) -> Planting:
    """The fused product is split in the order q, v, k."""
    return computing(system, ("projections_of_integers",), lambda right, x: tuple(right(x)[i] for i in (0, 2, 1)))


@DEFECTS.plant("tf32_on")
def tf32_on(system: ReplaceableStages) -> Planting:
    """Products of float32 with 10 bits of mantissa."""
    return fed(system, EXACT, lambda x: (in_tf32(x),))


@DEFECTS.plant("partial_sums_in_bfloat16")
def partial_sums_in_bfloat16(system: ReplaceableStages) -> Planting:
    """Two halves of K, each rounded to bfloat16 before they are added: cuBLAS's reduced-precision reduction."""

    def compute(right: Any, x: Tensor) -> Any:
        parts = (x[..., i::2].float() @ right.weight[:, i::2].float().T for i in (0, 1))
        return (sum(part.bfloat16() for part in parts) + right.bias).to(x.dtype)

    return computing(system, EXACT, compute, "bfloat16")


@DEFECTS.plant("k_tail_dropped")
def k_tail_dropped(system: ReplaceableStages) -> Planting:
    """K beyond the last whole tile of 16 is never read."""
    return fed(system, EXACT, lambda x: (torch.cat((x[..., :32], 0 * x[..., 32:]), -1),))


@DEFECTS.plant("rows_beyond_a_tile_not_computed")
def rows_beyond_a_tile_not_computed(system: ReplaceableStages) -> Planting:
    """The last rows hold what was there: here 0."""

    def compute(right: Any, x: Tensor) -> Any:
        y: Tensor = right(x).clone()
        y.flatten(0, 1)[8:] = 0
        return y

    return computing(system, EXACT, compute)


@DEFECTS.plant("eps_times_ten")
def eps_times_ten(system: ReplaceableStages) -> Planting:
    """Ten times the eps."""
    return computing(system, NORM, lambda right, x: replace(right, eps=10 * right.eps)(x))


@DEFECTS.plant("eps_hard_coded")
def eps_hard_coded(system: ReplaceableStages) -> Planting:
    """1e-6, whatever the configuration says."""
    return computing(system, NORM, lambda right, x: replace(right, eps=1e-6)(x))


@DEFECTS.plant("eps_outside_the_root")
def eps_outside_the_root(system: ReplaceableStages) -> Planting:
    """Added to the rms."""

    def compute(right: Any, x: Tensor) -> Any:
        rms = x.float().square().mean(-1, keepdim=True).sqrt() + right.eps
        return (x.float() / rms * right.weight.float()).to(x.dtype)

    return computing(system, NORM, compute)


@DEFECTS.plant("statistics_of_the_whole_batch")
def statistics_of_the_whole_batch(system: ReplaceableStages) -> Planting:
    """One rms for all rows: another row is seen."""

    def compute(right: Any, x: Tensor) -> Any:
        return (x.float() * (x.float().square().mean() + right.eps).rsqrt() * right.weight).to(x.dtype)

    return computing(system, NORM, compute)


@DEFECTS.plant("order_of_sums_depends_on_the_batch")
def order_of_sums_depends_on_the_batch(system: ReplaceableStages) -> Planting:
    """A row by itself is split over more programs, and its sum adds up in another order."""

    def compute(right: Any, x: Tensor) -> Any:
        if len(x) > 1:
            y: Tensor = right(x)
            return y
        mean = torch.zeros_like(x[..., :1], dtype=torch.float32)
        for column in reversed(x.float().chunk(x.shape[-1], -1)):  # one after the other: off by several ulp, not by one
            mean = mean + column.square() / x.shape[-1]
        return (x.float() * (mean + right.eps).rsqrt() * right.weight).to(x.dtype)

    return computing(system, NORM, compute)


@DEFECTS.plant("norm_of_the_unrounded_sum")
def norm_of_the_unrounded_sum(system: ReplaceableStages) -> Planting:
    """The fused norm goes on from the float32 sum, and returns the rounded one."""

    def compute(right: Any, x: Tensor, branch: Tensor) -> Any:
        h = x.float() + branch.float()
        normed = h * (h.square().mean(-1, keepdim=True) + right.eps).rsqrt() * right.weight.float()
        return h.to(x.dtype), normed.to(x.dtype)

    return computing(system, FUSED, compute, "bfloat16")


@DEFECTS.plant("fused_norm_returns_its_input_as_the_sum")
def fused_norm_returns_its_input_as_the_sum(system: ReplaceableStages) -> Planting:
    """The residual stream loses the branch."""
    return computing(system, FUSED, lambda right, x, branch: (x, right(x, branch)[1]))


@DEFECTS.plant("branch_dropped")
def branch_dropped(system: ReplaceableStages) -> Planting:
    """The residual addition returns its input."""
    return computing(system, ("residual",), lambda right, x, branch: x.clone())


@DEFECTS.plant("token_ids_off_by_one")
def token_ids_off_by_one(system: ReplaceableStages) -> Planting:
    """The next row of the table."""
    return fed(system, ("embedding",), lambda tokens: ((tokens + 1) % 19,))


@DEFECTS.plant("gate_and_up_swapped")
def gate_and_up_swapped(system: ReplaceableStages) -> Planting:
    """SiLU of the other half."""
    return fed(system, ("swiglu",), lambda gate, up: (up, gate))


@DEFECTS.plant("sigmoid_saturates_early")
def sigmoid_saturates_early(system: ReplaceableStages) -> Planting:
    """An exponential clamped at 8, as fast ones are: 32 is not passed on whole."""
    return computing(system, ("swiglu",), lambda right, gate, up: gate * gate.clamp(-8, 8).sigmoid() * up)


@DEFECTS.plant("rows_stride_missing_in_rope")
def rows_stride_missing_in_rope(system: ReplaceableStages) -> Planting:
    """All rows stand where the first one does."""
    return fed(system, ROPE, lambda x, at: (x, at[:1].expand_as(at)))


@DEFECTS.plant("rope_starts_at_one")
def rope_starts_at_one(system: ReplaceableStages) -> Planting:
    """The first token is rotated already."""
    return fed(system, ROPE, lambda x, at: (x, (at + 1) % 4099))


@DEFECTS.plant("rope_ignores_positions")
def rope_ignores_positions(system: ReplaceableStages) -> Planting:
    """Places in the tensor count, not positions: packed documents and decode go wrong."""
    return fed(system, ROPE, lambda x, at: (x, in_order(at)))


@DEFECTS.plant("rope_is_no_rotation")
def rope_is_no_rotation(system: ReplaceableStages) -> Planting:
    """The sine has the wrong sign in one half: lengths change."""

    def compute(right: Any, x: Tensor, at: Tensor) -> Any:
        first, second = right(x, at).chunk(2, -1)[0], replace(right, sin=-right.sin)(x, at).chunk(2, -1)[1]
        return torch.cat((first, second), -1)

    return computing(system, ROPE, compute)


@DEFECTS.plant("loss_averaged_over_ignored_targets")
def loss_averaged_over_ignored_targets(system: ReplaceableStages) -> Planting:
    """Divided by all targets."""

    def compute(right: Any, x: Tensor, targets: Tensor) -> Any:
        return right(x, targets) * (targets != IGNORED).double().mean().float()

    return computing(system, LOSS, compute)


@DEFECTS.plant("loss_in_bits")
def loss_in_bits(system: ReplaceableStages) -> Planting:
    """Base 2."""
    return computing(system, LOSS, lambda right, x, targets: right(x, targets) / math.log(2))


@DEFECTS.plant("ignored_targets_counted")
def ignored_targets_counted(system: ReplaceableStages) -> Planting:
    """As if their target were token 0."""
    return fed(system, LOSS, lambda x, targets: (x, targets.clamp(min=0)))


@DEFECTS.plant("token_losses_read_the_first_row")
def token_losses_read_the_first_row(system: ReplaceableStages) -> Planting:
    """The offset of a row's hidden state is missing."""
    return fed(system, ("token_losses",), lambda x, targets: (x[:1].expand_as(x), targets))


@DEFECTS.plant("first_step_not_bias_corrected")
def first_step_not_bias_corrected(system: ReplaceableStages) -> Planting:
    """The moments of the first step as if they were those of a far one."""
    return stages_wrong(system, ("adamw_first",), lambda right: Step(right.optimizer, 10**6), "float32")


@DEFECTS.plant("learning_rate_ignored")
def learning_rate_ignored(system: ReplaceableStages) -> Planting:
    """A schedule that never arrives."""
    return stages_wrong(
        system, ("adamw_first",), lambda right: Step(replace(right.optimizer, lr=LR / 3), right.t), "float32"
    )

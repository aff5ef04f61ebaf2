"""Planted defects of the CUDA path's AdamW and of its clipping: what they are called with, or return, is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.cuda.ops import AdamW
from falsifiers.cuda_operator_planting import Planting, in_bfloat16
from falsifiers.cuda_operator_system import OperatorsUnderContract

DEFECTS = Defects()


def _planted(system: OperatorsUnderContract, name: str, make: Callable[[Any], Any]) -> Planting:
    with system.function_replaced(name, make(getattr(system, name))):
        yield


def _with(system: OperatorsUnderContract, change: Callable[[AdamW, int], tuple[AdamW, int]]) -> Planting:
    """The right update by another optimizer, or as another step."""

    def make(right: Any) -> Any:
        def update(optimizer: AdamW, w: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, *rest: Any) -> None:
            other, t = change(optimizer, t)
            right(other, w, g, m, v, t, *rest)

        return update

    return _planted(system, "update", make)


@DEFECTS.plant("adam_step_stuck_at_one")
def adam_step_stuck_at_one(system: OperatorsUnderContract) -> Planting:
    """The counter is never advanced."""
    return _with(system, lambda optimizer, t: (optimizer, 1))


@DEFECTS.plant("adam_bias_correction_missing")
def adam_bias_correction_missing(system: OperatorsUnderContract) -> Planting:
    """As in a far step."""
    return _with(system, lambda optimizer, t: (optimizer, 10**6))


@DEFECTS.plant("adam_eps_too_large")
def adam_eps_too_large(system: OperatorsUnderContract) -> Planting:
    """1e-4."""
    return _with(system, lambda optimizer, t: (replace(optimizer, eps=1e-4), t))


@DEFECTS.plant("weight_decay_missing")
def weight_decay_missing(system: OperatorsUnderContract) -> Planting:
    """Adam."""
    return _with(system, lambda optimizer, t: (replace(optimizer, weight_decay=0.0), t))


@DEFECTS.plant("weight_decay_without_the_learning_rate")
def weight_decay_without_the_learning_rate(system: OperatorsUnderContract) -> Planting:
    """The paper's schedule of its own, on torch's numbers."""
    return _with(
        system, lambda optimizer, t: (replace(optimizer, weight_decay=optimizer.weight_decay / optimizer.lr), t)
    )


@DEFECTS.plant("learning_rate_ignored")
def learning_rate_ignored(system: OperatorsUnderContract) -> Planting:
    """The schedule's first value, for ever."""
    return _with(system, lambda optimizer, t: (replace(optimizer, lr=1e-3), t))


@DEFECTS.plant("betas_swapped")
def betas_swapped(system: OperatorsUnderContract) -> Planting:
    """Each moment decays as the other."""
    return _with(system, lambda optimizer, t: (replace(optimizer, beta1=optimizer.beta2, beta2=optimizer.beta1), t))


@DEFECTS.plant("l2_for_decoupled_decay")
def l2_for_decoupled_decay(system: OperatorsUnderContract) -> Planting:
    """The decay is added to the gradient, and goes through the moments."""

    def make(right: Any) -> Any:
        def update(optimizer: AdamW, w: Tensor, g: Tensor, *rest: Any) -> None:
            right(replace(optimizer, weight_decay=0.0), w, g + optimizer.weight_decay * w, *rest)

        return update

    return _planted(system, "update", make)


def _changed(
    system: OperatorsUnderContract, before: Callable[..., Any] | None = None, after: Callable[..., Any] | None = None
) -> Planting:
    """In place: ``before(w, m, v)`` on what the update is given, ``after(w, m, v)`` on what it wrote."""

    def make(right: Any) -> Any:
        def update(optimizer: AdamW, w: Tensor, g: Tensor, m: Tensor, v: Tensor, *rest: Any) -> None:
            if before:
                before(w, m, v)
            right(optimizer, w, g, m, v, *rest)
            if after:
                after(w, m, v)

        return update

    return _planted(system, "update", make)


@DEFECTS.plant("master_weights_in_bfloat16")
def master_weights_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """Small steps are lost."""
    return _changed(system, after=lambda w, m, v: w.copy_(in_bfloat16(w)))


@DEFECTS.plant("first_moment_in_bfloat16")
def first_moment_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """Half of its bits."""
    return _changed(system, after=lambda w, m, v: m.copy_(in_bfloat16(m)))


@DEFECTS.plant("second_moment_in_bfloat16")
def second_moment_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """Half of its bits, and none of its range."""
    return _changed(system, after=lambda w, m, v: v.copy_(in_bfloat16(v)))


@DEFECTS.plant("moments_not_kept")
def moments_not_kept(system: OperatorsUnderContract) -> Planting:
    """Zeroed at every step."""
    return _changed(system, before=lambda w, m, v: (m.zero_(), v.zero_()))


@DEFECTS.plant("copy_of_the_weights_is_stale")
def copy_of_the_weights_is_stale(system: OperatorsUnderContract) -> Planting:
    """The bfloat16 copy is made before the step."""

    def make(right: Any) -> Any:
        def update(optimizer: AdamW, w: Tensor, *rest: Any) -> None:
            stale = w.bfloat16()
            right(optimizer, w, *rest)
            rest[-1].copy_(stale)

        return update

    return _planted(system, "update", make)


@DEFECTS.plant("gradients_in_bfloat16_before_the_step")
def gradients_in_bfloat16_before_the_step(system: OperatorsUnderContract) -> Planting:
    """Rounded on the way to the optimizer."""

    def make(right: Any) -> Any:
        def update(optimizer: AdamW, w: Tensor, g: Tensor, *rest: Any) -> None:
            right(optimizer, w, in_bfloat16(g), *rest)

        return update

    return _planted(system, "update", make)


@DEFECTS.plant("gradients_not_divided_by_the_accumulated_steps")
def gradients_not_divided_by_the_accumulated_steps(system: OperatorsUnderContract) -> Planting:
    """Four steps' sum where their mean should be; clipping hides it from the update, not from the norm."""
    return _planted(system, "global_norm", lambda right: lambda gradients: right([4 * g for g in gradients]))


@DEFECTS.plant("clipping_missing")
def clipping_missing(system: OperatorsUnderContract) -> Planting:
    """The scale is 1."""
    return _planted(system, "clip_scale", lambda right: lambda norm, most: torch.ones_like(right(norm, most)))


@DEFECTS.plant("clipping_by_the_squared_norm")
def clipping_by_the_squared_norm(system: OperatorsUnderContract) -> Planting:
    """The root is missing."""
    return _planted(system, "global_norm", lambda right: lambda gradients: right(gradients) ** 2)


@DEFECTS.plant("clipping_by_the_first_tensors_norm")
def clipping_by_the_first_tensors_norm(system: OperatorsUnderContract) -> Planting:
    """Local, not global."""
    return _planted(system, "global_norm", lambda right: lambda gradients: right(gradients[:1]))

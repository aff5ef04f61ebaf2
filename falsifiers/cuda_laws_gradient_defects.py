"""Planted defects of the backward passes of all stages but attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from falsifiers.cuda_laws_attention import in_order
from falsifiers.cuda_laws_planting import differentiated_at, differentiating, gradients_of, in_tf32
from falsifiers.cuda_laws_system import IGNORED
from falsifiers.cuda_operator_planting import Planting, in_bfloat16
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


def _input(system: ReplaceableStages, names: tuple[str, ...], change: Callable[..., Tensor]) -> Planting:
    """The gradient of the first input is ``change(right, inputs, d_output, it)``."""

    def changed(right: Any, inputs: Any, d_output: Any, d_inputs: Any, parameters: Any) -> Any:
        return (change(right, inputs, d_output, d_inputs[0]), *d_inputs[1:]), parameters

    return differentiating(system, names, changed)


def _parameter(system: ReplaceableStages, names: tuple[str, ...], name: str, change: Callable[..., Tensor]) -> Planting:
    """The gradient of a parameter is ``change(right, inputs, d_output, it)``."""

    def changed(right: Any, inputs: Any, d_output: Any, d_inputs: Any, parameters: Any) -> Any:
        return d_inputs, parameters | {name: change(right, inputs, d_output, parameters[name])}

    return differentiating(system, names, changed)


@DEFECTS.plant("rms_norm_backward_treats_rms_as_constant")
def rms_norm_backward_treats_rms_as_constant(system: ReplaceableStages) -> Planting:
    """The gradient through the root is missing."""

    def change(right: Any, inputs: Any, dy: Tensor, dx: Tensor) -> Any:
        r = (inputs[0].square().mean(-1, keepdim=True) + right.eps).rsqrt()
        return dy * right.weight * r

    return _input(system, NORM, change)


@DEFECTS.plant("rms_norm_backward_eps_hard_coded")
def rms_norm_backward_eps_hard_coded(system: ReplaceableStages) -> Planting:
    """1e-6 in the backward pass alone."""
    return _input(system, NORM, lambda right, inputs, dy, dx: gradients_of(replace(right, eps=1e-6), inputs, dy)[0][0])


@DEFECTS.plant("gradient_through_the_mean_of_all_rows")
def gradient_through_the_mean_of_all_rows(system: ReplaceableStages) -> Planting:
    """Rows share a term of their gradients."""
    return _input(system, FUSED, lambda right, inputs, dy, dx: dx + 0.01 * dx.mean())


@DEFECTS.plant("bias_gradient_of_the_first_row")
def bias_gradient_of_the_first_row(system: ReplaceableStages) -> Planting:
    """Not summed."""
    return _parameter(system, EXACT, "bias", lambda right, inputs, dy, db: dy.flatten(0, 1)[0].float())


@DEFECTS.plant("weight_gradient_in_tf32")
def weight_gradient_in_tf32(system: ReplaceableStages) -> Planting:
    """Only the backward pass has the fast mode on."""
    return _parameter(
        system, EXACT, "weight", lambda right, inputs, dy, dw: in_tf32(dy).flatten(0, 1).T @ inputs[0].flatten(0, 1)
    )


@DEFECTS.plant("weight_gradient_in_bfloat16")
def weight_gradient_in_bfloat16(system: ReplaceableStages) -> Planting:
    """Rounded to the storage dtype of the weights."""
    return _parameter(system, EXACT, "weight", lambda right, inputs, dy, dw: in_bfloat16(dw))


@DEFECTS.plant("repeated_tokens_counted_once")
def repeated_tokens_counted_once(system: ReplaceableStages) -> Planting:
    """An assignment where an addition should be."""

    def change(right: Any, inputs: Any, dy: Tensor, dw: Tensor) -> Any:
        dw = torch.zeros_like(dw)
        dw[inputs[0].flatten()] = dy.flatten(0, 1).float()
        return dw

    return _parameter(system, ("embedding",), "weight", change)


@DEFECTS.plant("repeated_tokens_beyond_a_tile_dropped")
def repeated_tokens_beyond_a_tile_dropped(system: ReplaceableStages) -> Planting:
    """Only the first 8 occurrences of a token are added up."""

    def change(right: Any, inputs: Any, dy: Tensor, dw: Tensor) -> Any:
        tokens, rows = inputs[0].flatten(), dy.flatten(0, 1).float()
        earlier = (tokens[:, None] == tokens[None, :]).tril(-1).sum(1)
        return torch.zeros_like(dw).index_add(0, tokens[earlier < 8], rows[earlier < 8])

    return _parameter(system, ("embedding",), "weight", change)


@DEFECTS.plant("rope_backward_rotates_forward")
def rope_backward_rotates_forward(system: ReplaceableStages) -> Planting:
    """The angle keeps its sign."""
    return _input(system, ROPE, lambda right, inputs, dy, dx: right(dy, inputs[1]))


@DEFECTS.plant("rope_backward_ignores_positions")
def rope_backward_ignores_positions(system: ReplaceableStages) -> Planting:
    """Places in the tensor count in the backward pass."""
    return differentiated_at(system, ROPE, lambda x, at: (x, in_order(at)))


@DEFECTS.plant("gradients_clipped_inside")
def gradients_clipped_inside(system: ReplaceableStages) -> Planting:
    """A stage clamps its gradient: twice d_output no longer gives twice as much."""
    return _input(system, ("swiglu",), lambda right, inputs, dy, dx: dx.clamp(-1, 1))


@DEFECTS.plant("residual_gradient_averaged")
def residual_gradient_averaged(system: ReplaceableStages) -> Planting:
    """Rows share their gradient."""
    return _input(system, ("residual",), lambda right, inputs, dy, dx: dx.mean(0, keepdim=True).expand_as(dx))


@DEFECTS.plant("ignored_targets_have_gradients")
def ignored_targets_have_gradients(system: ReplaceableStages) -> Planting:
    """As if their target were token 0, in the backward pass alone."""
    return differentiated_at(system, LOSS, lambda x, targets: (x, targets.clamp(min=0)))


@DEFECTS.plant("logits_gradient_without_the_target")
def logits_gradient_without_the_target(system: ReplaceableStages) -> Planting:
    """The probabilities alone: a term of z-loss is like it."""

    def change(right: Any, inputs: Any, dy: Tensor, dw: Tensor) -> Any:
        x, targets = (tensor.flatten(0, 1) for tensor in inputs)
        valid = targets != IGNORED
        return dw.index_add(0, targets[valid], x[valid] / valid.sum())

    return _parameter(system, LOSS, "weight", change)

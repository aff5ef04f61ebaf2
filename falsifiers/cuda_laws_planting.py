"""How defects are planted where laws look: a stage replaced in one dtype, which is all that a law needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from falsifiers.cuda_operator_planting import Compute, Planting, WrongBackward, WrongForward, stages_wrong
from falsifiers.cuda_operator_system import ReplaceableStages


def computing(system: ReplaceableStages, names: tuple[str, ...], compute: Compute, dtypes: str = "float32") -> Planting:
    """Replace what the forward pass of ``names`` computes by ``compute(right, *inputs)``."""
    return stages_wrong(system, names, lambda right: WrongForward(right, compute), dtypes)


def differentiating(system: ReplaceableStages, names: tuple[str, ...], change: Compute) -> Planting:
    """Replace what the backward pass computes by ``change(right, inputs, d_output, d_inputs, d_parameters)``."""
    return stages_wrong(system, names, lambda right: WrongBackward(right, change), "float32")


def fed(system: ReplaceableStages, names: tuple[str, ...], change: Callable[..., Any]) -> Planting:
    """The right stage on ``change(*inputs)``."""
    return computing(system, names, lambda right, *inputs: right(*change(*inputs)))


def gradients_of(right: Any, inputs: tuple[Tensor, ...], d_output: Any) -> Any:
    """The right stage's gradients for other inputs."""
    return right.backward(right.forward(*inputs)[1], d_output)


def differentiated_at(system: ReplaceableStages, names: tuple[str, ...], change: Callable[..., Any]) -> Planting:
    """The right backward pass of ``change(*inputs)``; forward is right."""

    def changed(right: Any, inputs: Any, d_output: Any, d_inputs: Any, parameters: Any) -> Any:
        return gradients_of(right, change(*inputs), d_output)

    return differentiating(system, names, changed)


def in_tf32(x: Tensor) -> Tensor:
    """Rounded to TF32's 10 bits of mantissa, and back."""
    bits = x.float().contiguous().view(torch.int32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFF).view(torch.float32).to(x.dtype)

"""How defects are planted in the CUDA path's operators: stages replaced, in both dtypes, by wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from falsifiers.cuda_operator_cases import Leading
from falsifiers.cuda_operator_system import ReplaceableStages

Planting = Generator[None]
Compute = Callable[..., Any]

LINEAR = ("qkv_proj", "o_proj")
NORMS = ("input_layernorm", "add_norm", "k_norm")
ROPE = ("rope_q", "rope_k")
ATTENTION = ("attention", "attention_packed", "attention_decode")


@dataclass(frozen=True)
class WrongForward:
    """``compute(right, *inputs)`` is the output; the backward pass is the right one."""

    right: Any
    compute: Compute

    def __call__(self, *inputs: Tensor) -> Any:
        return self.compute(self.right, *inputs)

    def forward(self, *inputs: Tensor) -> tuple[Any, Any]:
        return self(*inputs), inputs

    def backward(self, saved: Any, d_output: Any) -> Any:
        return self.right.backward(self.right.forward(*saved)[1], d_output)


@dataclass(frozen=True)
class WrongBackward:
    """``change(right, inputs, d_output, d_inputs, d_parameters)`` gives the gradients; the output is the right one."""

    right: Any
    change: Compute

    def __call__(self, *inputs: Tensor) -> Any:
        return self.right(*inputs)

    def forward(self, *inputs: Tensor) -> tuple[Any, Any]:
        output, saved = self.right.forward(*inputs)
        return output, (inputs, saved)

    def backward(self, saved: Any, d_output: Any) -> Any:
        inputs, saved = saved
        d_inputs, d_parameters = self.right.backward(saved, d_output)
        return self.change(self.right, inputs, d_output, d_inputs, dict(d_parameters))


def stages_wrong(
    system: ReplaceableStages, names: tuple[str, ...], make: Callable[[Any], Any], dtypes: str = "both"
) -> Planting:
    """Replace the stages ``names`` by ``make(right)`` until the planting is undone."""
    keys = [(dtype, name) for dtype, name in system.stages if name in names and dtypes in ("both", dtype)]
    with system.replaced({key: make(system.stages[key]) for key in keys}):
        yield


def computing(system: ReplaceableStages, names: tuple[str, ...], compute: Compute) -> Planting:
    """Replace only what the forward pass of ``names`` computes."""
    return stages_wrong(system, names, lambda right: WrongForward(right, compute))


def after(system: ReplaceableStages, names: tuple[str, ...], change: Callable[[Tensor], Tensor]) -> Planting:
    """Change the output of ``names``."""
    return computing(system, names, lambda right, *inputs: change(right(*inputs)))


def differentiating(system: ReplaceableStages, names: tuple[str, ...], change: Compute) -> Planting:
    """Replace only what the backward pass of ``names`` computes."""
    return stages_wrong(system, names, lambda right: WrongBackward(right, change))


def input_gradients(
    system: ReplaceableStages, names: tuple[str, ...], change: Callable[[Tensor], Tensor], *places: int
) -> Planting:
    """Change the gradients of the inputs at ``places``."""

    def changed(right: Any, inputs: Any, dy: Any, d_inputs: Any, parameters: Any) -> Any:
        return tuple(change(dx) if i in places else dx for i, dx in enumerate(d_inputs)), parameters

    return differentiating(system, names, changed)


def parameter_gradient(
    system: ReplaceableStages, names: tuple[str, ...], name: str, change: Callable[[Tensor], Tensor]
) -> Planting:
    """Change the gradient of one parameter."""

    def changed(right: Any, inputs: Any, dy: Any, d_inputs: Any, parameters: Any) -> Any:
        return d_inputs, {**parameters, name: change(parameters[name])}

    return differentiating(system, names, changed)


def holding(system: ReplaceableStages, names: tuple[str, ...], **changes: Callable[[Any], Any]) -> Planting:
    """Change what the stages hold: each field to ``changes[field](its value)``. Their backward pass reads it too."""
    return stages_wrong(system, names, lambda right: with_fields(right, **changes))


def with_fields(right: Any, **changes: Callable[[Any], Any]) -> Any:
    """A copy of a stage with some fields changed."""
    if isinstance(right, Leading):
        return Leading(with_fields(right.stage, **changes), right.count)
    return replace(right, **{name: change(getattr(right, name)) for name, change in changes.items()})


def joined(tensors: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The outputs of a fused projection, or their gradients, side by side."""
    return tensors if isinstance(tensors, Tensor) else torch.cat(tensors, -1)


def in_bfloat16(x: Tensor) -> Tensor:
    """Rounded to bfloat16 and back."""
    return x.to(torch.bfloat16).to(x.dtype)


def tail_zero(x: Tensor, count: int, axis: int = -1) -> Tensor:
    """The last ``count`` along ``axis`` are 0."""
    x = x.clone()
    x.narrow(axis, x.shape[axis] - count, count).zero_()
    return x

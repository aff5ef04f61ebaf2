"""Stages: what a reference and a candidate must offer to be compared operator by operator.

A reference is a sequence of names and an iterator of ``ReferenceStage`` in that order, made one at a time: never are
the tensors of all stages in memory at once. A candidate is a mapping from name to ``Candidate``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from aprender.parity.blocks import Layout

Tensors = tuple[Tensor, ...]
Parameters = Mapping[str, Tensor | float]
Forward = Callable[[Tensors, Parameters], Tensor | Tensors]


class Gradients(NamedTuple):
    """Of a scalar by each input (None where it has none: tokens, tables, masks) and by each parameter, by name."""

    inputs: tuple[Tensor | None, ...]
    parameters: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Operator:
    """``forward(inputs, parameters)`` in the dtype of what it is given, and its vector-Jacobian product.

    ``vjp(inputs, parameters, d_outputs)`` is autograd of ``forward`` where none is given.
    """

    forward: Forward
    vjp: Callable[[Tensors, Parameters, Tensors], Gradients] | None = None


@dataclass(frozen=True, slots=True)
class ReferenceStage:
    """One operator on one input.

    ``inputs`` and ``parameters`` are rounded to the candidate's dtype already: the same for everybody. ``oracle`` gets
    them in float64 (integers and masks as they are); every one of ``plans``, the legal roundings, gets them as they are
    and returns what a candidate may return, in the dtype that it must have. Plain numbers among the parameters (eps, a
    scale) are perturbed for sensitivity like tensors.

    ``constants`` are the inputs (by index) that nobody differentiates by: tables, masks. ``masks``, among them, are not
    perturbed either. ``exact`` names the tensors (``output``, ``d_input 0``, ``d_parameter weight``) that admit no
    rounding but one correct one and are compared bit by bit. ``layouts`` says by the same names how axes are read.
    ``covered`` names parameters that a stage inside this one answers for: they need not show here.
    """

    name: str
    inputs: Tensors
    parameters: Parameters
    oracle: Operator
    plans: Mapping[str, Operator]
    constants: frozenset[int] = frozenset()
    masks: frozenset[int] = frozenset()
    exact: frozenset[str] = frozenset()
    covered: frozenset[str] = frozenset()
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    seed: int = 0

    def differentiable(self) -> tuple[int, ...]:
        """Which inputs have a gradient."""
        constant = self.constants | self.masks
        return tuple(i for i, x in enumerate(self.inputs) if x.is_floating_point() and i not in constant)


class Reference(Protocol):
    """Ordered named stages."""

    @property
    def names(self) -> Sequence[str]:
        """Every stage, in forward order."""

    def stages(self) -> Iterator[ReferenceStage]:
        """The same stages in the same order, each made when it is asked for."""


class Candidate(Protocol):
    """One operator of the code in question: called with the stage's inputs, it returns a tensor or a tuple."""

    def __call__(self, *inputs: Any) -> Any:
        """The output."""


@runtime_checkable
class Trainable(Candidate, Protocol):
    """A candidate that has a backward pass too."""

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        """The output, and what backward needs."""

    def backward(self, saved: Any, d_output: Any, /) -> tuple[Any, Mapping[str, Tensor]]:
        """(d_inputs, d_parameters): by input, in order (None, or nothing, where there is none); by parameter, by name.

        ``d_output`` is a tensor, or a tuple of them where the output is one.
        """


@dataclass(frozen=True, slots=True)
class Differentiated:
    """Makes a ``Trainable`` of a torch function: autograd is its backward."""

    function: Forward
    parameters: Mapping[str, Tensor | float]
    constants: frozenset[int] = frozenset()

    def __call__(self, *inputs: Tensor) -> Tensor | Tensors:
        return self.function(inputs, self.parameters)

    def forward(self, *inputs: Tensor) -> tuple[Tensor | Tensors, Tensors]:
        """The inputs are all that backward needs: it runs forward anew."""
        return self(*inputs), inputs

    def backward(self, saved: Tensors, d_output: Tensor | Tensors, /) -> tuple[Any, Mapping[str, Tensor]]:
        """Autograd's."""
        return autograd_vjp(self.function, saved, self.parameters, as_tuple(d_output), self.constants)


def autograd_vjp(
    forward: Forward, inputs: Tensors, parameters: Parameters, d_outputs: Tensors, constants: frozenset[int]
) -> Gradients:
    """Gradients of ``forward`` by torch's autograd; zeros where an input does not reach an output."""
    leaves = tuple(
        x.detach().requires_grad_() if x.is_floating_point() and i not in constants else x for i, x in enumerate(inputs)
    )
    tensors = {name: p.detach().requires_grad_() for name, p in parameters.items() if isinstance(p, Tensor)}
    with torch.enable_grad():
        outputs = as_tuple(forward(leaves, {**parameters, **tensors}))
    wanted = [x for x in (*leaves, *tensors.values()) if x.requires_grad]
    pairs = [(y, dy) for y, dy in zip(outputs, d_outputs, strict=True) if y.requires_grad]
    if not wanted or not pairs:
        return Gradients((None,) * len(inputs), {})
    found = iter(
        torch.autograd.grad(
            [y for y, _ in pairs], wanted, [dy for _, dy in pairs], allow_unused=True, materialize_grads=True
        )
    )
    return Gradients(
        tuple(next(found) if x.requires_grad else None for x in leaves), {name: next(found) for name in tensors}
    )


def as_tuple(output: Any) -> Tensors:
    """A stage's output as a tuple of tensors. Raises TypeError for anything but a tensor or a sequence of them."""
    outputs = (output,) if isinstance(output, Tensor) else tuple(output)
    for y in outputs:
        if not isinstance(y, Tensor):
            raise TypeError(f"a stage returns a tensor or a tuple of tensors, not {type(y).__name__}")
    return outputs


def in_float64(inputs: Tensors, parameters: Parameters) -> tuple[Tensors, Parameters]:
    """What the oracle is given: floats in float64, everything else as it is."""
    return (
        tuple(_double(x) for x in inputs),
        {name: _double(p) if isinstance(p, Tensor) else p for name, p in parameters.items()},
    )


def _double(x: Tensor) -> Tensor:
    return x.detach().double() if x.is_floating_point() else x

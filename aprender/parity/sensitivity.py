"""Vacuity: a comparison that could not have failed is ERROR, never GREEN.

Each parameter is moved by 10% in the oracle. If the oracle itself, so moved, would hardly be noticed, this input says
nothing about that parameter: a bias that is zero, an eps below every row, RoPE at position 0, attention over one key.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from aprender.parity.projections import PERTURBATION
from aprender.parity.stages import Parameters, ReferenceStage, Tensors, as_tuple, in_float64

# In envelopes. Float32 settles the mathematics: a parameter that is 0.1% off must still be seen. Sixteen bits prove the
# rounding plan: there a parameter that is 1% off must be seen, and one that is missing moves 100 envelopes.
LEAST_IN_FLOAT32, LEAST_IN_16_BITS = 100.0, 10.0

SATURATED = 0.99  # of all elements share one value: what is left says too little
SMALLEST = 2.0**10  # times the smallest normal number: below, rounding is not relative any more


def least(dtype: torch.dtype) -> float:
    """The least sensitivity, in envelopes, at which an observation counts."""
    return LEAST_IN_FLOAT32 if torch.finfo(dtype).bits >= 32 else LEAST_IN_16_BITS


def vacuous(z: Tensor) -> str:
    """Why nothing can be learnt from this oracle's result (of any dtype), or an empty string."""
    if z.numel() == 0:
        return "it has no elements"
    if not z.is_floating_point():
        return "it is constant" if z.numel() > 1 and bool((z == z.flatten()[0]).all()) else ""
    if not bool(torch.isfinite(z).all()):
        return "it is not finite"
    if not bool(z.any()):
        return "it is zero everywhere"
    if z.numel() == 1:
        return ""
    low, high = z.min(), z.max()
    if bool(low == high):
        return "it is constant"
    share = max(float((z == edge).double().mean()) for edge in (low, high))
    if share >= SATURATED and z.numel() > 1 / (1 - SATURATED):
        return f"{share:.1%} of it have one value: it is saturated"
    return ""


def too_small(z: Tensor, dtype: torch.dtype) -> str:
    """Whether it lies where ``dtype`` has few digits left, as a reason, or an empty string."""
    rms = float(z.square().mean().sqrt())
    return (
        f"its root mean square is {rms:.1e}: too small for {dtype}" if rms < SMALLEST * torch.finfo(dtype).tiny else ""
    )


def moved_by_parameters(stage: ReferenceStage) -> Iterator[tuple[str, Tensors]]:
    """The oracle's results with each parameter, and each table among the inputs, 10% larger, by name."""
    inputs, parameters = in_float64(stage.inputs, stage.parameters)
    for name, value in parameters.items():
        if name not in stage.covered:
            moved = {**parameters, name: value * (1 + PERTURBATION)}
            yield name, as_tuple(stage.oracle.forward(inputs, moved))
    for i in sorted(stage.constants - stage.masks):
        if inputs[i].is_floating_point():
            yield f"input {i}", _with_input(stage, inputs, parameters, i, inputs[i] * (1 + PERTURBATION))


def moved_by_inputs(stage: ReferenceStage, one_number: bool) -> Iterator[tuple[str, Tensors]]:
    """The oracle's results with each input perturbed: floats by +-10%, integers moved on by one place.

    Signs (drawn from ``stage.seed``), because operators that normalise do not see a common factor. In a mean over all
    rows, ``one_number``, random signs cancel, and so may moved tokens: there all floats are also made 10% larger, and
    every second, fourth and eighth integer alone is moved, under the same name; the largest change counts.
    """
    inputs, parameters = in_float64(stage.inputs, stage.parameters)
    generator = torch.Generator(inputs[0].device).manual_seed(stage.seed)
    for i, x in enumerate(inputs):
        if i in stage.constants | stage.masks or x.dtype == torch.bool:
            continue
        if x.is_floating_point():
            signs = torch.randint(2, x.shape, generator=generator, device=x.device).to(x) * 2 - 1
            perturbed = [x * (1 + PERTURBATION * signs), *([x * (1 + PERTURBATION)] if one_number else [])]
        else:
            place, rolled = torch.arange(x.numel(), device=x.device), x.flatten().roll(1)
            strides = (1, 2, 4, 8) if one_number else (1,)
            perturbed = [torch.where(place % n == 0, rolled, x.flatten()).view_as(x) for n in strides]
        for moved in perturbed:
            yield f"input {i}", _with_input(stage, inputs, parameters, i, moved)


def _with_input(stage: ReferenceStage, inputs: Tensors, parameters: Parameters, i: int, x: Tensor) -> Tensors:
    return as_tuple(stage.oracle.forward((*inputs[:i], x, *inputs[i + 1 :]), parameters))

"""Planted defects of the bias addition in the forward pass: the founding family.

They are planted in the biased model only: on a checkpoint without biases its own model stays as it is, and a probe of
that model reports them inert.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from aprender.falsify.probe import Defects
from aprender.transformer.cuda.ops import FusedLinear, Linear
from aprender.transformer.cuda.stages import get_stage
from falsifiers.planting import Planting, projections_wrong
from falsifiers.projections import WrongParts, bias_of, part
from falsifiers.transformer_system import TransformerUnderContract

DEFECTS = Defects()


@DEFECTS.plant("missing_bias_addition_in_forward")
def missing_bias_addition_in_forward(system: TransformerUnderContract) -> Planting:
    """The block holds its biases; the forward pass multiplies and never adds."""
    return projections_wrong(system, lambda p, x: functional.linear(x, p.weight))


@DEFECTS.plant("bias_added_twice")
def bias_added_twice(system: TransformerUnderContract) -> Planting:
    """The projection adds it, and its caller once more."""
    return projections_wrong(system, lambda p, x: functional.linear(x, p.weight, p.bias) + bias_of(p))


@DEFECTS.plant("bias_sign_flipped")
def bias_sign_flipped(system: TransformerUnderContract) -> Planting:
    """Subtracted instead of added."""
    return projections_wrong(system, lambda p, x: functional.linear(x, p.weight) - bias_of(p))


@DEFECTS.plant("bias_on_first_row_only")
def bias_on_first_row_only(system: TransformerUnderContract) -> Planting:
    """A kernel for one row, launched with a batch grid: batch rows after the first go without."""

    def compute(projection: Linear, x_BTK: Tensor) -> Tensor:
        first_B11 = (torch.arange(len(x_BTK), device=x_BTK.device) == 0)[:, None, None]
        return functional.linear(x_BTK, projection.weight) + first_B11 * bias_of(projection)

    return projections_wrong(system, compute)


@DEFECTS.plant("bias_on_first_position_only")
def bias_on_first_position_only(system: TransformerUnderContract) -> Planting:
    """The bias vector covers one position, not all T."""

    def compute(projection: Linear, x_BTK: Tensor) -> Tensor:
        first_T1 = (torch.arange(x_BTK.shape[1], device=x_BTK.device) == 0)[:, None]
        return functional.linear(x_BTK, projection.weight) + first_T1 * bias_of(projection)

    return projections_wrong(system, compute)


@DEFECTS.plant("bias_on_first_head_only")
def bias_on_first_head_only(system: TransformerUnderContract) -> Planting:
    """The bias loop runs over head_dim channels instead of all heads'."""
    head_dim = system.model.config.head_dim

    def compute(projection: Linear, x_BTK: Tensor) -> Tensor:
        bias_N = bias_of(projection)
        first_head_N = torch.arange(len(bias_N), device=bias_N.device) < head_dim
        return functional.linear(x_BTK, projection.weight) + first_head_N * bias_N

    return projections_wrong(system, compute)


@DEFECTS.plant("bias_added_after_rope")
def bias_added_after_rope(system: TransformerUnderContract) -> Planting:
    """Q and K are rotated first and biased then: the bias no longer turns with the position."""

    def rope_then_bias(block: Any, name: str) -> Callable[[Tensor, Tensor], Tensor]:
        rope, projection = getattr(block, name.replace("proj", "rope")), part(block.qkv_proj, name)

        def stage(x_BTHC: Tensor, positions_BT: Tensor) -> Tensor:
            rotated_BTHC: Tensor = rope(x_BTHC, positions_BT)
            return rotated_BTHC + bias_of(projection).reshape(x_BTHC.shape[2:])

        return stage

    with ExitStack() as planted:
        model = system.models["biased"]
        for index, block in enumerate(model.layers):
            names, fused = ("q_proj", "k_proj"), cast("FusedLinear", block.qkv_proj)
            for name in names:
                late = rope_then_bias(block, name)
                planted.enter_context(system.with_stage("biased", f"layers.{index}.{name[0]}_rope", late))
            unbiased = WrongParts(fused, names, lambda p, x: functional.linear(x, p.weight))
            planted.enter_context(system.with_stage("biased", f"layers.{index}.qkv_proj", unbiased))
        yield


@DEFECTS.plant("k_bias_missing_in_one_layer")
def k_bias_missing_in_one_layer(system: TransformerUnderContract) -> Planting:
    """One launch in the middle of the stack forgets its bias."""
    index = len(system.model.layers) // 2
    name = f"layers.{index}.qkv_proj"
    original: Any = get_stage(system.models["biased"], name)
    wrong = WrongParts(original, ("k_proj",), lambda p, x: functional.linear(x, p.weight))
    with system.with_stage("biased", name, wrong):
        yield

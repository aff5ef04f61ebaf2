"""Planted defects of the backward passes of attention and RoPE on the CUDA path: every output is right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from falsifiers.cuda_operator_cases import Leading
from falsifiers.cuda_operator_planting import (
    ROPE,
    Planting,
    differentiating,
    input_gradients,
    tail_zero,
)
from falsifiers.cuda_operator_system import OperatorsUnderContract

DEFECTS = Defects()
WHOLE, PACKED = ("attention",), ("attention_packed",)
ZERO = torch.zeros_like


@DEFECTS.plant("rope_backward_rotates_forward")
def rope_backward_rotates_forward(system: OperatorsUnderContract) -> Planting:
    """Not by the negative angle."""
    return differentiating(system, ROPE, lambda right, inputs, dy, d_inputs, found: ((right(dy, inputs[1]),), found))


@DEFECTS.plant("rope_backward_missing")
def rope_backward_missing(system: OperatorsUnderContract) -> Planting:
    """The gradient is passed on as it is."""
    return differentiating(system, ROPE, lambda right, inputs, dy, d_inputs, found: ((dy.clone(),), found))


@DEFECTS.plant("scale_missing_in_backward")
def scale_missing_in_backward(system: OperatorsUnderContract) -> Planting:
    """Dq and dk are those of unscaled scores."""
    return input_gradients(system, WHOLE, lambda dx: dx * dx.shape[-1] ** 0.5, 0, 1)


@DEFECTS.plant("scale_off_by_a_hundredth_in_backward")
def scale_off_by_a_hundredth_in_backward(system: OperatorsUnderContract) -> Planting:
    """1.01 times dq and dk."""
    return input_gradients(system, WHOLE, lambda dx: (dx.float() * 1.01).to(dx.dtype), 0, 1)


@DEFECTS.plant("softmax_backward_without_row_sum")
def softmax_backward_without_row_sum(system: OperatorsUnderContract) -> Planting:
    """Ds is p dp: delta comes from an output of zeros."""

    def changed(right: Any, inputs: Any, dy: Any, d_inputs: Any, found: Any) -> Any:
        stage = right.stage if isinstance(right, Leading) else right
        saved = stage.forward(*inputs)[1]
        return stage.backward((*saved[:3], saved[3] * 0, *saved[4:]), dy)

    return differentiating(system, PACKED, changed)


@DEFECTS.plant("dv_dropped")
def dv_dropped(system: OperatorsUnderContract) -> Planting:
    """Values never train."""
    return input_gradients(system, WHOLE, ZERO, 2)


@DEFECTS.plant("dq_and_dk_dropped")
def dq_and_dk_dropped(system: OperatorsUnderContract) -> Planting:
    """No gradient through the weights of attention."""
    return input_gradients(system, WHOLE, ZERO, 0, 1)


@DEFECTS.plant("dk_of_the_last_head_dropped")
def dk_of_the_last_head_dropped(system: OperatorsUnderContract) -> Planting:
    """One key/value head of all."""
    return input_gradients(system, WHOLE, lambda dk: tail_zero(dk, 1, 2), 1)


@DEFECTS.plant("dk_and_dv_of_the_last_tile_dropped")
def dk_and_dv_of_the_last_tile_dropped(system: OperatorsUnderContract) -> Planting:
    """The last partial tile of keys is not written."""
    return input_gradients(system, WHOLE, lambda dx: tail_zero(dx, dx.shape[1] % 16, 1), 1, 2)


@DEFECTS.plant("gqa_gradient_of_one_head_only")
def gqa_gradient_of_one_head_only(system: OperatorsUnderContract) -> Planting:
    """Dk and dv are those of the last query head of each group, not their sum."""

    def changed(right: Any, inputs: Any, dy: Tensor, d_inputs: Any, found: Any) -> Any:
        group = dy.shape[2] // inputs[1].shape[2]
        last = torch.arange(dy.shape[2], device=dy.device) % group == group - 1
        (_, dk, dv), _ = right.backward(right.forward(*inputs)[1], dy * last[:, None].to(dy.dtype))
        return (d_inputs[0], dk, dv), found

    return differentiating(system, PACKED, changed)


@DEFECTS.plant("backward_mask_leaks_the_next_token")
def backward_mask_leaks_the_next_token(system: OperatorsUnderContract) -> Planting:
    """Backward sees one key more than forward did."""

    def changed(right: Any, inputs: Any, dy: Any, d_inputs: Any, found: Any) -> Any:
        stage = right.stage if isinstance(right, Leading) else right
        saved = stage.forward(*inputs[:5])[1]
        return stage.backward((*saved[:5], saved[5] + 1, *saved[6:]), dy)

    return differentiating(system, WHOLE, changed)


@DEFECTS.plant("backward_window_ignored")
def backward_window_ignored(system: OperatorsUnderContract) -> Planting:
    """Backward sees all keys where forward saw a window."""

    def changed(right: Any, inputs: Any, dy: Any, d_inputs: Any, found: Any) -> Any:
        return replace(right, window=None).backward(right.forward(*inputs)[1], dy)

    return differentiating(system, PACKED, changed)

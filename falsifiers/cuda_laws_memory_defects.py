"""Planted defects of memory: scratch that is read, buffers that are used again, inputs that are changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.cuda.ops import memory
from falsifiers.cuda_operator_planting import Planting, stages_wrong
from falsifiers.cuda_operator_system import ReplaceableStages

DEFECTS = Defects()


def _unchanged(right: Any, given: Any, results: Any) -> Any:
    return results


@dataclass(frozen=True)
class Around:
    """The right stage; ``output(right, inputs, output)`` and ``gradients(right, saved, (d_inputs, d_parameters))``.

    ``gradients`` may look at d_output, the last of ``saved``.
    """

    right: Any
    output: Callable[..., Any] = _unchanged
    gradients: Callable[..., Any] = _unchanged

    def __call__(self, *inputs: Tensor) -> Any:
        return self.forward(*inputs)[0]

    def forward(self, *inputs: Tensor) -> Any:
        output, saved = self.right.forward(*inputs)
        return self.output(self.right, inputs, output), saved

    def backward(self, saved: Any, d_output: Any) -> Any:
        return self.gradients(self.right, (*saved, d_output), self.right.backward(saved, d_output))


def around(system: ReplaceableStages, name: str, dtypes: str = "float32", **changes: Callable[..., Any]) -> Planting:
    """Plant ``Around`` in one stage."""
    return stages_wrong(system, (name,), lambda right: Around(right, **changes), dtypes)


def scratch_like(x: Tensor) -> Tensor:
    """Memory that holds nothing yet."""
    return memory.empty(tuple(x.shape), x.dtype, x.device)


@DEFECTS.plant("last_rows_not_written")
def last_rows_not_written(system: ReplaceableStages) -> Planting:
    """A partial tile of the output keeps what was there."""

    def tail_kept(right: Any, inputs: Any, y: Tensor) -> Tensor:
        found = scratch_like(y)
        found[:, :-1] = y[:, :-1]
        return found

    return around(system, "attention_packed", output=tail_kept)


@DEFECTS.plant("split_k_scratch_not_zeroed")
def split_k_scratch_not_zeroed(system: ReplaceableStages) -> Planting:
    """Partial sums are added to what was there."""
    return around(system, "linear", output=lambda right, inputs, y: scratch_like(y).add_(y))


@DEFECTS.plant("scratch_times_zero")
def scratch_times_zero(system: ReplaceableStages) -> Planting:
    """Statistics of a tile that is not there, weighed by 0: only NaN shows it."""
    return around(system, "rms_norm", output=lambda right, inputs, y: y + 0 * scratch_like(y))


@DEFECTS.plant("greatest_score_not_initialised")
def greatest_score_not_initialised(system: ReplaceableStages) -> Planting:
    """A maximum with what was there, which passes NaN over: only a huge number shows it."""
    return around(system, "swiglu", output=lambda right, inputs, y: torch.fmax(scratch_like(y).clamp(min=1e9) - 1e9, y))


@DEFECTS.plant("stale_result_where_it_looks_right")
def stale_result_where_it_looks_right(system: ReplaceableStages) -> Planting:
    """What was there is kept where it is as large as the result: only the last result, negated, shows it."""

    def kept(right: Any, inputs: Any, y: Tensor) -> Tensor:
        found = scratch_like(y)
        return found.copy_(torch.where(found.abs() == y.abs(), found, y))

    return around(system, "residual", output=kept)


@DEFECTS.plant("gain_gradient_not_zeroed")
def gain_gradient_not_zeroed(system: ReplaceableStages) -> Planting:
    """The accumulator of the gain's gradient starts with what was there."""

    def added(right: Any, saved: Any, found: Any) -> Any:
        return found[0], {"weight": scratch_like(found[1]["weight"]).add_(found[1]["weight"])}

    return around(system, "add_norm", gradients=added)


@DEFECTS.plant("moments_not_initialised")
def moments_not_initialised(system: ReplaceableStages) -> Planting:
    """The optimizer's second moment starts with what was there."""

    def added(right: Any, state: Any, found: Any) -> Any:
        w, m, v, *rest = found
        return w, m, v + scratch_like(v), *rest

    return around(system, "adamw", output=added)


def _into_buffers(x: Tensor, buffers: dict[Any, Tensor]) -> Tensor:
    return buffers.setdefault((x.shape, x.dtype), torch.empty_like(x)).copy_(x)


@DEFECTS.plant("output_buffer_reused")
def output_buffer_reused(system: ReplaceableStages) -> Planting:
    """One buffer for all results, as in a captured graph."""
    buffers = dict[Any, Tensor]()
    return around(system, "attention_packed", output=lambda right, inputs, y: _into_buffers(y, buffers))


@DEFECTS.plant("gradient_buffer_reused")
def gradient_buffer_reused(system: ReplaceableStages) -> Planting:
    """The same for a parameter's gradient."""
    buffers = dict[Any, Tensor]()

    def change(right: Any, saved: Any, found: Any) -> Any:
        return found[0], found[1] | {"weight": _into_buffers(found[1]["weight"], buffers)}

    return around(system, "linear", gradients=change)


@DEFECTS.plant("gradients_accumulate_over_calls")
def gradients_accumulate_over_calls(system: ReplaceableStages) -> Planting:
    """The last call's gradient is still in it."""
    totals = dict[Any, Tensor]()

    def change(right: Any, saved: Any, found: Any) -> Any:
        weight = found[1]["weight"]
        totals[weight.shape] = totals.get(weight.shape, torch.zeros_like(weight)) + weight
        return found[0], found[1] | {"weight": totals[weight.shape]}

    return around(system, "loss", "bfloat16", gradients=change)


@DEFECTS.plant("result_cached_by_address")
def result_cached_by_address(system: ReplaceableStages) -> Planting:
    """Inputs at the same place are taken for the same inputs."""
    results = dict[int, Any]()
    return around(
        system, "rope", output=lambda right, inputs, y: results.setdefault(inputs[0].data_ptr(), y.clone()).clone()
    )


@DEFECTS.plant("result_cached_by_shape")
def result_cached_by_shape(system: ReplaceableStages) -> Planting:
    """The first result of a shape is every result of it."""
    results = dict[Any, Any]()
    return around(system, "rms_norm", output=lambda right, inputs, y: results.setdefault(y.shape, y.clone()).clone())


@DEFECTS.plant("gradient_cached_by_shape")
def gradient_cached_by_shape(system: ReplaceableStages) -> Planting:
    """The same for a gradient."""
    results = dict[Any, Tensor]()

    def change(right: Any, saved: Any, found: Any) -> Any:
        d_x = found[0][0]
        return (results.setdefault(d_x.shape, d_x.clone()).clone(), *found[0][1:]), found[1]

    return around(system, "add_norm", gradients=change)


@DEFECTS.plant("input_rotated_in_place")
def input_rotated_in_place(system: ReplaceableStages) -> Planting:
    """The rotated q is also in q."""
    return around(system, "rope", output=lambda right, inputs, y: inputs[0].copy_(y).clone())


@DEFECTS.plant("residual_added_in_place")
def residual_added_in_place(system: ReplaceableStages) -> Planting:
    """The residual stream of the layer before is gone."""
    return around(system, "residual", output=lambda right, inputs, y: inputs[0].copy_(y))


@DEFECTS.plant("cotangent_changed_in_place")
def cotangent_changed_in_place(system: ReplaceableStages) -> Planting:
    """Backward takes its d_output as scratch."""

    def change(right: Any, saved: Any, found: Any) -> Any:
        saved[-1].mul_(0.5)
        return found

    return around(system, "swiglu", gradients=change)


@DEFECTS.plant("saved_tensor_changed")
def saved_tensor_changed(system: ReplaceableStages) -> Planting:
    """Backward takes what forward saved as scratch: a second backward is wrong."""

    def change(right: Any, saved: Any, found: Any) -> Any:
        saved[4].add_(1)
        return found

    return around(system, "attention_packed", gradients=change)


@DEFECTS.plant("weights_changed_by_forward")
def weights_changed_by_forward(system: ReplaceableStages) -> Planting:
    """A norm of the weights is applied to the weights themselves."""

    def normed(right: Any, inputs: Any, y: Tensor) -> Tensor:
        right.weight.mul_(1.0001)
        return y

    def make(right: Any) -> Any:
        return Around(replace(right, weight=right.weight.clone()), output=normed)

    return stages_wrong(system, ("linear",), make, "float32")


@DEFECTS.plant("gradient_clipped_in_place")
def gradient_clipped_in_place(system: ReplaceableStages) -> Planting:
    """The optimizer scales the gradient that it was given."""

    def clipped(right: Any, state: Any, found: Any) -> Any:
        state[1].mul_(found[-1])
        return found

    return around(system, "adamw", output=clipped)

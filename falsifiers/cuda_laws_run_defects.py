"""Planted defects of bounds, of the order of sums, and of roads that no stage names."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from aprender.falsify.probe import Defects
from aprender.transformer.cuda.ops.matmul import product
from falsifiers.cuda_laws_memory_defects import around
from falsifiers.cuda_laws_planting import computing
from falsifiers.cuda_operator_planting import Planting, stages_wrong
from falsifiers.cuda_operator_system import ReplaceableStages

DEFECTS = Defects()


def _beyond(x: Tensor, before: bool = False) -> None:
    """Write one element outside ``x``, where there is memory."""
    place = x.storage_offset() - 1 if before else x.storage_offset() + x.numel()
    if 0 <= place < x.untyped_storage().nbytes() // x.element_size():
        x.as_strided((1,), (1,), place).zero_()


def _writing(*places: bool) -> Callable[..., Any]:
    def change(right: Any, inputs: Any, y: Any) -> Any:
        for place in places:
            _beyond(y if isinstance(y, Tensor) else y[0], place)
        return y

    return change


@DEFECTS.plant("tail_tile_written_past_the_end")
def tail_tile_written_past_the_end(system: ReplaceableStages) -> Planting:
    """A store without a mask."""
    return around(system, "attention_packed", dtypes="bfloat16", output=_writing(False))


@DEFECTS.plant("tile_written_before_the_start")
def tile_written_before_the_start(system: ReplaceableStages) -> Planting:
    """An index that goes below 0."""
    return around(system, "rms_norm", dtypes="bfloat16", output=_writing(True))


@DEFECTS.plant("optimizer_writes_past_the_end")
def optimizer_writes_past_the_end(system: ReplaceableStages) -> Planting:
    """The last block of the weights: the next parameter's first element."""
    return around(system, "adamw", dtypes="bfloat16", output=_writing(False))


@DEFECTS.plant("gradient_written_past_the_end")
def gradient_written_past_the_end(system: ReplaceableStages) -> Planting:
    """The tail of d_weight."""

    def change(right: Any, saved: Any, found: Any) -> Any:
        _beyond(found[1]["weight"])
        return found

    return around(system, "embedding", "bfloat16", gradients=change)


@DEFECTS.plant("sums_in_any_order")
def sums_in_any_order(system: ReplaceableStages) -> Planting:
    """As atomic additions come."""

    def change(right: Any, saved: Any, found: Any) -> Any:
        x, dy = (tensor.flatten(0, -2).float() for tensor in saved)
        order = torch.randperm(len(x), device=x.device)
        total = torch.zeros_like(found[1]["weight"])
        for n in order:
            total += dy[n, :, None] * x[n]
        return found[0], found[1] | {"weight": total}

    return around(system, "linear", "bfloat16", gradients=change)


@DEFECTS.plant("embedding_gradient_in_any_order")
def embedding_gradient_in_any_order(system: ReplaceableStages) -> Planting:
    """Atomics in a scattered addition: here a last bit that differs now and then."""
    calls = count()

    def change(right: Any, saved: Any, found: Any) -> Any:
        weight = found[1]["weight"]
        return found[0], {"weight": weight * (1 + 2.0**-23 * (next(calls) % 5 == 3))}

    return around(system, "embedding", "bfloat16", gradients=change)


@DEFECTS.plant("one_run_in_nine_loses_a_row")
def one_run_in_nine_loses_a_row(system: ReplaceableStages) -> Planting:
    """A race: nearly always right."""
    calls = count()

    def change(right: Any, inputs: Any, y: Tensor) -> Any:
        y = y.clone()
        if next(calls) % 9 == 8:
            y[:, 0] = 0
        return y

    return around(system, "attention_packed", "bfloat16", output=change)


@DEFECTS.plant("optimizer_result_varies")
def optimizer_result_varies(system: ReplaceableStages) -> Planting:
    """The norm that clips is added up in any order: its last bit varies."""
    calls = count()

    def change(right: Any, state: Any, found: Any) -> Any:
        w, m, *rest = found
        return w, m * (1 + 2.0**-23 * (next(calls) % 4 == 3)), *rest

    return around(system, "adamw", "bfloat16", output=change)


@DEFECTS.plant("silent_eager_attention")
def silent_eager_attention(system: ReplaceableStages) -> Planting:
    """Torch's attention where the kernel should run, as right as it is: mask by documents, window and positions."""

    def compute(
        right: Any, q: Tensor, k: Tensor, v: Tensor, at: Tensor, k_at: Tensor, doc: Tensor, k_doc: Tensor
    ) -> Any:
        distance = at[:, :, None] - k_at[:, None]
        seen = (
            (distance >= 0) & (distance < right.window) & (doc[:, :, None] == k_doc[:, None]) & (doc >= 0)[:, :, None]
        )
        group = q.shape[2] // k.shape[2]
        k, v = (x.float().repeat_interleave(group, 2) for x in (k, v))
        scores = torch.einsum("bthc,bshc->bhts", q.float(), k) * right.scale
        weights = scores.masked_fill(~seen[:, None], -math.inf).softmax(-1).nan_to_num()
        return torch.einsum("bhts,bshc->bthc", weights, v).to(q.dtype)

    return computing(system, ("attention_packed",), compute, "bfloat16")


@DEFECTS.plant("silent_eager_norm")
def silent_eager_norm(system: ReplaceableStages) -> Planting:
    """A fallback for bfloat16."""

    def compute(right: Any, x: Tensor) -> Any:
        return functional.rms_norm(x, right.weight.shape, right.weight, right.eps)

    return computing(system, ("rms_norm",), compute, "bfloat16")


@DEFECTS.plant("bias_in_a_kernel_of_its_own")
def bias_in_a_kernel_of_its_own(system: ReplaceableStages) -> Planting:
    """Added to a product that is rounded already, where the stage adds it in float32: a second rounding."""

    def compute(right: Any, x: Tensor) -> Any:
        y = product(x.flatten(0, -2), right.weight.T, x.dtype)
        return (y + right.bias).view(*x.shape[:-1], -1)

    return computing(system, ("linear",), compute, "bfloat16")


@dataclass(frozen=True)
class OtherCall:
    """Inference takes another road than training."""

    right: Any

    def __call__(self, *inputs: Tensor) -> Any:
        return (self.right(*inputs).float() * (1 + 2.0**-7)).to(inputs[0].dtype)

    def forward(self, *inputs: Tensor) -> Any:
        return self.right.forward(*inputs)

    def backward(self, saved: Any, d_output: Any) -> Any:
        return self.right.backward(saved, d_output)


@DEFECTS.plant("inference_takes_another_road")
def inference_takes_another_road(system: ReplaceableStages) -> Planting:
    """Calling a stage gives other bits than its forward pass."""
    return stages_wrong(system, ("swiglu",), OtherCall, "bfloat16")

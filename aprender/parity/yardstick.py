"""From a reference stage to what its tensors are judged by: oracle and plans run, vacuity checked, noise measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from aprender.parity import sensitivity
from aprender.parity.blocks import Blocks, Layout, small_rows
from aprender.parity.calibration import Calibration
from aprender.parity.envelope import Envelope
from aprender.parity.exact import Exact
from aprender.parity.names import difference
from aprender.parity.projections import directions_of
from aprender.parity.stages import (
    Gradients,
    Operator,
    Parameters,
    ReferenceStage,
    Tensors,
    as_tuple,
    autograd_vjp,
    in_float64,
)

Yardstick = Envelope | Exact


class Incomparable(Exception):
    """Names, counts, shapes, dtypes, NaN, or too little to see: ERROR before any value is compared."""


@dataclass(frozen=True, slots=True)
class Yardsticks:
    """By tensor name, in order; ``sensitivity`` by parameter, in envelopes, for the outputs."""

    of: Mapping[str, Yardstick]
    sensitivity: Mapping[str, float] = field(default_factory=dict)


def of_outputs(stage: ReferenceStage, calibration: Calibration) -> Yardsticks:
    """The yardsticks of ``output`` (or ``output 0``, ``output 1`` ...). Raises Incomparable where z is vacuous."""
    inputs, parameters = in_float64(stage.inputs, stage.parameters)
    _check_finite(stage)
    z = as_tuple(stage.oracle.forward(inputs, parameters))
    moved = dict(sensitivity.moved_by_parameters(stage))
    directions = directions_of(moved, z)
    plans = (as_tuple(plan.forward(stage.inputs, stage.parameters)) for plan in stage.plans.values())
    names = output_names(len(z))
    found = _measured(stage, dict(zip(names, z, strict=True)), plans, calibration, directions)
    seen = {name: _largest(found, results) for name, results in moved.items()}
    for name, results in sensitivity.moved_by_inputs(stage, one_number=all(tensor.numel() == 1 for tensor in z)):
        seen[name] = max(seen.get(name, 0.0), _largest(found, results))
    return Yardsticks(found, seen)


def of_gradients(stage: ReferenceStage, d_outputs: Tensors, calibration: Calibration) -> Yardsticks:
    """The yardsticks of ``d_input i`` and ``d_parameter name``, for one gradient by the outputs."""
    inputs, parameters = in_float64(stage.inputs, stage.parameters)
    d_exact = tuple(dy.double() for dy in d_outputs)
    z = named_gradients(vjp(stage.oracle, inputs, parameters, d_exact, stage))
    if not z:
        return Yardsticks({})
    plans = (
        tuple(named_gradients(vjp(plan, stage.inputs, stage.parameters, d_outputs, stage)).values())
        for plan in stage.plans.values()
    )
    return Yardsticks(_measured(stage, z, plans, calibration, [{} for _ in z]))


def vjp(
    operator: Operator, inputs: Tensors, parameters: Parameters, d_outputs: Tensors, stage: ReferenceStage
) -> Gradients:
    """The operator's own VJP, or autograd's."""
    if operator.vjp is not None:
        return operator.vjp(inputs, parameters, d_outputs)
    return autograd_vjp(operator.forward, inputs, parameters, d_outputs, stage.constants | stage.masks)


def named_gradients(gradients: Gradients) -> dict[str, Tensor]:
    """One name per gradient that there is."""
    by_input = {f"d_input {i}": dx for i, dx in enumerate(gradients.inputs) if dx is not None}
    return by_input | {f"d_parameter {name}": dp for name, dp in gradients.parameters.items() if dp is not None}


def output_names(count: int) -> list[str]:
    """``output``, or with numbers where there are several."""
    return ["output"] if count == 1 else [f"output {i}" for i in range(count)]


def check_same_form(names: Iterable[str], found: Mapping[str, Tensor], yardsticks: Yardsticks) -> None:
    """Raise Incomparable unless the candidate's tensors have the names, shapes and dtypes expected, and are finite."""
    problem = difference(list(names), list(found), "tensor")
    if problem:
        raise Incomparable(problem)
    for name, y in found.items():
        yardstick = yardsticks.of[name]
        if y.shape != yardstick.z.shape:
            raise Incomparable(f"{name} has shape {tuple(y.shape)}, the reference's {tuple(yardstick.z.shape)}")
        if y.dtype != yardstick.dtype:
            raise Incomparable(f"{name} is {y.dtype}, the legal plans return {yardstick.dtype}")
        if not bool(torch.isfinite(y).all()):
            bad = int((~torch.isfinite(y)).sum())
            raise Incomparable(f"{name} of the candidate has {bad} of {y.numel()} elements that are NaN or infinite")


def _measured(
    stage: ReferenceStage,
    z: Mapping[str, Tensor],
    plans: Iterator[Tensors],
    calibration: Calibration,
    directions: list[dict[str, Tensor]],
) -> dict[str, Yardstick]:
    for name, tensor in z.items():
        reason = sensitivity.vacuous(tensor)
        if reason:
            raise Incomparable(f"inconclusive: the oracle's {name} shows nothing: {reason}")
    found: dict[str, Yardstick] = {}
    for results in plans:
        if len(results) != len(z):
            raise Incomparable(f"a rounding plan returns {len(results)} tensors, the oracle {len(z)}")
        for (name, tensor), y, moves in zip(z.items(), results, directions, strict=True):
            if name not in found:
                found[name] = _yardstick(stage, name, tensor, y.dtype, calibration, moves)
            yardstick = found[name]
            if isinstance(yardstick, Envelope):
                if y.dtype != yardstick.dtype or y.shape != tensor.shape or not bool(torch.isfinite(y).all()):
                    raise Incomparable(f"the rounding plans do not agree on {name}, or one is not finite")
                yardstick.add(y)
    if not found:
        raise Incomparable("the stage declares no rounding plan: nothing says what may differ")
    return found


def _yardstick(
    stage: ReferenceStage,
    name: str,
    z: Tensor,
    dtype: torch.dtype,
    calibration: Calibration,
    directions: Mapping[str, Tensor],
) -> Yardstick:
    layout = stage.layouts.get(name, Layout.of(tuple(z.shape)))
    first = stage.inputs[0]
    small = small_rows(first, tuple(z.shape[: layout.rows])) if name.startswith("output") else None
    blocks = Blocks(tuple(z.shape), layout, small)
    if name in stage.exact or not z.is_floating_point():
        return Exact(z, dtype, blocks)
    reason = sensitivity.too_small(z, dtype)
    if reason:
        raise Incomparable(f"inconclusive: the oracle's {name} shows nothing: {reason}")
    return Envelope(z, dtype, blocks, calibration, directions)


def _largest(yardsticks: Mapping[str, Yardstick], results: Tensors) -> float:
    """The ratio that the oracle's own ``results``, rounded, would get."""
    return max(y.judge(z.to(y.dtype)).ratio for y, z in zip(yardsticks.values(), results, strict=True))


def _check_finite(stage: ReferenceStage) -> None:
    tensors = {f"input {i}": x for i, x in enumerate(stage.inputs) if i not in stage.masks}
    tensors |= {name: p for name, p in stage.parameters.items() if isinstance(p, Tensor)}
    for name, x in tensors.items():
        if not bool(torch.isfinite(x).all()):
            raise Incomparable(f"{name} of the reference is not finite")

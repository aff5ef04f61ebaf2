"""One stage: the candidate is fed the reference's inputs, and each tensor that it returns is judged on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.faults import explained, in_one_line, let_go
from aprender.parity import sensitivity
from aprender.parity.calibration import Calibration, packaged
from aprender.parity.controls import detection_limit
from aprender.parity.exact import equal_bits
from aprender.parity.record import Comparison, StageRecord
from aprender.parity.stages import Candidate, Gradients, ReferenceStage, Tensors, Trainable, as_tuple
from aprender.parity.yardstick import (
    Incomparable,
    Yardsticks,
    check_same_form,
    named_gradients,
    of_gradients,
    of_outputs,
    output_names,
)

Direction = Literal["forward", "backward"]
Result = TypeVar("Result")


class Prepared(NamedTuple):
    """What one direction of a stage is judged by, whoever the candidate is; backward is fed ``d_outputs``."""

    d_outputs: Tensors
    yardsticks: Yardsticks


Kept = MutableMapping[Direction, Prepared]


def compare_stage(
    stage: ReferenceStage,
    candidate: Candidate,
    *,
    forward: bool = True,
    backward: bool = True,
    with_limits: bool = False,
    calibration: Calibration | None = None,
    kept: Kept | None = None,
) -> Comparison:
    """Compare one stage: a record for each output, and for each gradient, as ``forward`` and ``backward`` say.

    ``with_limits`` adds the detection limit of every output. What can't be compared is an ERROR record with its reason;
    nothing that a candidate raises leaves this function. ``kept`` is where oracle and plans of this one stage are kept
    from one candidate to the next.
    """
    table = packaged() if calibration is None else calibration
    known: Kept = {} if kept is None else kept
    records: list[StageRecord] = []
    if forward:
        records += _attempt(stage, "forward", lambda: _forward(stage, candidate, table, known, with_limits))
    if backward:
        records += _attempt(stage, "backward", lambda: _backward(stage, candidate, table, known))
    return Comparison(tuple(records))


def _attempt(
    stage: ReferenceStage, direction: Direction, compare: Callable[[], Iterator[StageRecord]]
) -> list[StageRecord]:
    try:
        return list(compare())
    except Incomparable as error:
        reason, fault = str(error), False
    except Exception as error:  # noqa: BLE001 - a candidate may raise anything; the other stages are still compared
        reason, fault = failure(error), explained(error) is not None
    tensor = "output" if direction == "forward" else "gradients"
    return [StageRecord(stage.name, direction, tensor, "ERROR", reason, fault, seed=stage.seed)]


def failure(error: Exception) -> str:
    """What was raised, in one line, for the reason of an ERROR; after a device's fault memory is freed."""
    fault = explained(error)
    if fault:
        let_go(error)
    return str(error) if isinstance(error, AprenderError) else fault or in_one_line(error)


def _forward(
    stage: ReferenceStage, candidate: Candidate, calibration: Calibration, kept: Kept, with_limits: bool
) -> Iterator[StageRecord]:
    if "forward" not in kept:
        kept["forward"] = Prepared((), of_outputs(stage, calibration))
    yardsticks = kept["forward"].yardsticks
    outputs = _unchanged(stage, lambda inputs: as_tuple(candidate(*inputs)))
    found = dict(zip(output_names(len(outputs)), outputs, strict=True))
    check_same_form(yardsticks.of, found, yardsticks)
    yield from _judged(stage, "forward", found, yardsticks, with_limits)
    if isinstance(candidate, Trainable):  # the forward pass that training runs need not be the one that is called
        trained = _unchanged(stage, lambda inputs: as_tuple(candidate.forward(*inputs)[0]))
        if len(trained) != len(outputs) or not all(map(equal_bits, trained, outputs)):
            found = dict(zip(output_names(len(trained)), trained, strict=True))
            check_same_form(yardsticks.of, found, yardsticks)
            yield from _judged(stage, "forward", found, yardsticks, with_limits, " of forward()")


def _backward(
    stage: ReferenceStage, candidate: Candidate, calibration: Calibration, kept: Kept
) -> Iterator[StageRecord]:
    if "backward" not in kept:
        kept["backward"] = _prepared_backward(stage, calibration)
    d_outputs, yardsticks = kept["backward"]
    if not yardsticks.of:
        return
    if not isinstance(candidate, Trainable):
        raise Incomparable("the candidate has no backward")

    def gradients(inputs: Tensors) -> Gradients:
        outputs, saved = candidate.forward(*inputs)
        shapes, expected = ([tuple(y.shape) for y in ys] for ys in (as_tuple(outputs), d_outputs))
        if shapes != expected:
            raise Incomparable(f"forward() returns shapes {shapes}, the reference {expected}: there is nothing to feed")
        d_inputs, d_parameters = candidate.backward(saved, d_outputs[0] if len(d_outputs) == 1 else d_outputs)
        return Gradients(_placed(stage, d_inputs), d_parameters)

    found = named_gradients(_unchanged(stage, gradients))
    check_same_form(yardsticks.of, found, yardsticks)
    yield from _judged(stage, "backward", found, yardsticks, with_limits=False)


def _prepared_backward(stage: ReferenceStage, calibration: Calibration) -> Prepared:
    plan = next(iter(stage.plans.values()))
    d_outputs = random_gradients(stage, as_tuple(plan.forward(stage.inputs, stage.parameters)))
    if not d_outputs:  # only integers and masks come out: there is nothing to differentiate
        return Prepared((), Yardsticks({}))
    return Prepared(d_outputs, of_gradients(stage, d_outputs, calibration))


def _placed(stage: ReferenceStage, d_inputs: Any) -> tuple[Tensor | None, ...]:
    """A gradient (or None) for each input: a candidate may leave out the inputs that have none."""
    given = (d_inputs,) if isinstance(d_inputs, Tensor) else tuple(d_inputs)
    places = stage.differentiable()
    if len(given) == len(stage.inputs):
        return given
    if len(given) != len(places):
        raise Incomparable(f"backward returns {len(given)} gradients of inputs, {len(places)} inputs have one")
    by_place = dict(zip(places, given, strict=True))
    return tuple(by_place.get(i) for i in range(len(stage.inputs)))


def random_gradients(stage: ReferenceStage, outputs: Tensors) -> Tensors:
    """What backward is fed: standard normal, rounded to each output's dtype, from ``stage.seed``; () without floats."""
    if not all(y.is_floating_point() for y in outputs):
        return ()
    generator = torch.Generator().manual_seed(stage.seed)
    return tuple(torch.randn(y.shape, generator=generator).to(y) for y in outputs)


def _unchanged(stage: ReferenceStage, run: Callable[[Tensors], Result]) -> Result:
    """Run on copies of the stage's inputs; a candidate that writes into them is ERROR."""
    copies = tuple(x.clone() for x in stage.inputs)
    result = run(copies)
    for i, (x, copy) in enumerate(zip(stage.inputs, copies, strict=True)):
        if not equal_bits(x, copy):
            raise Incomparable(f"the candidate writes into its input {i}")
    return result


def _judged(
    stage: ReferenceStage,
    direction: Direction,
    found: Mapping[str, Tensor],
    yardsticks: Yardsticks,
    with_limits: bool,
    whose: str = "",
) -> Iterator[StageRecord]:
    for name, y in found.items():
        yardstick = yardsticks.of[name]
        judgement = yardstick.judge(y)
        worst = judgement.worst
        reason = "" if direction == "backward" else _insensitive(yardsticks, yardstick.dtype)
        if worst is None:
            reason = f"no statistic is calibrated for {y.dtype} on {y.device.type}"
        red = worst is not None and judgement.ratio > 1
        yield StageRecord(
            stage.name,
            direction,
            f"{name}{whose}",
            "RED" if red else "ERROR" if reason else "GREEN",
            "" if red else reason,
            dtype=str(y.dtype).removeprefix("torch."),
            shape=tuple(y.shape),
            elements=y.numel(),
            statistic=worst.statistic if worst else "",
            ratio=judgement.ratio,
            observed=worst.observed if worst else float("nan"),
            allowed=worst.allowed if worst else float("nan"),
            block=worst.label if worst else "",
            worst=judgement.element,
            relative_error=judgement.relative_error,
            seed=stage.seed,
            ratios={m.statistic: m.ratio for m in judgement.measured},
            uncalibrated=tuple(m.statistic for m in judgement.measured if not m.alarms),
            sensitivity=yardsticks.sensitivity,
            detection_limit=detection_limit(yardstick, stage.seed) if with_limits else {},
        )


def _insensitive(yardsticks: Yardsticks, dtype: torch.dtype) -> str:
    least = sensitivity.least(dtype) if dtype.is_floating_point else 1.0
    weak = {name: ratio for name, ratio in yardsticks.sensitivity.items() if ratio < least}
    if not weak:
        return ""
    listed = ", ".join(f"{name} ({ratio:.2g})" for name, ratio in weak.items())
    return f"inconclusive: 10% off moves the oracle by less than {least:g} envelopes: {listed}"

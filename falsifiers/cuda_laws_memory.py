"""Laws of memory: equal bits each time, nothing read before it is written, nothing written that is another's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.parity.laws import LawRecord, compared
from aprender.transformer.cuda import ops
from falsifiers.cuda_laws_attention import merged, narrow, packed_places
from falsifiers.cuda_laws_attention_backward import cotangent
from falsifiers.cuda_laws_stages import inputs_of
from falsifiers.cuda_laws_system import Laws, parameter, tile_of
from falsifiers.cuda_operator_cases import Draw
from falsifiers.cuda_operator_system import tensors_of

LAWS = Laws()
STAGES = (
    "embedding",
    "linear",
    "projections_of_integers",
    "rms_norm",
    "add_norm",
    "residual",
    "rope",
    "attention_packed",
    "swiglu",
    "loss",
    "adamw",
)
RUNS, GUARD = 20, 64
Inputs = tuple[Tensor, ...]


def given(d: Draw, name: str, stage: Any, long: bool = False) -> tuple[Inputs, Any]:
    """Inputs and a d_output: small in the interpreter, unless the law needs ``long`` ones of several tiles."""
    long = long or d.device.type == "cuda"
    if name == "attention_packed":
        T = tile_of(d) + 1 if long else 10
        position, document = packed_places(d, T)
        inputs: Inputs = (*narrow(d, T), position, position, document, document)
    else:
        inputs = inputs_of(d, name, (3 if d.device.type == "cpu" else 307) if long else 1)
    return inputs, None if name == "adamw" else cotangent(d, stage, inputs)


def run(stage: Any, inputs: Inputs, d_output: Any) -> list[Tensor]:
    """Everything that one forward and one backward return."""
    output, saved = stage.forward(*inputs)
    outputs = [output] if isinstance(output, Tensor) else list(output)
    d_inputs, d_parameters = stage.backward(saved, d_output)
    return [*outputs, *d_inputs, *(d_parameters[name] for name in sorted(d_parameters))]


def same(expected: Sequence[Tensor], found: Sequence[Tensor]) -> LawRecord:
    """All tensors equal, bit for bit."""
    return merged([compared("same", x, y) for x, y in zip(expected, found, strict=True)])


@LAWS.of_each("repeated_differing", *STAGES, interpreted="bfloat16")
def twenty_runs(d: Draw, name: str, stage: Any) -> LawRecord:
    """Twenty runs, with other memory allocated, filled and freed between them."""
    inputs, d_output = given(d, name, stage)
    first = [x.clone() for x in run(stage, inputs, d_output)]
    records, repeats = [], 3 if d.device.type == "cpu" and d.dtype == torch.float32 else RUNS
    for i in range(1, repeats):
        other = [torch.full((size + 977 * i,), math.nan, device=d.device) for size in (97, 4099)]
        records.append(same(first, run(stage, inputs, d_output)))
        del other
    return merged(records)


@LAWS.of_each("poison_differing", *STAGES, interpreted="float32")
def three_poisons(d: Draw, name: str, stage: Any) -> LawRecord:
    """New memory holds NaN, 1e30, or what it held in the last run, negated: not a bit of a result changes."""
    inputs, d_output = given(d, name, stage, long=True)
    clean = [x.clone() for x in run(stage, inputs, d_output)]
    records, last = [], list[Tensor]()
    for fill in (math.nan, 1e30, None):
        with ops.poisoned(last if fill is None else fill) as memory:
            records.append(same(clean, run(stage, inputs, d_output)))
        last = [x.clone() for x in memory]
    return merged(records)


@LAWS.of_each("guards_broken", *STAGES, interpreted="bfloat16")
def guard_zones(d: Draw, name: str, stage: Any) -> LawRecord:
    """Nothing is written beyond either end of what a stage allocates."""
    inputs, d_output = given(d, name, stage, long=True)
    broken, memory = 0, list[Tensor]()
    try:
        with ops.poisoned(0.0, guard=GUARD) as memory:
            run(stage, inputs, d_output)
    except AprenderError as error:
        if "outside its bounds" not in str(error):
            raise
        broken = 1
    return LawRecord("guards", 2 * GUARD * len(memory), broken, broken)


@LAWS.of_each("inputs_changed", *STAGES, interpreted="float32")
def inputs_stay(d: Draw, name: str, stage: Any) -> LawRecord:
    """Inputs, d_output, parameters and what forward saved hold the same bits afterwards."""
    inputs, d_output = given(d, name, stage)
    cotangents = () if d_output is None else d_output if isinstance(d_output, tuple) else (d_output,)
    held = [*inputs, *cotangents, *tensors_of(stage)]
    before = [x.clone() for x in held]
    _, saved = stage.forward(*inputs)
    kept = [x.clone() for x in saved]
    stage.backward(saved, d_output)
    return same([*before, *kept], [*held, *saved])


@LAWS.of_each("stale_differing", *STAGES, interpreted="float32")
def results_are_new(d: Draw, name: str, stage: Any) -> LawRecord:
    """A result stays what it was while others are computed, shares no memory with them, and is of its own inputs.

    The second run has other inputs, the third writes them into the first's memory: it must give the second's results.
    """
    inputs, d_output = given(d, name, stage)
    cotangents = d_output if isinstance(d_output, tuple) else () if d_output is None else (d_output,)
    others, other_cotangents = (tuple(_other(x) for x in tensors) for tensors in (inputs, cotangents))
    other_output = other_cotangents if isinstance(d_output, tuple) else next(iter(other_cotangents), None)
    first = run(stage, inputs, d_output)
    before = [x.clone() for x in first]
    second = run(stage, others, other_output)
    records = [same(before, first)]
    shared = sum(x.numel() for x in first for y in second if _share(x, y))
    records.append(LawRecord("aliased", len(first) * len(second), shared, float(shared)))
    unmoved = sum(x.numel() for x, y in zip(before, second, strict=True) if torch.equal(x, y))
    records.append(LawRecord("of its inputs", sum(x.numel() for x in before), unmoved, float(unmoved)))
    expected = [x.clone() for x in second]
    for x, other in zip((*inputs, *cotangents), (*others, *other_cotangents), strict=True):
        x.copy_(other)
    records.append(same(expected, run(stage, inputs, d_output)))
    return merged(records)


def _other(x: Tensor) -> Tensor:
    rolled = x.roll(1, 0) if x.ndim else x
    return rolled * 0.5 if x.is_floating_point() else rolled.clone()


def _share(x: Tensor, y: Tensor) -> bool:
    return x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()


@LAWS.of_each("kernels_differing", *STAGES, interpreted="bfloat16")
def declared_kernels(d: Draw, name: str, stage: Any) -> LawRecord:
    """The kernels that run are those that the stage names, once each where it goes on in chunks; no other road."""
    inputs, d_output = given(d, name, stage)
    with ops.kernels_that_ran() as forward:
        output, saved = stage.forward(*inputs)
    with ops.kernels_that_ran() as backward:
        stage.backward(saved, d_output)
    with ops.kernels_that_ran() as called:
        again = stage(*inputs)
    named = str(parameter(stage, "kernel")).split("+")
    wrong = int(list(dict.fromkeys(forward)) != list(dict.fromkeys(named)))
    wrong += int("+".join(backward) != str(parameter(stage, "backward_kernel")))
    wrong += int(not called or not set(called) <= set(named))
    outputs, calls = ([x] if isinstance(x, Tensor) else list(x) for x in (output, again))
    return merged([LawRecord("kernels", len(forward) + len(backward), wrong, wrong), same(outputs, calls)])

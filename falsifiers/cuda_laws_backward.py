"""Laws of the backward passes: rows, exact sums, and what the chain rule says of a formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aprender.parity.laws import LawRecord, compared
from aprender.parity.rounding import unit_roundoff
from aprender.parity.tails import NORMAL
from falsifiers.cuda_laws_attention import in_order, merged, narrow
from falsifiers.cuda_laws_attention_backward import cotangent, gradients
from falsifiers.cuda_laws_stages import ROWS, inputs_of
from falsifiers.cuda_laws_system import EPS, IGNORED, TOKENS, C, D, H, Laws, V, parameter
from falsifiers.cuda_operator_cases import Draw

LAWS = Laws()


@LAWS.of_each("rows_differing", "rms_norm", "add_norm", "residual", "rope", "swiglu")
def rows(d: Draw, name: str, stage: Any) -> LawRecord:
    """Inputs and d_output permuted, and one row alone: each row's gradient keeps its bits."""
    inputs = inputs_of(d, name)
    d_output = cotangent(d, stage, inputs)
    pair = d_output if isinstance(d_output, tuple) else (d_output,)

    def run(change: Any) -> Tensor:
        found = tuple(change(x) for x in pair)
        d_inputs = gradients(stage, [change(x) for x in inputs], found if len(found) > 1 else found[0])[0]
        return torch.cat([x.flatten(1) for x in d_inputs], 1)

    right = run(lambda x: x)
    return merged(
        [
            compared("rows", right.roll(1, 0), run(lambda x: x.roll(1, 0))),
            compared("rows", right[2:], run(lambda x: x[2:])),
        ]
    )


@LAWS.of_each("doubled_differing", "linear", "rms_norm", "add_norm", "residual", "rope", "swiglu", "embedding", "loss")
def twice_the_cotangent(d: Draw, name: str, stage: Any) -> LawRecord:
    """A backward pass is linear: twice d_output gives twice every gradient, bit for bit."""
    return _doubled(stage, inputs_of(d, name, 2), d)


@LAWS.of("doubled_differing", "attention_softmax")
def twice_the_cotangent_of_attention(d: Draw, attention: Any) -> LawRecord:
    """As for the other stages."""
    q, k, v = narrow(d, 7)
    return _doubled(attention, (q, k, v, in_order(q), in_order(k)), d)


def _doubled(stage: Any, inputs: Sequence[Tensor], d: Draw) -> LawRecord:
    d_output, records = cotangent(d, stage, inputs), []
    twice = tuple(2 * x for x in d_output) if isinstance(d_output, tuple) else 2 * d_output
    once, again = gradients(stage, inputs, d_output), gradients(stage, inputs, twice)
    pairs = [*zip(once[0], again[0], strict=True), *((once[1][name], again[1][name]) for name in once[1])]
    for x, y in pairs:
        record = compared("twice", 2 * x, y)
        records.append(record if bool(x.any()) else LawRecord("twice", 1, 0, 0.0, vacuous="a gradient is zero"))
    return merged(records)


@LAWS.of_each("sums_differing", "linear_of_integers", "projections_of_integers")
def products_of_integers(d: Draw, name: str, linear: Any) -> LawRecord:
    """Whole numbers: d_x, d_weight and d_bias are exact, d_x rounded once."""
    most = 4095 if d.dtype == torch.float32 else 127
    x, weight = inputs_of(d, name)[0], parameter(linear, "weight")
    d_y = d.integers(-most, most + 1, *x.shape[:2], len(weight)).to(d.dtype)
    fused = name == "projections_of_integers"
    (d_x,), found = gradients(linear, (x,), torch.split(d_y, list(parameter(linear, "widths")), -1) if fused else d_y)
    rows, exact_x = d_y.flatten(0, 1).double(), x.flatten(0, 1).double()
    pairs = (
        ((d_y.double() @ weight.double()).to(d.dtype), d_x),
        ((rows.T @ exact_x).float(), found["weight"]),
        (rows.sum(0).float(), found["bias"]),
    )
    return merged([compared("whole numbers", right, y) for right, y in pairs])


@LAWS.of("sums_differing", "embedding")
def repeated_tokens_add_up(d: Draw, embedding: Any) -> LawRecord:
    """Whole numbers: each row of the table gets the exact sum over its token's places, and all others 0.

    Tokens may be int64 or int32.
    """
    tokens = torch.tensor([[3, 1, 3, 3, TOKENS - 1, 3, 3, 3, 3, 3, 3, 0, 3]], device=d.device)
    d_x = d.integers(-127, 128, 1, tokens.numel(), D).to(d.dtype)
    right = torch.zeros(TOKENS, D, device=d.device).index_add(0, tokens[0], d_x[0].float())
    found = (gradients(embedding, (of,), d_x)[1]["weight"] for of in (tokens, tokens.int()))
    return merged([compared("whole numbers", right, weight) for weight in found])


@LAWS.of("eps_ratio", "rms_norm")
def along_the_input(d: Draw, norm: Any) -> LawRecord:
    """Along x itself only eps keeps the norm from being constant: ``x . d_x = eps r^2 sum(d_y gain x r)``.

    Allowed: a rounding of each d_x in the storage dtype, and of the two sums that it is made of in float32.
    """
    x = d.normal(2, 7, D, sd=EPS**0.5)
    d_y = d.normal(*x.shape)
    (d_x,), _ = gradients(norm, (x,), d_y)
    exact, gain = x.double(), parameter(norm, "weight").double()
    r = (exact.square().mean(-1, keepdim=True) + EPS).rsqrt()
    terms = d_y.double() * gain * exact * r
    expected = (EPS * r.square() * terms.sum(-1, keepdim=True))[..., 0]
    u32 = unit_roundoff(torch.float32)
    sizes = (exact * d_x.double()).abs().sum(-1) * unit_roundoff(d.dtype)
    sizes += (8 + NORMAL * D**0.5) * u32 * terms.abs().sum(-1)
    ratio = float((((exact * d_x.double()).sum(-1) - expected).abs() / sizes).nan_to_num(math.inf).max())
    return LawRecord("along x", x.numel(), int(ratio > 1), ratio, 1.0)


@LAWS.of("rope_ratio", "rope")
def rope_turned_back(d: Draw, rotate: Any) -> LawRecord:
    """Backward undoes forward: four roundings of a pair in float32, two in the storage dtype."""
    x = d.normal(ROWS, 3, H, C)
    y, saved = rotate.forward(x, d.integers(0, 4096, ROWS, 3))
    (back,), _ = rotate.backward(saved, y)
    a, b = x.double().chunk(2, -1)
    allowed = torch.hypot(a, b).repeat(1, 1, 1, 2) * (16 * unit_roundoff(torch.float32) + 4 * unit_roundoff(d.dtype))
    ratio = float(((back.double() - x.double()).abs() / allowed).max())
    return LawRecord("turned back", x.numel(), int(not ratio <= 1), ratio, 1.0)


@LAWS.of("ignored_differing", "loss")
def ignored_rows_do_not_count(d: Draw, loss: Any) -> LawRecord:
    """What stands where a target is ignored has no gradient and changes none."""
    x, targets = inputs_of(d, "loss")
    one, found = torch.ones((), device=d.device), []
    for factor in (1, -100):
        other = torch.where((targets == IGNORED)[..., None], factor * x, x)
        (d_x,), parameters = gradients(loss, (other, targets), one)
        found.append((d_x, parameters["weight"]))
    outside = found[0][0][targets == IGNORED]
    return merged(
        [
            *(compared("ignored", right, y) for right, y in zip(*found, strict=True)),
            compared("ignored", torch.zeros_like(outside), outside + 0.0),
        ]
    )


@LAWS.of("loss_ratio", "loss")
def gradients_add_up_to_nothing(d: Draw, loss: Any) -> LawRecord:
    """Probabilities and targets both sum to 1: over the vocabulary the weight's gradient is 0.

    Allowed: a rounding of each dz in the storage dtype, and float32 sums of N terms.
    """
    x, targets = inputs_of(d, "loss")
    x = d.normal(*x.shape, sd=0.0) + 1  # all inputs 1: the gradient of a row of the table is the sum of its dz
    _, parameters = gradients(loss, (x, targets), torch.ones((), device=d.device))
    dz_V = parameters["weight"].double().mean(1)
    counts = torch.bincount(targets[targets != IGNORED], minlength=V).double() / (targets != IGNORED).sum()
    p_V = (dz_V + counts).abs() + counts
    allowed = 2 * unit_roundoff(d.dtype) + 3 * NORMAL * targets.numel() ** 0.5 * unit_roundoff(torch.float32)
    worst = float(torch.maximum(dz_V.sum().abs() / p_V.sum(), (1 - (dz_V + counts).sum()).abs()))
    return LawRecord("sums", V, int(not worst <= allowed), worst, allowed)

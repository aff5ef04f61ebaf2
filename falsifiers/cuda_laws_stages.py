"""Laws of the forward passes of all stages but attention: rows, exact results, single terms of a formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aprender.parity.attention_laws import rope_shift
from aprender.parity.laws import LawRecord, bias_only, compared, scale_response
from aprender.parity.rounding import unit_roundoff
from aprender.parity.stages import as_tuple
from falsifiers.cuda_laws_attention import merged
from falsifiers.cuda_laws_system import EPS, IGNORED, LR, TOKENS, C, D, H, Laws, V, parameter
from falsifiers.cuda_operator_cases import Draw

LAWS = Laws()
ROWS = 3


def inputs_of(d: Draw, name: str, T: int = 3) -> tuple[Tensor, ...]:
    """Populated inputs of a stage: three rows of T positions."""
    x, branch = d.normal(ROWS, T, D), d.normal(ROWS, T, D)
    targets = d.integers(0, V, ROWS, T)
    match name:
        case "embedding":
            return (d.integers(0, TOKENS, ROWS, T),)
        case "add_norm" | "residual" | "swiglu":
            return x, branch
        case "rope":
            return d.normal(ROWS, T, H, C), d.integers(0, 4096, ROWS, T)
        case "loss" | "token_losses":
            targets[0, -1] = targets[2, 0] = IGNORED
            return x, targets
        case "adamw" | "adamw_first":
            w, m, v = (d.normal(7, 31, sd=0.3).float() for _ in range(3))
            return w, d.normal(7, 31), m, v.square()
        case "linear_of_integers" | "projections_of_integers":
            return (d.integers(-63, 64, ROWS, T, 37).to(d.dtype),)
        case _:
            return (x,)


def joined(output: Tensor | Sequence[Tensor]) -> Tensor:
    """All outputs of a stage, row by row."""
    return output if isinstance(output, Tensor) else torch.cat([x.flatten(1) for x in output], 1)


def spoiled(inputs: Sequence[Tensor], row: int) -> list[Tensor]:
    """The inputs with one row of NaN; integers stay."""
    found = [x.clone() for x in inputs]
    for x in found:
        if x.is_floating_point():
            x[row] = math.nan
    return found


@LAWS.of_each("rows_differing", "rms_norm", "add_norm", "residual", "rope", "swiglu", "embedding")
def rows(d: Draw, name: str, stage: Any) -> LawRecord:
    """Rows permuted, another row NaN, and a row alone: a row's bits stay."""
    inputs = inputs_of(d, name)
    y, alone = joined(stage(*inputs)), joined(stage(*(x[2:] for x in inputs)))
    return merged([*_among_others(stage, inputs, y), compared("rows", y[2:], alone)])


@LAWS.of_each("rows_differing", "linear", "token_losses")
def rows_of_one_shape(d: Draw, name: str, stage: Any) -> LawRecord:
    """As above, but never alone: for another number of rows a library may choose another kernel."""
    inputs = inputs_of(d, name)
    return merged(_among_others(stage, inputs, joined(stage(*inputs))))


def _among_others(stage: Any, inputs: Sequence[Tensor], y: Tensor) -> list[LawRecord]:
    permuted = joined(stage(*(x.roll(1, 0) for x in inputs)))
    beside_nan = joined(stage(*spoiled(inputs, 0)))
    return [compared("rows", y.roll(1, 0), permuted), compared("rows", y[1:], beside_nan[1:])]


@LAWS.of("bias_differing", "linear_of_zeros")
def bias_alone(d: Draw, linear: Any) -> LawRecord:
    """Zero weights: the output is the bias."""
    return bias_only(linear, d.normal(2, 3, D), parameter(linear, "bias"))


@LAWS.of_each("products_differing", "linear_of_integers", "projections_of_integers")
def products_of_integers(d: Draw, name: str, linear: Any) -> LawRecord:
    """Whole numbers whose sums float32 holds: the result is exact, rounded once. TF32 has no 12 bits for them."""
    most = 4095 if d.dtype == torch.float32 else 127
    x = d.integers(-most, most + 1, 2, 7, 37).to(d.dtype)
    weight, bias = parameter(linear, "weight").double(), parameter(linear, "bias").double()
    return compared("whole numbers", (x.double() @ weight.T + bias).to(d.dtype), torch.cat(as_tuple(linear(x)), -1))


@LAWS.of("eps_ratio", "rms_norm")
def eps(d: Draw, norm: Any) -> LawRecord:
    """Rows four times as large, where eps matters: a few roundings of either result are allowed."""
    x = d.normal(2, 7, D, sd=EPS**0.5)
    allowed = 2 * unit_roundoff(d.dtype) + (D + 8) * unit_roundoff(torch.float32)
    return scale_response(norm, x, EPS, 4.0, allowed)


@LAWS.of("fused_differing", "add_norm", "residual", "rms_norm")
def fused_is_unfused(d: Draw, add_norm: Any, residual: Any, norm: Any) -> LawRecord:
    """The fused norm is the addition and then the norm, bit for bit."""
    x, branch = inputs_of(d, "add_norm")
    total = residual(x, branch)
    return compared("fused", joined((total, norm(total))), joined(add_norm(x, branch)))


@LAWS.of("identity_differing", "residual")
def residual_of_nothing(d: Draw, residual: Any) -> LawRecord:
    """Adding 0 on either side changes nothing."""
    x, zero = d.normal(2, 7, D), d.normal(2, 7, D, sd=0.0)
    return merged([compared("identity", x, residual(*pair)) for pair in ((x, zero), (zero, x))])


@LAWS.of("identity_differing", "embedding")
def embedding_is_a_row(d: Draw, embedding: Any) -> LawRecord:
    """The first and the last row of the table, and some between."""
    tokens = torch.tensor([[0, TOKENS - 1, 3, 3, 17]], device=d.device)
    return compared("identity", parameter(embedding, "weight")[tokens], embedding(tokens))


@LAWS.of("identity_differing", "swiglu")
def swiglu_at_its_ends(d: Draw, swiglu: Any) -> LawRecord:
    """Gate 0 gives 0, gate 32 is passed on whole, gate -128 gives 0."""
    up = d.normal(1, 3, D)
    records = []
    for gate, expected in ((0.0, up * 0), (32.0, 32 * up), (-128.0, up * 0)):
        records.append(compared("identity", expected + 0.0, swiglu(torch.full_like(up, gate), up) + 0.0))
    return merged(records)


@LAWS.of("identity_differing", "rope")
def rope_at_zero(d: Draw, rotate: Any) -> LawRecord:
    """Position 0 is no rotation."""
    x = d.normal(2, 7, H, C)
    return compared("identity", x, rotate(x, torch.zeros(2, 7, dtype=torch.int64, device=d.device)))


@LAWS.of("rope_ratio", "rope")
def rope_keeps_scores(d: Draw, rotate: Any) -> LawRecord:
    """All positions moved by 1,009: every score stays."""
    q, k = d.normal(1, 7, H, C), d.normal(1, 7, H, C)
    return rope_shift(rotate, q, k, torch.tensor([[0, 1, 2, 5, 255, 256, 2047]], device=d.device), 1009)


@LAWS.of("rope_ratio", "rope")
def rope_keeps_norms(d: Draw, rotate: Any) -> LawRecord:
    """Each pair keeps its length: tables, two products and a sum round in float32, the result once."""
    x = d.normal(1, 7, H, C)
    y = rotate(x, torch.tensor([[0, 1, 2, 255, 256, 2047, 4095]], device=d.device))
    before, after = (torch.hypot(*z.double().chunk(2, -1)) for z in (x, y))
    allowed = 8 * unit_roundoff(torch.float32) + 2 * unit_roundoff(d.dtype)
    worst = float(((after - before).abs() / before).max())
    return LawRecord("norms", before.numel(), int(worst > allowed), worst, allowed)


@LAWS.of("loss_ratio", "loss")
def loss_of_equal_logits(d: Draw, loss: Any) -> LawRecord:
    """Inputs of zeros: every token has ln V, in nats, and so has their mean, whatever is ignored."""
    x, targets = inputs_of(d, "loss")
    found, allowed = float(loss.forward(x * 0, targets)[0]), 8 * unit_roundoff(torch.float32)
    error = abs(found / math.log(V) - 1)
    return LawRecord("equal logits", targets.numel(), int(not error <= allowed), error, allowed)


@LAWS.of("ignored_differing", "loss")
def ignored_rows_do_not_count(d: Draw, loss: Any) -> LawRecord:
    """What stands where a target is ignored changes no bit of the loss."""
    x, targets = inputs_of(d, "loss")
    other = torch.where((targets == IGNORED)[..., None], -100 * x, x)
    return compared("ignored", loss.forward(x, targets)[0], loss.forward(other, targets)[0])


@LAWS.of("optimizer_ratio", "adamw_first")
def first_step(d: Draw, step: Any) -> LawRecord:
    """From m = v = 0 the first step of each weight is the learning rate against its gradient's sign.

    eps shortens it by eps over the clipped gradient; allowed are 16 roundings, one of them of the weight.
    """
    w, g, m, v = inputs_of(d, "adamw_first")
    g[0] = 0
    found, *_, clip = step(w, g, m * 0, v * 0)
    gradient = g.double() * float(clip)
    expected = w.double() - LR * gradient / (gradient.abs() + 1e-8)
    allowed = unit_roundoff(torch.float32) * (w.double().abs() + 16 * LR)
    ratio = float(((found.double() - expected).abs() / allowed).nan_to_num(math.inf).max())
    return LawRecord("first step", w.numel(), int(ratio > 1), ratio, 1.0)

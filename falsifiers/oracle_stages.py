"""The oracle's operators as stages of the parity engine: each with its legal rounding plans and where it is exact.

What is legal: values are stored in the candidate's dtype p, every sum is taken in float32 in any order, and results are
rounded to p once. Besides that a plan may round where kernels in use do: a normalised value before its gain, silu(gate)
before its product with up, attention's weights before their product with v (``oracle_attention_stage``).

``gradients`` is the dtype of parameters' gradients where it is not the parameters' own: kernels that keep float32 ones
are held to float32.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from aprender.parity.blocks import Layout
from aprender.parity.stages import Gradients, Operator, Parameters, ReferenceStage, Tensors
from aprender.transformer.config import RopeScaling
from aprender.transformer.oracle import operators, rope
from falsifiers.oracle_stage_sums import linear_in_parts, rms_norm_gradients, truncated_product

MOST_PARTS = 256  # of a sum taken in order; with more the error hardly grows, the time does
HEADS = Layout(rows=2, heads=2)


def linear(
    name: str,
    x_BTK: Tensor,
    weight_NK: Tensor,
    bias_N: Tensor | None = None,
    seed: int = 0,
    gradients: torch.dtype | None = None,
) -> ReferenceStage:
    """``x W^T + b``: one product, four partial sums, or one term (of long sums, a few) after the other.

    In 16 bits float32 gradients may also be added up as tensor cores do it, which round towards zero.
    """
    K = weight_NK.shape[1]
    parameters = {"weight": weight_NK} | ({} if bias_N is None else {"bias": bias_N})
    plans = {
        f"{splits} partial sums": _linear(splits, gradients)
        for splits in dict.fromkeys((1, min(4, K), min(MOST_PARTS, K)))
    }
    if x_BTK.dtype.itemsize == 2:  # of 16-bit operands, as tensor cores do it
        plans["sums truncated"] = _linear(1, gradients, truncated=True)
    return ReferenceStage(name, (x_BTK,), parameters, _linear(1, None), plans, seed=seed)


def rms_norm(
    name: str, x_BTD: Tensor, gain_D: Tensor, eps: float, seed: int = 0, gradients: torch.dtype | None = None
) -> ReferenceStage:
    """RMSNorm: rounded once, or the normalised value before the gain as well."""

    def forward(early: bool, inputs: Tensors, parameters: Parameters) -> Tensor:
        (x,), gain, eps = inputs, tensor(parameters["weight"]), float(parameters["eps"])
        n = operators.rms_norm(widened(x), torch.ones_like(widened(gain)), eps)
        return (n.to(x.dtype) * gain if early else n * widened(gain)).to(x.dtype)

    def vjp(splits: int, inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        (x,), (dy,), gain = inputs, d_outputs, tensor(parameters["weight"])
        dx, dgain = rms_norm_gradients(widened(x), widened(gain), float(parameters["eps"]), widened(dy), splits)
        return Gradients((dx.to(x.dtype),), {"weight": dgain.to(_kept(gain, gradients))})

    once, early = partial(forward, False), partial(forward, True)
    plans = {
        "rounded once": Operator(once, partial(vjp, 1)),
        "rounded before the gain": Operator(early, None if gradients is None else partial(vjp, 4)),
    }
    if gradients is not None:  # float32 gradients show the order of their sums, an outlier channel's most of all
        plans["gain row by row"] = Operator(once, partial(vjp, MOST_PARTS))
    parameters: dict[str, Tensor | float] = {"weight": gain_D, "eps": eps}
    return ReferenceStage(name, (x_BTD,), parameters, Operator(once, partial(vjp, 1)), plans, seed=seed)


def rotate(name: str, x_BTHC: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, seed: int = 0) -> ReferenceStage:
    """RoPE by float32 tables: rounded once."""

    def forward(inputs: Tensors, parameters: Parameters) -> Tensor:
        x, cos, sin = inputs
        return rope.rotate(widened(x), *_like(widened(x), cos, sin)).to(x.dtype)

    def vjp(inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        (x, cos, sin), (dy,) = inputs, d_outputs
        return Gradients((rope.rotate_vjp(widened(dy), *_like(widened(x), cos, sin)).to(x.dtype), None, None), {})

    operator = Operator(forward, vjp)
    layouts = {"output": HEADS, "d_input 0": HEADS}
    inputs = (x_BTHC, cos_BTR, sin_BTR)
    return ReferenceStage(
        name, inputs, {}, operator, {"rounded once": operator}, frozenset({1, 2}), layouts=layouts, seed=seed
    )


def rotate_at(
    name: str, x_BTHC: Tensor, positions_BT: Tensor, theta: float, scaling: RopeScaling | None = None, seed: int = 0
) -> ReferenceStage:
    """RoPE by positions: tables computed in float64 and rounded to float32, the result rounded once."""

    def tables(x: Tensor, positions: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        return rope.tables(positions, x.shape[-1], float(parameters["theta"]), scaling, widened(x).dtype)

    def forward(inputs: Tensors, parameters: Parameters) -> Tensor:
        x, positions = inputs
        return rope.rotate(widened(x), *tables(x, positions, parameters)).to(x.dtype)

    def vjp(inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        (x, positions), (dy,) = inputs, d_outputs
        return Gradients((rope.rotate_vjp(widened(dy), *tables(x, positions, parameters)).to(x.dtype), None), {})

    operator = Operator(forward, vjp)
    layouts = {"output": HEADS, "d_input 0": HEADS}
    inputs = (x_BTHC, positions_BT)
    return ReferenceStage(
        name, inputs, {"theta": theta}, operator, {"rounded once": operator}, layouts=layouts, seed=seed
    )


def swiglu(name: str, gate_BTF: Tensor, up_BTF: Tensor, seed: int = 0) -> ReferenceStage:
    """``silu(gate) * up``: rounded once, or silu(gate) as well."""

    def forward(early: bool, inputs: Tensors, parameters: Parameters) -> Tensor:
        gate, up = inputs
        if early:
            return operators.swiglu(widened(gate), torch.ones_like(widened(up))).to(gate.dtype) * up
        return operators.swiglu(widened(gate), widened(up)).to(gate.dtype)

    def vjp(inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        (gate, up), (dy,) = inputs, d_outputs
        dgate, dup = operators.swiglu_vjp(widened(gate), widened(up), widened(dy))
        return Gradients((dgate.to(gate.dtype), dup.to(up.dtype)), {})

    once, early = partial(forward, False), partial(forward, True)
    plans = {"rounded once": Operator(once, vjp), "silu rounded": Operator(early)}
    return ReferenceStage(name, (gate_BTF, up_BTF), {}, Operator(once, vjp), plans, seed=seed)


def embed(
    name: str, tokens_BT: Tensor, weight_VD: Tensor, seed: int = 0, gradients: torch.dtype | None = None
) -> ReferenceStage:
    """Row lookup: exact; its gradient is a sum in float32."""

    def forward(inputs: Tensors, parameters: Parameters) -> Tensor:
        return operators.embed(tensor(parameters["weight"]), inputs[0])

    def vjp(inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        (tokens,), (dx,), weight = inputs, d_outputs, tensor(parameters["weight"])
        dweight = operators.embed_vjp(tokens, widened(dx), len(weight))
        return Gradients((None,), {"weight": dweight.to(_kept(weight, gradients))})

    operator = Operator(forward, vjp)
    plans = {"exact": operator}
    return ReferenceStage(
        name, (tokens_BT,), {"weight": weight_VD}, operator, plans, exact=frozenset({"output"}), seed=seed
    )


def add(name: str, x_BTD: Tensor, y_BTD: Tensor, seed: int = 0) -> ReferenceStage:
    """The residual sum: one correct rounding, and gradients that are copies."""
    operator = Operator(lambda inputs, parameters: inputs[0] + inputs[1])
    exact = frozenset({"output", "d_input 0", "d_input 1"})
    return ReferenceStage(name, (x_BTD, y_BTD), {}, operator, {"exact": operator}, exact=exact, seed=seed)


def cross_entropy(name: str, logits_MV: Tensor, targets_M: Tensor, seed: int = 0) -> ReferenceStage:
    """Nats per token in float32: straight; or the sum in four parts and the softmax from the stored logarithm of it."""

    def forward(parts: int, inputs: Tensors, parameters: Parameters) -> Tensor:
        logits, targets = widened(inputs[0]), inputs[1]
        return _log_sum(logits, parts)[:, 0] - logits.gather(-1, targets[:, None])[:, 0]

    def vjp(parts: int, inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        (logits, targets), (dloss,) = inputs, d_outputs
        if parts == 1:
            dlogits = operators.cross_entropy_vjp(widened(logits), targets, widened(dloss))
        else:
            dlogits = from_stored_log_sum(widened(logits), targets, widened(dloss), parts)
        return Gradients((dlogits.to(logits.dtype), None), {})

    straight, parts = (Operator(partial(forward, parts), partial(vjp, parts)) for parts in (1, 4))
    plans = {"straight": straight, "in parts": parts}
    return ReferenceStage(name, (logits_MV, targets_M), {}, straight, plans, seed=seed)


def from_stored_log_sum(logits_MV: Tensor, targets_M: Tensor, d_loss_M: Tensor, parts: int) -> Tensor:
    """The gradient of cross-entropy by logits as kernels have it that store ln of the sum of e^logit for backward.

    That logarithm is rounded to float32, which is coarse beside 1 - p of a token predicted with certainty.
    """
    p = torch.exp(logits_MV - _log_sum(logits_MV, parts))
    return d_loss_M[:, None] * p.scatter_add(-1, targets_M[:, None], -torch.ones_like(p[:, :1]))


def _log_sum(logits_MV: Tensor, parts: int) -> Tensor:
    """The logarithm of the sum of exponentials over the last axis, in ``parts`` partial sums: shape [M, 1]."""
    largest = logits_MV.amax(-1, keepdim=True)
    total = torch.zeros_like(largest)
    for part in torch.exp(logits_MV - largest).tensor_split(parts, -1):
        total = total + part.sum(-1, keepdim=True)
    return torch.log(total) + largest


def _kept(parameter: Tensor, gradients: torch.dtype | None) -> torch.dtype:
    return parameter.dtype if gradients is None or parameter.dtype == torch.float64 else gradients


def widened(x: Tensor) -> Tensor:
    """Cast to what sums are taken in: float32, or float64 for the oracle."""
    return x if x.dtype == torch.float64 else x.float()


def _like(x: Tensor, *tables: Tensor) -> list[Tensor]:
    return [table.to(x.dtype) for table in tables]


def tensor(value: Tensor | float) -> Tensor:
    """A parameter that is a tensor."""
    assert isinstance(value, Tensor)  # noqa: S101 - which of a stage's parameters are tensors is written a few lines up
    return value


def _linear(splits: int, kept: torch.dtype | None, truncated: bool = False) -> Operator:
    def forward(inputs: Tensors, parameters: Parameters) -> Tensor:
        (x,), weight, bias = inputs, tensor(parameters["weight"]), parameters.get("bias")
        y = linear_in_parts(widened(x), widened(weight), None if bias is None else widened(tensor(bias)), splits)
        return y.to(x.dtype)

    def vjp(inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        (x,), (dy,), weight = inputs, d_outputs, tensor(parameters["weight"])
        x_MK, dy_MN = widened(x).flatten(0, -2), widened(dy).flatten(0, -2)
        dx = linear_in_parts(widened(dy), widened(weight).T, None, min(splits, dy.shape[-1]))
        if truncated:
            dweight = truncated_product(dy_MN.T, x_MK.T, MOST_PARTS)
        else:
            dweight = linear_in_parts(dy_MN.T, x_MK.T, None, min(splits, len(x_MK)))
        gradients = {"weight": dweight.to(_kept(weight, kept))}
        if "bias" in parameters:
            gradients["bias"] = _summed(dy_MN, min(splits, len(dy_MN))).to(_kept(weight, kept))
        return Gradients((dx.to(x.dtype),), gradients)

    return Operator(forward, vjp)


def _summed(dy_MN: Tensor, splits: int) -> Tensor:
    """The sum over M as ``splits`` partial sums added in order."""
    M = len(dy_MN)
    total = torch.zeros_like(dy_MN[0])
    for start, stop in pairwise([M * i // splits for i in range(splits + 1)]):
        total = total + dy_MN[start:stop].sum(0)
    return total


def small_rows_scaled(x_BTD: Tensor, rms: float) -> Tensor:
    """Every second row scaled by a power of two to about ``rms``: where an additive eps of ``rms^2`` shows."""
    row_rms = x_BTD.float().square().mean(-1, keepdim=True).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    factor = torch.exp2(torch.round(torch.log2(rms / row_rms)))
    small = torch.arange(x_BTD.shape[-2], device=x_BTD.device) % 2 == 1
    return torch.where(small[:, None], x_BTD * factor.to(x_BTD.dtype), x_BTD)

"""The oracle's operators as stages of the parity engine: each with its legal rounding plans and where it is exact.

What is legal: values are stored in the candidate's dtype p, every sum is taken in float32 in any order, and results are
rounded to p once. Besides that a plan may round where kernels in use do: a normalised value before its gain, silu(gate)
before its product with up, attention's weights before their product with v.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from aprender.parity.blocks import Layout
from aprender.parity.stages import Gradients, Operator, Parameters, ReferenceStage, Tensors
from aprender.transformer.oracle import attention, operators, rope

HEADS = Layout(rows=2, heads=2)
LOG2_E = math.log2(math.e)  # GPUs have exp2 in hardware; kernels multiply scores by this
KEY_BLOCK = 64  # the tile of keys of an online softmax


def linear(name: str, x_BTK: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None, seed: int = 0) -> ReferenceStage:
    """``x W^T + b``: one product, four partial sums, or one term after the other."""
    K = weight_NK.shape[1]
    parameters = {"weight": weight_NK} | ({} if bias_N is None else {"bias": bias_N})
    plans = {f"{splits} partial sums": _linear(splits) for splits in dict.fromkeys((1, min(4, K), K))}
    return ReferenceStage(name, (x_BTK,), parameters, _linear(1), plans, seed=seed)


def rms_norm(name: str, x_BTD: Tensor, gain_D: Tensor, eps: float, seed: int = 0) -> ReferenceStage:
    """RMSNorm: rounded once, or the normalised value before the gain as well."""

    def forward(early: bool, inputs: Tensors, parameters: Parameters) -> Tensor:
        (x,), gain, eps = inputs, _tensor(parameters["weight"]), float(parameters["eps"])
        n = operators.rms_norm(_up(x), torch.ones_like(_up(gain)), eps)
        return (n.to(x.dtype) * gain if early else n * _up(gain)).to(x.dtype)

    def vjp(inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        (x,), (dy,), gain = inputs, d_outputs, _tensor(parameters["weight"])
        dx, dgain = operators.rms_norm_vjp(_up(x), _up(gain), float(parameters["eps"]), _up(dy))
        return Gradients((dx.to(x.dtype),), {"weight": dgain.to(gain.dtype)})

    once, early = partial(forward, False), partial(forward, True)
    plans = {"rounded once": Operator(once, vjp), "rounded before the gain": Operator(early)}
    parameters: dict[str, Tensor | float] = {"weight": gain_D, "eps": eps}
    return ReferenceStage(name, (x_BTD,), parameters, Operator(once, vjp), plans, seed=seed)


def rotate(name: str, x_BTHC: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, seed: int = 0) -> ReferenceStage:
    """RoPE by float32 tables: rounded once."""

    def forward(inputs: Tensors, parameters: Parameters) -> Tensor:
        x, cos, sin = inputs
        return rope.rotate(_up(x), *_like(_up(x), cos, sin)).to(x.dtype)

    def vjp(inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        (x, cos, sin), (dy,) = inputs, d_outputs
        return Gradients((rope.rotate_vjp(_up(dy), *_like(_up(x), cos, sin)).to(x.dtype), None, None), {})

    operator = Operator(forward, vjp)
    layouts = {"output": HEADS, "d_input 0": HEADS}
    inputs = (x_BTHC, cos_BTR, sin_BTR)
    return ReferenceStage(
        name, inputs, {}, operator, {"rounded once": operator}, frozenset({1, 2}), layouts=layouts, seed=seed
    )


def attend(
    name: str, q_BTHC: Tensor, k_BSGC: Tensor, v_BSGC: Tensor, allowed_BTS: Tensor, scale: float, seed: int = 0
) -> ReferenceStage:
    """Grouped-query attention: all in float32; weights rounded before v; or by blocks of keys with a running maximum."""

    def oracle(inputs: Tensors, parameters: Parameters) -> Tensor:
        return attention.attention(*inputs, scale=float(parameters["scale"]))

    def oracle_vjp(inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        found = attention.attention_vjp(*inputs, scale=float(parameters["scale"]), dout_BTHC=d_outputs[0])
        return Gradients((*found, None), {})

    plans = {
        "float32 inside": Operator(partial(_attend, False, False), partial(_attend_vjp, False, False)),
        "term by term": Operator(partial(_attend, False, True), partial(_attend_vjp, False, True)),
        "weights rounded": Operator(partial(_attend, True, False), partial(_attend_vjp, True, False)),
        "blocks of keys": Operator(_attend_by_blocks, partial(_attend_vjp, True, True)),
    }
    layouts = dict.fromkeys(("output", "d_input 0", "d_input 1", "d_input 2"), HEADS)
    return ReferenceStage(
        name,
        (q_BTHC, k_BSGC, v_BSGC, allowed_BTS),
        {"scale": scale},
        Operator(oracle, oracle_vjp),
        plans,
        masks=frozenset({3}),
        layouts=layouts,
        seed=seed,
        crop=lambda rows, places: attend(
            name, *(x[rows, places] for x in (q_BTHC, k_BSGC, v_BSGC)), allowed_BTS[rows, places, places], scale, seed
        ),
    )


def swiglu(name: str, gate_BTF: Tensor, up_BTF: Tensor, seed: int = 0) -> ReferenceStage:
    """``silu(gate) * up``: rounded once, or silu(gate) as well."""

    def forward(early: bool, inputs: Tensors, parameters: Parameters) -> Tensor:
        gate, up = inputs
        if early:
            return operators.swiglu(_up(gate), torch.ones_like(_up(up))).to(gate.dtype) * up
        return operators.swiglu(_up(gate), _up(up)).to(gate.dtype)

    def vjp(inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        (gate, up), (dy,) = inputs, d_outputs
        dgate, dup = operators.swiglu_vjp(_up(gate), _up(up), _up(dy))
        return Gradients((dgate.to(gate.dtype), dup.to(up.dtype)), {})

    once, early = partial(forward, False), partial(forward, True)
    plans = {"rounded once": Operator(once, vjp), "silu rounded": Operator(early)}
    return ReferenceStage(name, (gate_BTF, up_BTF), {}, Operator(once, vjp), plans, seed=seed)


def embed(name: str, tokens_BT: Tensor, weight_VD: Tensor, seed: int = 0) -> ReferenceStage:
    """Row lookup: exact; its gradient is a sum in float32."""

    def forward(inputs: Tensors, parameters: Parameters) -> Tensor:
        return operators.embed(_tensor(parameters["weight"]), inputs[0])

    def vjp(inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        (tokens,), (dx,), weight = inputs, d_outputs, _tensor(parameters["weight"])
        dweight = operators.embed_vjp(tokens, _up(dx), len(weight))
        return Gradients((None,), {"weight": dweight.to(weight.dtype)})

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
        logits, targets = _up(inputs[0]), inputs[1]
        return _log_sum(logits, parts)[:, 0] - logits.gather(-1, targets[:, None])[:, 0]

    def vjp(parts: int, inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        (logits, targets), (dloss,) = inputs, d_outputs
        if parts == 1:
            dlogits = operators.cross_entropy_vjp(_up(logits), targets, _up(dloss))
        else:
            p = torch.exp(_up(logits) - _log_sum(_up(logits), parts))
            dlogits = _up(dloss)[:, None] * p.scatter_add(-1, targets[:, None], -torch.ones_like(p[:, :1]))
        return Gradients((dlogits.to(logits.dtype), None), {})

    straight, parts = (Operator(partial(forward, parts), partial(vjp, parts)) for parts in (1, 4))
    plans = {"straight": straight, "in parts": parts}
    return ReferenceStage(name, (logits_MV, targets_M), {}, straight, plans, seed=seed)


def _log_sum(logits_MV: Tensor, parts: int) -> Tensor:
    """The logarithm of the sum of exponentials over the last axis, in ``parts`` partial sums: shape [M, 1]."""
    largest = logits_MV.amax(-1, keepdim=True)
    total = torch.zeros_like(largest)
    for part in torch.exp(logits_MV - largest).tensor_split(parts, -1):
        total = total + part.sum(-1, keepdim=True)
    return torch.log(total) + largest


def _up(x: Tensor) -> Tensor:
    """To what sums are taken in: float32, or float64 for the oracle."""
    return x if x.dtype == torch.float64 else x.float()


def _like(x: Tensor, *tables: Tensor) -> list[Tensor]:
    return [table.to(x.dtype) for table in tables]


def _tensor(value: Tensor | float) -> Tensor:
    assert isinstance(value, Tensor)  # noqa: S101 - which of a stage's parameters are tensors is written a few lines up
    return value


def _linear(splits: int) -> Operator:
    def forward(inputs: Tensors, parameters: Parameters) -> Tensor:
        (x,), weight, bias = inputs, _tensor(parameters["weight"]), parameters.get("bias")
        y = operators.linear(_up(x), _up(weight), None if bias is None else _up(_tensor(bias)), splits)
        return y.to(x.dtype)

    def vjp(inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        (x,), (dy,), weight = inputs, d_outputs, _tensor(parameters["weight"])
        x_MK, dy_MN = _up(x).flatten(0, -2), _up(dy).flatten(0, -2)
        dx = operators.linear(_up(dy), _up(weight).T, None, min(splits, dy.shape[-1]))
        dweight = operators.linear(dy_MN.T, x_MK.T, None, min(splits, len(x_MK)))
        gradients = {"weight": dweight.to(weight.dtype)}
        if "bias" in parameters:
            gradients["bias"] = _summed(dy_MN, min(splits, len(dy_MN))).to(weight.dtype)
        return Gradients((dx.to(x.dtype),), gradients)

    return Operator(forward, vjp)


def _summed(dy_MN: Tensor, splits: int) -> Tensor:
    """The sum over M as ``splits`` partial sums added in order."""
    M = len(dy_MN)
    total = torch.zeros_like(dy_MN[0])
    for start, stop in pairwise([M * i // splits for i in range(splits + 1)]):
        total = total + dy_MN[start:stop].sum(0)
    return total


def _expanded(inputs: Tensors) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v as [B, H, T, C] in float32, key/value heads repeated for their group, and who sees whom [B, 1, T, S]."""
    q, k, v, allowed = inputs
    group = q.shape[2] // k.shape[2]
    k, v = (_up(x).transpose(1, 2).repeat_interleave(group, 1) for x in (k, v))
    return _up(q).transpose(1, 2), k, v, allowed[:, None]


def _attend(rounded: bool, steps: bool, inputs: Tensors, parameters: Parameters) -> Tensor:
    q, k, v, allowed = _expanded(inputs)
    p = operators.softmax(_scores(steps, q, k, allowed, parameters))
    if rounded:
        p = _up(p.to(inputs[0].dtype))
    return _product(steps, p, v).transpose(1, 2).to(inputs[0].dtype)


def _scores(steps: bool, q: Tensor, k: Tensor, allowed: Tensor, parameters: Parameters) -> Tensor:
    """``scale q k^T`` where allowed; in ``steps`` with the scale multiplied into q."""
    scale = float(parameters["scale"])
    scores = _product(True, q * scale, k.mT) if steps else q @ k.mT * scale
    return torch.where(allowed, scores, -math.inf)


def _product(steps: bool, a: Tensor, b: Tensor) -> Tensor:
    """``a @ b``, in ``steps`` one term of each sum after the other."""
    if not steps:
        return a @ b
    total = torch.zeros_like(a[..., :1] * b[..., :1, :])
    for i in range(a.shape[-1]):
        total += a[..., i : i + 1] * b[..., i : i + 1, :]
    return total


def _attend_by_blocks(inputs: Tensors, parameters: Parameters) -> Tensor:
    """Milakov and Gimelshein 2018 (arXiv 1805.02867), as FlashAttention tiles it: rounded weights, divided at the end."""
    q, k, v, allowed = _expanded(inputs)
    largest = torch.full_like(q[..., :1], -math.inf)
    total, out = torch.zeros_like(largest), torch.zeros_like(q)
    for start in range(0, k.shape[2], KEY_BLOCK):
        block = slice(start, start + KEY_BLOCK)
        scores = torch.where(allowed[..., block], q @ k[:, :, block].mT * float(parameters["scale"]), -math.inf)
        new = torch.maximum(largest, scores.amax(-1, keepdim=True))
        shift = torch.where(new == -math.inf, 0.0, new)
        p, keep = torch.exp(scores - shift), torch.exp(largest - shift)
        total = total * keep + p.sum(-1, keepdim=True)
        out = out * keep + _up(p.to(inputs[0].dtype)) @ v[:, :, block]
        largest = new
    return (out / torch.where(total == 0, 1.0, total)).transpose(1, 2).to(inputs[0].dtype)


def _attend_vjp(rounded: bool, steps: bool, inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
    """As FlashAttention writes it (arXiv 2205.14135, algorithm 4).

    Weights from the stored logarithm of their sum, the row sum from the output and dout. ``rounded``: weights and the
    scores' gradients are stored. ``steps``: sums are taken term by term, exponents have base 2, and the gradients of k and v of each query head
    are stored before their group's sum.
    """
    q, k, v, allowed = _expanded(inputs)
    dtype, scale = inputs[0].dtype, float(parameters["scale"])
    dout = _up(d_outputs[0]).transpose(1, 2)
    scores = _scores(steps, q, k, allowed, parameters)
    log_sum = scores.logsumexp(-1, keepdim=True)
    log_sum = torch.where(log_sum == -math.inf, 0.0, log_sum)
    p = torch.exp2(scores * LOG2_E - log_sum * LOG2_E) if steps else torch.exp(scores - log_sum)
    out = _product(steps, p, v)
    if rounded:
        out = _up(out.to(dtype))
    ds = p * (_product(steps, dout, v.mT) - (dout * out).sum(-1, keepdim=True))
    if rounded:
        p, ds = _up(p.to(dtype)), _up(ds.to(dtype))
    by_head = (scale * _product(steps, ds.mT, q), _product(steps, p.mT, dout))
    groups = (inputs[1].shape[2], q.shape[1] // inputs[1].shape[2])
    dk, dv = (_up(x.to(dtype) if steps else x).unflatten(1, groups).sum(2) for x in by_head)
    found = (x.transpose(1, 2).to(dtype) for x in (scale * _product(steps, ds, k), dk, dv))
    return Gradients((*found, None), {})


def small_rows_scaled(x_BTD: Tensor, rms: float) -> Tensor:
    """Every second row scaled by a power of two to about ``rms``: where an additive eps of ``rms^2`` shows."""
    row_rms = x_BTD.float().square().mean(-1, keepdim=True).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    factor = torch.exp2(torch.round(torch.log2(rms / row_rms)))
    small = torch.arange(x_BTD.shape[-2], device=x_BTD.device) % 2 == 1
    return torch.where(small[:, None], x_BTD * factor.to(x_BTD.dtype), x_BTD)

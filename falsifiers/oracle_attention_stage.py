"""The oracle's attention as a stage of the parity engine, with the legal rounding plans of fused kernels.

All in float32; or every sum term by term and exponents of base 2; or weights rounded before their product with v; or by
blocks of keys with a running maximum, as FlashAttention does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from aprender.parity.blocks import Layout
from aprender.parity.stages import Gradients, Operator, Parameters, ReferenceStage, Tensors
from aprender.transformer.oracle import attention, operators
from aprender.transformer.oracle.attention import Places, allowed_pairs
from falsifiers.oracle_stages import widened

LOG2_E = math.log2(math.e)  # GPUs have exp2 in hardware; kernels multiply scores by this
Sums = Literal["whole", "by head", "by group"]
Attended = Callable[[Tensors, Parameters], Tensor]
KEY_BLOCK, SMALL_BLOCK = 64, 32  # tiles of keys of an online softmax


def attend(
    name: str,
    heads: tuple[Tensor, Tensor, Tensor],
    queries: Places,
    keys: Places,
    scale: float,
    window: int | None = None,
    seed: int = 0,
) -> ReferenceStage:
    """Grouped-query attention of ``heads`` q_BTHC, k_BSGC, v_BSGC over who may see whom.

    The candidate is called with (q, k, v, query positions, key positions, query documents, key documents).
    """

    def oracle(inputs: Tensors, parameters: Parameters) -> Tensor:
        q, k, v, *places = inputs
        return attention.attention(q, k, v, seen(places, window), float(parameters["scale"]))

    def oracle_vjp(inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        q, k, v, *places = inputs
        found = attention.attention_vjp(q, k, v, seen(places, window), float(parameters["scale"]), d_outputs[0])
        return Gradients((*found, *[None] * 4), {})

    def plan(attended: Attended, rounded: bool, sums: Sums) -> Operator:
        return Operator(attended, partial(_attend_vjp, attended, rounded, sums, window))

    plans = {
        "float32 inside": plan(partial(_attend, False, False, window), rounded=False, sums="whole"),
        "term by term": plan(partial(_attend, False, True, window), rounded=False, sums="by head"),
        "weights rounded": plan(partial(_attend, True, False, window), rounded=True, sums="whole"),
        "blocks of keys": plan(partial(_attend_by_blocks, KEY_BLOCK, window), rounded=True, sums="by head"),
        "small blocks of keys": plan(partial(_attend_by_blocks, SMALL_BLOCK, window), rounded=True, sums="by group"),
    }
    inputs = (*heads, queries.positions_BT, keys.positions_BT, queries.documents_BT, keys.documents_BT)
    # Where few keys are seen, or by few queries, a row is a weight times a vector, and the weight was rounded.
    layout = Layout(rows=2, heads=2, joint_rows=True)
    layouts = dict.fromkeys(("output", "d_input 0", "d_input 1", "d_input 2"), layout)
    return ReferenceStage(
        name,
        inputs,
        {"scale": scale},
        Operator(oracle, oracle_vjp),
        plans,
        masks=frozenset({5, 6}),  # documents: one only, nothing to perturb
        layouts=layouts,
        seed=seed,
    )


def seen(places: list[Tensor], window: int | None) -> Tensor:
    """Which keys each query sees, allowed_BTS, from the last four inputs of the stage."""
    q_positions, k_positions, q_documents, k_documents = places
    return allowed_pairs(Places(q_positions, q_documents), Places(k_positions, k_documents), window)


def _expanded(inputs: Tensors, window: int | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v as [B, H, T, C] in float32, key/value heads repeated for their group, and who sees whom [B, 1, T, S]."""
    q, k, v, *places = inputs
    group = q.shape[2] // k.shape[2]
    k, v = (widened(x).transpose(1, 2).repeat_interleave(group, 1) for x in (k, v))
    return widened(q).transpose(1, 2), k, v, seen(places, window)[:, None]


def _attend(rounded: bool, steps: bool, window: int | None, inputs: Tensors, parameters: Parameters) -> Tensor:
    q, k, v, allowed = _expanded(inputs, window)
    p = operators.softmax(_scores(steps, q, k, allowed, parameters))
    if rounded:
        p = widened(p.to(inputs[0].dtype))
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
        total.addcmul_(a[..., i : i + 1], b[..., i : i + 1, :])
    return total


def _attend_by_blocks(size: int, window: int | None, inputs: Tensors, parameters: Parameters) -> Tensor:
    """Milakov and Gimelshein 2018 (arXiv 1805.02867): weights rounded, the sum divided out at the end."""
    q, k, v, allowed = _expanded(inputs, window)
    largest = torch.full_like(q[..., :1], -math.inf)
    total, out = torch.zeros_like(largest), torch.zeros_like(q)
    for start in range(0, k.shape[2], size):
        block = slice(start, start + size)
        scores = torch.where(allowed[..., block], q @ k[:, :, block].mT * float(parameters["scale"]), -math.inf)
        new = torch.maximum(largest, scores.amax(-1, keepdim=True))
        shift = torch.where(new == -math.inf, 0.0, new)
        p, keep = torch.exp(scores - shift), torch.exp(largest - shift)
        total = total * keep + p.sum(-1, keepdim=True)
        out = out * keep + widened(p.to(inputs[0].dtype)) @ v[:, :, block]
        largest = new
    return (out / torch.where(total == 0, 1.0, total)).transpose(1, 2).to(inputs[0].dtype)


def _attend_vjp(
    attended: Attended,
    rounded: bool,
    sums: Sums,
    window: int | None,
    inputs: Tensors,
    parameters: Parameters,
    d_outputs: Tensors,
) -> Gradients:
    """As FlashAttention writes it (arXiv 2205.14135, algorithm 4).

    Weights from the stored logarithm of their sum, the row sum from dout and the output. ``rounded``: the output is the
    one that the forward pass ``attended`` to store; weights and the scores' gradients are stored as well. ``sums`` "by
    head": all are taken term by term, exponents have base 2, and the gradients of k and v of each query head are stored
    before their group's sum. "by group": those two gradients are sums over the queries of all heads, one term after the
    other, as kernels take them whose program is a tile of keys.
    """
    q, k, v, allowed = _expanded(inputs, window)
    dtype, scale, steps, G = inputs[0].dtype, float(parameters["scale"]), sums == "by head", inputs[1].shape[2]
    dout = widened(d_outputs[0]).transpose(1, 2)
    scores = _scores(steps, q, k, allowed, parameters)
    log_sum = scores.logsumexp(-1, keepdim=True)
    log_sum = torch.where(log_sum == -math.inf, 0.0, log_sum)
    p = torch.exp2(scores * LOG2_E - log_sum * LOG2_E) if steps else torch.exp(scores - log_sum)
    out = widened(attended(inputs, parameters)).transpose(1, 2) if rounded else _product(steps, p, v)
    ds = p * (_product(steps, dout, v.mT) - (dout * out).sum(-1, keepdim=True))
    if rounded:
        p, ds = widened(p.to(dtype)), widened(ds.to(dtype))
    pairs = ((ds, scale * q), (p, dout))
    if sums == "by group":
        dk, dv = (_product(True, _of_group(a, G).mT, _of_group(b, G)) for a, b in pairs)
    else:
        by_head = (_product(steps, a.mT, b) for a, b in pairs)
        dk, dv = (_grouped(widened(x.to(dtype) if steps else x), G) for x in by_head)
    found = (x.transpose(1, 2).to(dtype) for x in (scale * _product(steps, ds, k), dk, dv))
    return Gradients((*found, *[None] * 4), {})


def _of_group(x_BHTN: Tensor, G: int) -> Tensor:
    """The rows of all query heads of a group, one after the other: [B, G, H / G * T, N]."""
    B, H, T, N = x_BHTN.shape
    return x_BHTN.reshape(B, G, H // G * T, N)


def _grouped(x_BHSC: Tensor, G: int) -> Tensor:
    """The sum over the query heads of each group: x_BGSC."""
    B, H, S, C = x_BHSC.shape
    return x_BHSC.reshape(B, G, H // G, S, C).sum(2)

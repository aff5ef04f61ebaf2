"""Laws of attention's backward pass: where a gradient may be at all, and what it does not depend on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aprender.parity.laws import LawRecord, compared
from aprender.parity.rounding import unit_roundoff
from falsifiers.cuda_laws_attention import SCALE, heads, in_order, merged, narrow, packed_places, sees
from falsifiers.cuda_laws_system import WINDOW, C, H, Laws, tile_of
from falsifiers.cuda_operator_cases import Draw

LAWS = Laws()
Grads = tuple[Tensor, ...]


def gradients(stage: Any, inputs: Sequence[Tensor], d_output: Any) -> tuple[Grads, dict[str, Tensor]]:
    """All gradients of one forward and backward."""
    found: tuple[Grads, dict[str, Tensor]] = stage.backward(stage.forward(*inputs)[1], d_output)
    return found


def cotangent(d: Draw, stage: Any, inputs: Sequence[Tensor]) -> Any:
    """A random d_output for what the stage returns."""
    output = stage.forward(*inputs)[0]
    if isinstance(output, Tensor):
        return torch.tensor(1.0, device=d.device) if output.ndim == 0 else d.normal(*output.shape)
    return tuple(d.normal(*x.shape) for x in output)


def at_one_query(attention: Any, qkv: Sequence[Tensor], place: Any, i: int, h: int, window: int | None) -> LawRecord:
    """d_output at query i of head h alone: d_v where it sees, d_k nowhere else, d_q at itself alone."""
    documents = place[1:] * 2 if int(place[1].max()) > 0 else ()
    d_output = torch.zeros_like(qkv[0])
    d_output[0, i, h] = 1.0
    d_q, d_k, d_v = (
        x.abs().sum(-1)[0] for x in gradients(attention, (*qkv, place[0], place[0], *documents), d_output)[0]
    )
    seen = torch.stack([sees(place, j, window)[i] for j in range(qkv[1].shape[1])])
    right = torch.zeros_like(d_v, dtype=torch.bool)
    right[:, h // (qkv[0].shape[2] // qkv[1].shape[2])] = seen
    elsewhere = d_q.clone()
    elsewhere[i, h] = 0
    return merged(
        [
            compared("one query", right, d_v != 0),
            compared("one query", torch.zeros_like(right), (d_k != 0) & ~right),
            compared("one query", torch.zeros_like(d_q), elsewhere),
        ]
    )


@LAWS.of("causality_differing", "attention", interpreted="float32")
def causality(d: Draw, attention: Any) -> LawRecord:
    """Of a query in the middle: the next key has no gradient."""
    T = tile_of(d) + 1
    qkv = narrow(d, T)
    place = in_order(qkv[0]), torch.zeros(1, T, dtype=torch.int64, device=d.device)
    return at_one_query(attention, qkv, place, T - 4, 1, None)


@LAWS.of("causality_differing", "attention", interpreted="float32")
def invisible_keys_do_not_count(d: Draw, attention: Any) -> LawRecord:
    """Whatever stands in later keys, NaN too, gradients of a d_output up to a query stay, bit for bit."""
    q, k, v = narrow(d, tile_of(d) + 1)
    at, d_output = in_order(q), d.normal(*q.shape)
    t = q.shape[1] - 4
    d_output[:, t + 1 :] = 0
    found = []
    for later in (None, 3e4, math.nan):
        k, v = k.clone(), v.clone()
        if later is not None:
            k[:, t + 1 :] = v[:, t + 1 :] = later
        d_inputs = gradients(attention, (q, k, v, at, at), d_output)[0]
        found.append(torch.cat([x[:, : t + 1].flatten() for x in d_inputs]))
    return merged([compared("invisible keys", found[0], other) for other in found[1:]])


@LAWS.of("heads_differing", "attention_grouped", interpreted="float32")
def grouped_heads(d: Draw, attention: Any) -> LawRecord:
    """The last query of the first and of the last head: gradients in its group's key/value head alone."""
    T = tile_of(d) + 1
    qkv = heads(d, T)
    place = in_order(qkv[0]), torch.zeros(1, T, dtype=torch.int64, device=d.device)
    return merged([at_one_query(attention, qkv, place, T - 1, h, None) for h in (0, H - 1)])


@LAWS.of("window_differing", "attention_window", interpreted="float32")
def window(d: Draw, attention: Any) -> LawRecord:
    """A query that sees less than its document."""
    T = tile_of(d) + 1
    return at_one_query(attention, narrow(d, T), packed_places(d, T), T - 4, 1, WINDOW)


@LAWS.of("window_differing", "attention_wide", interpreted="float32")
def window_of_tiles(d: Draw, attention: Any) -> LawRecord:
    """The last query of three tiles sees all keys but the first."""
    T = 3 * tile_of(d)
    qkv = narrow(d, T)
    place = in_order(qkv[0]), torch.zeros(1, T, dtype=torch.int64, device=d.device)
    return at_one_query(attention, qkv, place, T - 1, 1, T - 1)


@LAWS.of("documents_differing", "attention_packed", interpreted="float32")
def documents(d: Draw, attention: Any) -> LawRecord:
    """The first but one query of the second document."""
    T = tile_of(d) + 1
    return at_one_query(attention, narrow(d, T), packed_places(d, T), 7, 1, WINDOW)


@LAWS.of("documents_differing", "attention_packed", interpreted="float32")
def other_documents_do_not_count(d: Draw, attention: Any) -> LawRecord:
    """One of two documents that share their tiles is NaN in all inputs and in d_output: the other's gradients stay."""
    T = tile_of(d) + 1
    qkv = narrow(d, T)
    place, d_output = packed_places(d, T), d.normal(*qkv[0].shape)
    places = (place[0], place[0], place[1], place[1])
    right, records = gradients(attention, (*qkv, *places), d_output)[0], []
    for document in (0, 1):
        wild = (place[1] == document)[..., None, None]
        spoiled = [x.masked_fill(wild, math.nan) for x in (*qkv, d_output)]
        found = gradients(attention, (*spoiled[:3], *places), spoiled[3])[0]
        other = (place[1] == 1 - document)[0]
        ours, theirs = (torch.cat([x[:, other].flatten() for x in xs]) for xs in (right, found))
        records.append(compared("other documents", ours, theirs))
    return merged(records)


@LAWS.of("padding_differing", "attention_padded", interpreted="float32")
def padded_is_unpadded(d: Draw, attention: Any) -> LawRecord:
    """Padding of NaN on the right, or a tile of it on the left: the same gradients, and 0 for the padding."""
    tile, T = tile_of(d), 13
    qkv = narrow(d, T)
    d_output = d.normal(*qkv[0].shape)
    right, records = None, []
    for left, after in ((0, 0), (0, 6), (tile, 0)):
        padded = [torch.nn.functional.pad(x, (0, 0, 0, 0, left, after), value=math.nan) for x in (*qkv, d_output)]
        token = torch.nn.functional.pad(torch.ones(1, T, dtype=torch.bool, device=d.device), (left, after))
        position, document = torch.where(token, in_order(padded[0]) - left, 0), token.long() - 1
        found = gradients(attention, (*padded[:3], position, position, document, document), padded[3])[0]
        d_inputs = torch.cat([x.flatten(2) for x in found], 2)
        right = d_inputs if right is None else right
        records.append(compared("padded = unpadded", right, d_inputs[:, left : left + T]))
        outside = d_inputs[~token]
        records.append(compared("padding has no gradient", torch.zeros_like(outside), outside + 0.0))
    return merged([record for record in records if record.compared])


@LAWS.of("alignment_differing", "attention", interpreted="float32")
def fewer_queries_than_keys(d: Draw, attention: Any) -> LawRecord:
    """The queries of the last tile, alone over all keys: the gradients that they have among all queries."""
    tile = tile_of(d)
    q, k, v = narrow(d, tile + 3)
    at, d_output = in_order(q), d.normal(*q.shape)
    d_output[:, :tile] = 0
    among = gradients(attention, (q, k, v, at, at), d_output)[0]
    alone = gradients(attention, (q[:, tile:], k, v, at[:, tile:], at), d_output[:, tile:])[0]
    right = torch.cat([x.flatten() for x in (among[0][:, tile:], *among[1:])])
    return compared("Tq != Tk", right + 0.0, torch.cat([x.flatten() for x in alone]) + 0.0)


@LAWS.of("sums_differing", "attention_self")
def one_key(d: Draw, attention: Any) -> LawRecord:
    """A query that sees itself alone passes its d_output on to its value: whole numbers add up exactly."""
    q, k, v = narrow(d, tile_of(d) + 1)
    d_output = d.integers(-63, 64, *q.shape).to(d.dtype)
    d_v = gradients(attention, (q, k, v, in_order(q), in_order(k)), d_output)[0][2]
    return compared("one key", d_output.double().sum(2, keepdim=True).to(d.dtype), d_v)


@LAWS.of("row_sum_ratio", "attention_softmax")
def equal_values(d: Draw, attention: Any) -> LawRecord:
    """Values all alike: no weight matters, so d_q and d_k are 0, but for the rounding of the output that is taken off.

    ``d_output . (v - out)`` has at most two roundings of the storage dtype and 2 C of float32; p sums to 1.
    """
    q, k, v = narrow(d, 7)
    v = v[:, :1].expand_as(v).contiguous()
    d_output = d.normal(*q.shape)
    d_q, d_k, _ = gradients(attention, (q, k, v, in_order(q), in_order(k)), d_output)[0]
    size = float((d_output.double().abs().sum(-1) * v.double().abs().amax()).max())
    noise = size * (2 * unit_roundoff(d.dtype) + 2 * C * unit_roundoff(torch.float32))
    allowed = SCALE * noise * float(torch.maximum(k.double().abs().max(), 7 * 2 * q.double().abs().max()))
    worst = float(torch.maximum(d_q.double().abs().max(), d_k.double().abs().max()))
    return LawRecord("equal values", d_q.numel() + d_k.numel(), int(not worst <= allowed), worst, allowed)

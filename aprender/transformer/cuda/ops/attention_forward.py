"""Attention's forward kernel: one program computes a tile of queries of one head, over key tiles in ascending order."""

from __future__ import annotations

from aprender.transformer.cuda.ops.attention_mask import keys_seen, load_places, visible
from aprender.transformer.cuda.ops.exponential import exp
from aprender.transformer.cuda.ops.runtime import tl, triton


@triton.jit
def attend(  # type: ignore[no-untyped-def]
    total,
    peak,
    mass,
    q_tile,
    q_position,
    q_document,
    k,
    v,
    k_stride,
    v_stride,
    k_positions,
    k_documents,
    begin,
    end,
    S,
    scale,
    window,
    C: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
    MASKED: tl.constexpr,
    KEYS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Add the keys from ``begin`` to ``end`` to the online softmax: weighted values, greatest score, sum of weights."""
    EXACT: tl.constexpr = q_tile.dtype == tl.float32
    channel = tl.arange(0, CHANNELS)
    for start in range(begin, end, KEYS):
        key = start + tl.arange(0, KEYS)
        k_position, k_document, alive = load_places(k_positions, k_documents, key, S, HAS_DOCUMENTS)
        inside = alive[:, None] & (channel < C)[None, :]
        k_tile = tl.load(k + key[:, None].to(tl.int64) * k_stride + channel[None, :], mask=inside, other=0.0)
        v_tile = tl.load(v + key[:, None].to(tl.int64) * v_stride + channel[None, :], mask=inside, other=0.0)
        scores = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee") * scale
        if MASKED:
            seen = visible(q_position, k_position, q_document, k_document, window, HAS_WINDOW, HAS_DOCUMENTS)
            seen = seen & alive[None, :]
            scores = tl.where(seen, scores, float("-inf"))
            # A weight of 0 does not hide a NaN: 0 * NaN is NaN. What is not finite is taken out of the product here,
            # and put back for those queries alone that see it.
            wild = v_tile.to(tl.float32) - v_tile.to(tl.float32) != 0.0
            v_tile = tl.where(wild, 0.0, v_tile)
            wild_seen = tl.dot(seen.to(v_tile.dtype), wild.to(v_tile.dtype), input_precision="ieee")
            total = tl.where(wild_seen > 0.0, float("nan"), total)
        new_peak = tl.maximum(peak, tl.max(scores, axis=1))
        base = tl.where(new_peak == float("-inf"), 0.0, new_peak)  # a query that has seen no key yet
        weights = exp(scores - base[:, None], EXACT)
        rescale = exp(peak - base, EXACT)
        mass = mass * rescale + tl.sum(weights, axis=1)
        total = tl.dot(weights.to(v_tile.dtype), v_tile, total * rescale[:, None], input_precision="ieee")
        peak = new_peak
    return total, peak, mass


@triton.jit
def attention_forward(  # type: ignore[no-untyped-def]
    q,
    k,
    v,
    out,
    lse,
    q_positions,
    k_positions,
    q_documents,
    k_documents,
    T,
    S,
    scale,
    window,
    q_stride_b,
    q_stride_t,
    q_stride_h,
    k_stride_b,
    k_stride_s,
    k_stride_g,
    v_stride_b,
    v_stride_s,
    v_stride_g,
    H: tl.constexpr,
    GROUP: tl.constexpr,
    C: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    CHANNELS: tl.constexpr,
    SCAN: tl.constexpr,
):
    query = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    q_positions, k_positions = q_positions + batch * T, k_positions + batch * S
    q_documents, k_documents = q_documents + batch * T, k_documents + batch * S
    k = k + batch * k_stride_b + (head // GROUP).to(tl.int64) * k_stride_g
    v = v + batch * v_stride_b + (head // GROUP).to(tl.int64) * v_stride_g

    q_position, q_document, alive = load_places(q_positions, q_documents, query, T, HAS_DOCUMENTS)
    all_alive = tl.max((alive == 0).to(tl.int32) & (query < T).to(tl.int32), axis=0) == 0
    begin, full_begin, full_end, end = keys_seen(
        *(q_position, q_document, alive, all_alive, k_positions, k_documents, S, window),
        *(HAS_WINDOW, HAS_DOCUMENTS, SCAN, KEYS),
    )

    channel = tl.arange(0, CHANNELS)
    inside = alive[:, None] & (channel < C)[None, :]
    rows = batch * q_stride_b + query[:, None].to(tl.int64) * q_stride_t + head.to(tl.int64) * q_stride_h
    q_tile = tl.load(q + rows + channel[None, :], mask=inside, other=0.0)
    total = tl.zeros([QUERIES, CHANNELS], tl.float32)
    peak = tl.full([QUERIES], float("-inf"), tl.float32)
    mass = tl.zeros([QUERIES], tl.float32)
    total, peak, mass = attend(
        *(total, peak, mass, q_tile, q_position, q_document, k, v, k_stride_s, v_stride_s, k_positions, k_documents),
        *(begin, full_begin, S, scale, window, C, HAS_WINDOW, HAS_DOCUMENTS, True, KEYS, CHANNELS),
    )
    total, peak, mass = attend(
        *(total, peak, mass, q_tile, q_position, q_document, k, v, k_stride_s, v_stride_s, k_positions, k_documents),
        *(full_begin, full_end, S, scale, window, C, HAS_WINDOW, HAS_DOCUMENTS, False, KEYS, CHANNELS),
    )
    total, peak, mass = attend(
        *(total, peak, mass, q_tile, q_position, q_document, k, v, k_stride_s, v_stride_s, k_positions, k_documents),
        *(full_end, end, S, scale, window, C, HAS_WINDOW, HAS_DOCUMENTS, True, KEYS, CHANNELS),
    )
    # A query that sees nothing has mass 0: its output is 0, and e^(score - inf) makes its weights 0 in the backward.
    blind = mass == 0.0
    y = tl.div_rn(total, tl.where(blind, 1.0, mass)[:, None])
    place = ((batch * T + query[:, None]) * H + head) * C + channel[None, :]
    tl.store(out + place, y.to(out.dtype.element_ty), mask=(query < T)[:, None] & (channel < C)[None, :])
    log_mass = tl.where(blind, float("inf"), peak + tl.log(tl.where(blind, 1.0, mass)))
    tl.store(lse + (batch * H + head) * T + query, log_mass, mask=query < T)

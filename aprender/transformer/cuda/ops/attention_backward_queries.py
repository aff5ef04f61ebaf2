"""Attention's backward kernel for queries: one program computes d_q of a tile, over key tiles in ascending order."""

from __future__ import annotations

from aprender.transformer.cuda.ops.attention_backward import load_heads, load_statistics, score_gradients
from aprender.transformer.cuda.ops.attention_mask import keys_seen, load_places, visible
from aprender.transformer.cuda.ops.runtime import tl, triton


@triton.jit
def add_keys(  # type: ignore[no-untyped-def]
    gradient,
    q_tile,
    d_tile,
    lse,
    delta,
    q_position,
    q_document,
    counted,
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
    """Add to d_q what the keys from ``begin`` to ``end`` give it."""
    for start in range(begin, end, KEYS):
        key = start + tl.arange(0, KEYS)
        k_position, k_document, alive = load_places(k_positions, k_documents, key, S, HAS_DOCUMENTS)
        k_tile = load_heads(k, key, k_stride, alive, C, CHANNELS)
        v_tile = load_heads(v, key, v_stride, alive, C, CHANNELS)
        _weights, d_scores = score_gradients(q_tile, k_tile, v_tile, d_tile, lse, delta, scale)
        if MASKED:
            seen = visible(q_position, k_position, q_document, k_document, window, HAS_WINDOW, HAS_DOCUMENTS)
            d_scores = tl.where(seen & counted[:, None] & alive[None, :], d_scores, 0.0)
            # 0 * NaN is NaN. A query that sees what is not finite here has NaN among its d_scores already.
            k_tile = tl.where(k_tile.to(tl.float32) - k_tile.to(tl.float32) == 0.0, k_tile, 0.0)
        gradient = tl.dot(d_scores.to(k_tile.dtype), k_tile, gradient, input_precision="ieee")
    return gradient


@triton.jit
def attention_backward_queries(  # type: ignore[no-untyped-def]
    q,
    k,
    v,
    d_out,
    lse,
    delta,
    d_q,
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
    d_out_stride_b,
    d_out_stride_t,
    d_out_stride_h,
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
    """d_q of a tile of queries of one head, over the key tiles that it sees."""
    query = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    q_positions, k_positions = q_positions + batch * T, k_positions + batch * S
    q_documents, k_documents = q_documents + batch * T, k_documents + batch * S
    k = k + batch * k_stride_b + head // GROUP * k_stride_g
    v = v + batch * v_stride_b + head // GROUP * v_stride_g
    q = q + batch * q_stride_b + head * q_stride_h
    d_out = d_out + batch * d_out_stride_b + head * d_out_stride_h

    q_position, q_document, alive = load_places(q_positions, q_documents, query, T, HAS_DOCUMENTS)
    all_alive = tl.max((alive == 0).to(tl.int32) & (query < T).to(tl.int32), axis=0) == 0
    begin, full_begin, full_end, end = keys_seen(
        *(q_position, q_document, alive, all_alive, k_positions, k_documents, S, window),
        *(HAS_WINDOW, HAS_DOCUMENTS, SCAN, KEYS),
    )
    lse_tile, delta_tile, counted = load_statistics(lse, delta, (batch * H + head) * T + query, query < T)
    counted = counted & alive
    q_tile = load_heads(q, query, q_stride_t, alive, C, CHANNELS)
    d_tile = load_heads(d_out, query, d_out_stride_t, alive, C, CHANNELS)
    gradient = tl.zeros([QUERIES, CHANNELS], tl.float32)
    gradient = add_keys(
        *(gradient, q_tile, d_tile, lse_tile, delta_tile, q_position, q_document, counted),
        *(k, v, k_stride_s, v_stride_s, k_positions, k_documents, begin, full_begin, S, scale, window),
        *(C, HAS_WINDOW, HAS_DOCUMENTS, True, KEYS, CHANNELS),
    )
    gradient = add_keys(
        *(gradient, q_tile, d_tile, lse_tile, delta_tile, q_position, q_document, counted),
        *(k, v, k_stride_s, v_stride_s, k_positions, k_documents, full_begin, full_end, S, scale, window),
        *(C, HAS_WINDOW, HAS_DOCUMENTS, False, KEYS, CHANNELS),
    )
    gradient = add_keys(
        *(gradient, q_tile, d_tile, lse_tile, delta_tile, q_position, q_document, counted),
        *(k, v, k_stride_s, v_stride_s, k_positions, k_documents, full_end, end, S, scale, window),
        *(C, HAS_WINDOW, HAS_DOCUMENTS, True, KEYS, CHANNELS),
    )
    gradient = tl.where(counted[:, None], gradient, 0.0)
    channel = tl.arange(0, CHANNELS)
    place = ((batch * T + query[:, None]) * H + head) * C + channel[None, :]
    inside = (query < T)[:, None] & (channel < C)[None, :]
    tl.store(d_q + place, (gradient * scale).to(d_q.dtype.element_ty), mask=inside)

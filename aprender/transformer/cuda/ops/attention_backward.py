"""Attention's backward kernels: three passes, each element written by one program, in one order, without atomics.

Where a weight is 0 because nothing is seen, 0 * NaN must not be NaN: the other operand of such a product is finite,
and what was seen of it comes back as NaN by the weights.
"""

from __future__ import annotations

from aprender.transformer.cuda.ops.attention_mask import keys_seen, load_places, queries_seeing, visible
from aprender.transformer.cuda.ops.exponential import exp
from aprender.transformer.cuda.ops.runtime import tl, triton


@triton.jit
def load_heads(  # type: ignore[no-untyped-def]
    x, place, stride, alive, C: tl.constexpr, CHANNELS: tl.constexpr
):
    """Load a tile of one head: rows that are not alive, and channels beyond C, are 0."""
    channel = tl.arange(0, CHANNELS)
    inside = alive[:, None] & (channel < C)[None, :]
    return tl.load(x + place[:, None].to(tl.int64) * stride + channel[None, :], mask=inside, other=0.0)


@triton.jit
def attention_backward_delta(  # type: ignore[no-untyped-def]
    d_out,
    out,
    delta,
    T,
    d_out_stride_b,
    d_out_stride_t,
    d_out_stride_h,
    H: tl.constexpr,
    C: tl.constexpr,
    QUERIES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Delta = sum over channels of d_out * out: what the row sum of the softmax's gradient comes to.

    Infinity marks a query whose d_out is 0, which gives nothing on; what comes out not finite is NaN.
    """
    query = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    d_out = d_out + batch * d_out_stride_b + head * d_out_stride_h
    d_tile = load_heads(d_out, query, d_out_stride_t, query < T, C, CHANNELS).to(tl.float32)
    out_tile = load_heads(out + (batch * T * H + head) * C, query, H * C, query < T, C, CHANNELS).to(tl.float32)
    total = tl.sum(d_tile * out_tile, axis=1)
    total = tl.where(total - total == 0.0, total, float("nan"))
    idle = tl.sum((d_tile != 0.0).to(tl.int32), axis=1) == 0
    tl.store(delta + (batch * H + head) * T + query, tl.where(idle, float("inf"), total), mask=query < T)


@triton.jit
def load_statistics(lse, delta, place, inside):  # type: ignore[no-untyped-def]
    """Load lse and delta of a tile of queries, and which of them count: those that see a key and have a d_out.

    Where delta is NaN, lse is NaN too, and so is every weight of that query.
    """
    lse_tile = tl.load(lse + place, mask=inside, other=float("inf"))
    delta_tile = tl.load(delta + place, mask=inside, other=float("inf"))
    counted = (lse_tile != float("inf")) & (delta_tile != float("inf"))
    lse_tile = tl.where(delta_tile == delta_tile, lse_tile, delta_tile)
    return tl.where(counted, lse_tile, float("inf")), tl.where(counted, delta_tile, 0.0), counted


@triton.jit
def score_gradients(  # type: ignore[no-untyped-def]
    q_tile, k_tile, v_tile, d_tile, lse, delta, seen, scale
):
    """Recompute a tile of weights, and the gradients of its scaled scores; both are 0 where nothing is seen."""
    EXACT: tl.constexpr = q_tile.dtype == tl.float32
    scores = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee") * scale
    weights = tl.where(seen, exp(scores - lse[:, None], EXACT), 0.0)
    d_weights = tl.dot(d_tile, tl.trans(v_tile), input_precision="ieee")
    return weights, tl.where(seen, weights * (d_weights - delta[:, None]), 0.0)


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
    begin, _full_begin, _full_end, end = keys_seen(
        *(q_position, q_document, alive, False, k_positions, k_documents, S, window),
        *(HAS_WINDOW, HAS_DOCUMENTS, SCAN, KEYS),
    )
    lse_tile, delta_tile, counted = load_statistics(lse, delta, (batch * H + head) * T + query, query < T)
    q_tile = load_heads(q, query, q_stride_t, alive, C, CHANNELS)
    d_tile = load_heads(d_out, query, d_out_stride_t, alive, C, CHANNELS)
    gradient = tl.zeros([QUERIES, CHANNELS], tl.float32)
    for start in range(begin, end, KEYS):
        key = start + tl.arange(0, KEYS)
        k_position, k_document, k_alive = load_places(k_positions, k_documents, key, S, HAS_DOCUMENTS)
        k_tile = load_heads(k, key, k_stride_s, k_alive, C, CHANNELS)
        v_tile = load_heads(v, key, v_stride_s, k_alive, C, CHANNELS)
        seen = visible(q_position, k_position, q_document, k_document, window, HAS_WINDOW, HAS_DOCUMENTS)
        seen = seen & (alive & counted)[:, None] & k_alive[None, :]
        _weights, d_scores = score_gradients(q_tile, k_tile, v_tile, d_tile, lse_tile, delta_tile, seen, scale)
        # A query that sees what is not finite here has NaN among its d_scores already.
        k_tile = tl.where(k_tile.to(tl.float32) - k_tile.to(tl.float32) == 0.0, k_tile, 0.0)
        gradient = tl.dot(d_scores.to(k_tile.dtype), k_tile, gradient, input_precision="ieee")
    channel = tl.arange(0, CHANNELS)
    place = ((batch * T + query[:, None]) * H + head) * C + channel[None, :]
    inside = (query < T)[:, None] & (channel < C)[None, :]
    tl.store(d_q + place, (gradient * scale).to(d_q.dtype.element_ty), mask=inside)


@triton.jit
def attention_backward_keys(  # type: ignore[no-untyped-def]
    q,
    k,
    v,
    d_out,
    lse,
    delta,
    d_k,
    d_v,
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
    """d_k and d_v of a tile of keys of one key/value head, over its query heads and the query tiles that see it."""
    key = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    group = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    q_positions, k_positions = q_positions + batch * T, k_positions + batch * S
    q_documents, k_documents = q_documents + batch * T, k_documents + batch * S
    k = k + batch * k_stride_b + group * k_stride_g
    v = v + batch * v_stride_b + group * v_stride_g

    k_position, k_document, k_alive = load_places(k_positions, k_documents, key, S, HAS_DOCUMENTS)
    begin, end = queries_seeing(
        *(k_position, k_document, k_alive, q_positions, q_documents, T, window),
        *(HAS_WINDOW, HAS_DOCUMENTS, SCAN, QUERIES),
    )
    k_tile = load_heads(k, key, k_stride_s, k_alive, C, CHANNELS)
    v_tile = load_heads(v, key, v_stride_s, k_alive, C, CHANNELS)
    k_gradient = tl.zeros([KEYS, CHANNELS], tl.float32)
    v_gradient = tl.zeros([KEYS, CHANNELS], tl.float32)
    for member in range(GROUP):
        head = group * GROUP + member
        q_head = q + batch * q_stride_b + head * q_stride_h
        d_out_head = d_out + batch * d_out_stride_b + head * d_out_stride_h
        for start in range(begin, end, QUERIES):
            query = start + tl.arange(0, QUERIES)
            q_position, q_document, alive = load_places(q_positions, q_documents, query, T, HAS_DOCUMENTS)
            lse_tile, delta_tile, counted = load_statistics(lse, delta, (batch * H + head) * T + query, query < T)
            # Queries that hold NaN are read as 0: by their lse all their weights are NaN.
            finite = alive & counted & (lse_tile == lse_tile)
            q_tile = load_heads(q_head, query, q_stride_t, finite, C, CHANNELS)
            d_tile = load_heads(d_out_head, query, d_out_stride_t, finite, C, CHANNELS)
            seen = visible(q_position, k_position, q_document, k_document, window, HAS_WINDOW, HAS_DOCUMENTS)
            seen = seen & (alive & counted)[:, None] & k_alive[None, :]
            weights, d_scores = score_gradients(q_tile, k_tile, v_tile, d_tile, lse_tile, delta_tile, seen, scale)
            v_gradient = tl.dot(tl.trans(weights.to(d_tile.dtype)), d_tile, v_gradient, input_precision="ieee")
            k_gradient = tl.dot(tl.trans(d_scores.to(q_tile.dtype)), q_tile, k_gradient, input_precision="ieee")
    channel = tl.arange(0, CHANNELS)
    place = ((batch * S + key[:, None]) * (H // GROUP) + group) * C + channel[None, :]
    inside = (key < S)[:, None] & (channel < C)[None, :]
    tl.store(d_k + place, (k_gradient * scale).to(d_k.dtype.element_ty), mask=inside)
    tl.store(d_v + place, v_gradient.to(d_v.dtype.element_ty), mask=inside)

"""Who sees whom: the one definition of visibility that attention's forward and backward kernels share.

Query i sees key j when all of these hold; nothing else is looked at, neither row numbers nor lengths, so that a cached
decode with Tq != Tk is aligned by its positions::

    position_j <= position_i                       causal
    position_i - position_j < window               sliding window, where there is one (it counts i itself)
    document_i == document_j and document_i >= 0   packed documents; a negative document is padding
"""

from __future__ import annotations

from aprender.transformer.cuda.ops.runtime import tl, triton


@triton.jit
def visible(  # type: ignore[no-untyped-def]
    query_position,
    key_position,
    query_document,
    key_document,
    window,
    HAS_WINDOW: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
):
    """Say for each pair (query, key) of a tile whether the query sees the key."""
    query_position, key_position = query_position[:, None], key_position[None, :]
    seen = key_position <= query_position
    if HAS_WINDOW:
        seen = seen & (query_position - key_position < window)
    if HAS_DOCUMENTS:
        query_document, key_document = query_document[:, None], key_document[None, :]
        seen = seen & (query_document == key_document) & (query_document >= 0)
    return seen


@triton.jit
def load_places(  # type: ignore[no-untyped-def]
    positions, documents, place, length, HAS_DOCUMENTS: tl.constexpr
):
    """Load positions and documents of a tile, and which of its places are tokens at all: in bounds and no padding."""
    alive = place < length
    position = tl.load(positions + place, mask=alive, other=0)
    document = position * 0
    if HAS_DOCUMENTS:
        document = tl.load(documents + place, mask=alive, other=-1)
        alive = alive & (document >= 0)
    return position, document, alive


@triton.jit
def least(x, alive):  # type: ignore[no-untyped-def]
    """The smallest x of those alive, or 2^30, which no position and no document reaches."""
    return tl.min(tl.where(alive, x, 1073741824), axis=0)


@triton.jit
def greatest(x, alive):  # type: ignore[no-untyped-def]
    """The greatest x of those alive, or -2^30."""
    return tl.max(tl.where(alive, x, -1073741824), axis=0)


@triton.jit
def keys_seen(  # type: ignore[no-untyped-def]
    position,
    document,
    alive,
    all_alive,
    key_positions,
    key_documents,
    S,
    window,
    HAS_WINDOW: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
    SCAN: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Find which key tiles a tile of queries needs.

    From ``begin`` to ``end`` some query may see some key, and from ``full_begin`` to ``full_end`` every query sees
    every key, so that no mask is needed there. Bounds are numbers of keys; all but ``end`` are multiples of KEYS, or
    ``end``.
    """
    first, last = least(position, alive), greatest(position, alive)
    first_document, last_document = least(document, alive), greatest(document, alive)
    alike = all_alive & (first_document == last_document)
    begin, end = tl.full([], 1073741824, tl.int32), tl.full([], 0, tl.int32)
    full_begin, full_end = tl.full([], 1073741824, tl.int32), tl.full([], 1073741824, tl.int32)
    for start in range(0, S, SCAN):
        key = start + tl.arange(0, SCAN)
        key_position, key_document, seen = load_places(key_positions, key_documents, key, S, HAS_DOCUMENTS)
        seen = seen & (key_position <= last)
        if HAS_DOCUMENTS:
            seen = seen & (key_document >= first_document) & (key_document <= last_document)
        full = seen & (key_position <= first) & alike
        if HAS_WINDOW:
            seen = seen & (first - key_position < window)
            full = full & (last - key_position < window)
        begin = tl.minimum(begin, least(key, seen))
        end = tl.maximum(end, greatest(key + 1, seen))
        full_begin = tl.minimum(full_begin, least(key, full))
        full_end = tl.minimum(full_end, least(key, (full == 0) & (key > full_begin)))
    begin = tl.minimum(begin // KEYS * KEYS, end)
    full_begin = tl.minimum((tl.minimum(full_begin, S) + KEYS - 1) // KEYS * KEYS, end)
    full_end = tl.maximum(tl.minimum(tl.minimum(full_end, S) // KEYS * KEYS, end), full_begin)
    return begin, full_begin, full_end, end


@triton.jit
def queries_seeing(  # type: ignore[no-untyped-def]
    position,
    document,
    alive,
    query_positions,
    query_documents,
    T,
    window,
    HAS_WINDOW: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
    SCAN: tl.constexpr,
    QUERIES: tl.constexpr,
):
    """Find which query tiles a tile of keys needs: from ``begin``, a multiple of QUERIES, to ``end``."""
    first, last = least(position, alive), greatest(position, alive)
    first_document, last_document = least(document, alive), greatest(document, alive)
    begin, end = tl.full([], 1073741824, tl.int32), tl.full([], 0, tl.int32)
    for start in range(0, T, SCAN):
        query = start + tl.arange(0, SCAN)
        query_position, query_document, sees = load_places(query_positions, query_documents, query, T, HAS_DOCUMENTS)
        sees = sees & (query_position >= first)
        if HAS_WINDOW:
            sees = sees & (query_position - last < window)
        if HAS_DOCUMENTS:
            sees = sees & (query_document >= first_document) & (query_document <= last_document)
        begin = tl.minimum(begin, least(query, sees))
        end = tl.maximum(end, greatest(query + 1, sees))
    return tl.minimum(begin // QUERIES * QUERIES, end), end

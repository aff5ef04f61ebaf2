"""Laws of attention's forward pass: who sees whom, which heads read which, and what a softmax is.

NaN is the tracer: put into one key and its value, it must show at the queries that see that key, of that group's
heads, and nowhere else; all other outputs keep their bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aprender.parity.attention_laws import head_isolation, one_hot_values, running_mean
from aprender.parity.laws import LawRecord, compared
from falsifiers.cuda_laws_system import WINDOW, C, G, H, Laws, tile_of
from falsifiers.cuda_operator_cases import Draw

LAWS = Laws()
SCALE = C**-0.5


def heads(d: Draw, T: int, B: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of T positions."""
    return d.normal(B, T, H, C), d.normal(B, T, G, C), d.normal(B, T, G, C)


def narrow(d: Draw, T: int, B: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """The same with one key/value head and its two query heads."""
    return d.normal(B, T, 2, C), d.normal(B, T, 1, C), d.normal(B, T, 1, C)


def in_order(x_BT: Tensor, start: int = 0) -> Tensor:
    """Positions from ``start`` on, for the rows of a tensor [B, T, ...]."""
    return torch.arange(start, start + x_BT.shape[1], device=x_BT.device).expand(x_BT.shape[:2])


def whole(attention: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One document, positions in order."""
    y: Tensor = attention(q, k, v, in_order(q), in_order(k))
    return y


def merged(records: Sequence[LawRecord]) -> LawRecord:
    """Several comparisons as one law; vacuous where one of them is."""
    return LawRecord(
        records[0].law,
        sum(record.compared for record in records),
        sum(record.differing for record in records),
        max(record.largest for record in records),
        records[0].allowed,
        "; ".join(record.vacuous for record in records if record.vacuous),
    )


def same_up_to_nan(law: str, expected: Tensor, found: Tensor) -> LawRecord:
    """Equal bits, where one NaN is as good as another."""
    right, seen = (torch.where(x.isnan(), torch.nan, x) for x in (expected, found))
    return compared(law, right, seen)


def packed_places(d: Draw, T: int) -> tuple[Tensor, Tensor]:
    """Positions and documents [1, T]: two documents, the first of 6 tokens, and 3 places of padding."""
    positions = [*range(6), *range(T - 9), 0, 0, 0]
    documents = [0] * 6 + [1] * (T - 9) + [-1] * 3
    return torch.tensor([positions], device=d.device), torch.tensor([documents], device=d.device)


def sees(place: tuple[Tensor, Tensor], j: int, window: int | None) -> Tensor:
    """Which queries [T] see key j, written down once more from docs."""
    position, document = (x[0] for x in place)
    distance = position - position[j]
    seen = (document == document[j]) & (document >= 0) & (distance >= 0)
    return seen if window is None else seen & (distance < window)


def traced(attention: Any, qkv: Sequence[Tensor], place: Any, keys: Sequence[int], window: int | None) -> LawRecord:
    """NaN in each of some keys of the last key/value head, and in its value, one key at a time."""
    q, k, v = qkv
    packed = int(place[1].min()) < 0 or int(place[1].max()) > 0
    places = (place[0], place[0], *(place[1:] * 2 if packed else ()))
    clean, records = attention(q, k, v, *places), []
    for j in keys:
        expected, k_nan, v_nan = clean.clone(), k.clone(), v.clone()
        expected[0, sees(place, j, window), -(q.shape[2] // k.shape[2]) :] = torch.nan
        k_nan[0, j, -1] = v_nan[0, j, -1] = torch.nan
        records.append(same_up_to_nan("traced", expected, attention(q, k_nan, v_nan, *places)))
    return merged(records)


@LAWS.of("causality_differing", "attention", interpreted="float32")
def causality(d: Draw, attention: Any) -> LawRecord:
    """Keys in the first tile, at its edge, and the last, in one document."""
    T = tile_of(d) + 1
    qkv = narrow(d, T)
    place = in_order(qkv[0]), torch.zeros(1, T, dtype=torch.int64, device=d.device)
    return traced(attention, qkv, place, (1, T - 1), None)


@LAWS.of("window_differing", "attention_window", interpreted="float32")
def window(d: Draw, attention: Any) -> LawRecord:
    """The first key of the second document, and one in the middle of it."""
    T = tile_of(d) + 1
    return traced(attention, narrow(d, T), packed_places(d, T), (6, 8), WINDOW)


@LAWS.of("window_differing", "attention_wide", interpreted="float32")
def window_of_tiles(d: Draw, attention: Any) -> LawRecord:
    """Of all pairs in three tiles only the one farthest apart is outside the window."""
    T = 3 * tile_of(d)
    qkv = narrow(d, T)
    place = in_order(qkv[0]), torch.zeros(1, T, dtype=torch.int64, device=d.device)
    return traced(attention, qkv, place, (0, 1), T - 1)


@LAWS.of("padding_differing", "attention_wide", interpreted="float32")
def padding_between_tokens(d: Draw, attention: Any) -> LawRecord:
    """One place of padding in two tiles of a document: among the keys of the first, or the queries of the second."""
    tile, records = tile_of(d), []
    qkv = narrow(d, 2 * tile)
    position = in_order(qkv[0])
    for place in (1, tile + 5):
        document = torch.zeros_like(position)
        document[0, place] = -1
        y = attention(*qkv, position, position, document, document)[:, place]
        records += [
            traced(attention, qkv, (position, document), (0, place), None),
            compared("padding", torch.zeros_like(y), y),
        ]
    return merged(records)


@LAWS.of("documents_differing", "attention_packed", interpreted="float32")
def documents(d: Draw, attention: Any) -> LawRecord:
    """The last key of the first document, of which the second must know nothing."""
    T = tile_of(d) + 1
    return traced(attention, narrow(d, T), packed_places(d, T), (5,), WINDOW)


@LAWS.of("padding_differing", "attention_padded", interpreted="float32")
def padding_keys(d: Draw, attention: Any) -> LawRecord:
    """A key that is padding is seen by none, and a query that is padding gives 0."""
    T = tile_of(d) + 1
    qkv, place = narrow(d, T), packed_places(d, T)
    y = attention(*qkv, place[0], place[0], place[1], place[1])[:, -3:]
    return merged([traced(attention, qkv, place, (T - 2,), WINDOW), compared("padding", torch.zeros_like(y), y)])


@LAWS.of("padding_differing", "attention_padded", interpreted="float32")
def padded_is_unpadded(d: Draw, attention: Any) -> LawRecord:
    """A document by itself, with padding on its right, and with a tile of padding on its left: the same bits."""
    tile, T = tile_of(d), 13
    qkv, unpadded = narrow(d, T), dict[str, Tensor]()
    records = []
    for left, right in ((0, 0), (0, 6), (tile, 0)):
        q, k, v = (torch.nn.functional.pad(x, (0, 0, 0, 0, left, right), value=torch.nan) for x in qkv)
        token = torch.nn.functional.pad(torch.ones(1, T, dtype=torch.bool, device=d.device), (left, right))
        position, document = torch.where(token, in_order(q) - left, 0), token.long() - 1
        found = attention(q, k, v, position, position, document, document)[:, left : left + T]
        records.append(compared("padded = unpadded", unpadded.setdefault("y", found), found))
    return merged(records)


@LAWS.of("documents_differing", "attention_wide", interpreted="float32")
def document_between_tokens(d: Draw, attention: Any) -> LawRecord:
    """The second key of the first tile is a document of its own; without it the tile would need no mask."""
    qkv = narrow(d, 2 * tile_of(d))
    position = in_order(qkv[0])
    return traced(attention, qkv, (position, (position == 1).long()), (1, 2), None)


@LAWS.of("heads_differing", "attention_grouped", interpreted="float32")
def grouped_heads(d: Draw, attention: Any) -> LawRecord:
    """V of one key/value head changes only the query heads of its group."""
    q, k, v = heads(d, tile_of(d) + 1)
    return head_isolation(lambda q, k, v: whole(attention, q, k, v), q, k, v)


@LAWS.of("single_key_differing", "attention_self")
def one_key(d: Draw, attention: Any) -> LawRecord:
    """A query that sees itself alone gets its own value: weight 1, divided by 1."""
    q, k, v = heads(d, tile_of(d) + 1)
    expected = v.repeat_interleave(H // G, 2)
    return compared("one key", expected, whole(attention, q, k, v))


@LAWS.of("alignment_differing", "attention", interpreted="float32")
def fewer_queries_than_keys(d: Draw, attention: Any) -> LawRecord:
    """The last 5 queries, asked alone over all keys, get what they get among all queries."""
    q, k, v = narrow(d, tile_of(d) + 3)
    T = q.shape[1]
    alone = attention(q[:, -5:], k, v, in_order(q[:, -5:], T - 5), in_order(k))
    return compared("Tq != Tk", whole(attention, q, k, v)[:, -5:], alone)


@LAWS.of("mean_ratio", "attention_softmax")
def mean(d: Draw, attention: Any) -> LawRecord:
    """K = 0: a running mean."""
    q, _, v = narrow(d, tile_of(d) + 3)
    return running_mean(lambda q, k, v: whole(attention, q, k, v), q, v)


@LAWS.of("softmax_ratio", "attention_softmax")
def softmax(d: Draw, attention: Any) -> LawRecord:
    """One-hot values show the weights."""
    q, k, _ = narrow(d, tile_of(d) + 1)
    return one_hot_values(lambda q, k, v: whole(attention, q, k, v), q, k, SCALE)


@LAWS.of("rows_differing", "attention_packed", interpreted="float32")
def rows(d: Draw, attention: Any) -> LawRecord:
    """Two rows of different documents: exchanged, one of them NaN, and each alone."""
    T = 7
    qkv = narrow(d, T, 2)
    position = in_order(qkv[0])
    document = torch.tensor([[0] * 3 + [1] * 4, [0] * 5 + [-1] * 2], device=d.device)

    def run(qkv: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
        at, document_of = position[list(rows)], document[list(rows)]
        y: Tensor = attention(*(x[list(rows)] for x in qkv), at, at, document_of, document_of)
        return y

    together = run(qkv, (0, 1))
    spoiled = [x.clone() for x in qkv]
    for x in spoiled:
        x[0] = math.nan
    return merged(
        [
            compared("rows", together[[1, 0]], run(qkv, (1, 0))),
            compared("rows", together[1:], run(spoiled, (0, 1))[1:]),
            compared("rows", together[:1], run(qkv, (0,))),
            compared("rows", together[1:], run(qkv, (1,))),
        ]
    )

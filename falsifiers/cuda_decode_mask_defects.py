"""Planted defects of who sees whom in a cached decode: the mask, windows, tiles and documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from falsifiers.cuda_model_planting import Planting, attending, stage_wrong
from falsifiers.cuda_model_system import ModelsUnderContract

DEFECTS = Defects()


@DEFECTS.plant("mask_aligned_to_the_first_key")
def mask_aligned_to_the_first_key(system: ModelsUnderContract) -> Planting:
    """Row i sees slots 0 to i where there are fewer queries than keys."""

    def top_left(block: Any, past: Any, q: Any, k: Any, v: Any, at: Tensor, k_at: Tensor, *documents: Any) -> Any:
        rows, slots = (torch.arange(x.shape[1], device=x.device).expand_as(x) for x in (at, k_at))
        return (q, k, v, rows, slots, *documents)

    return attending(system, top_left)


def _queries_at(system: ModelsUnderContract, change: Callable[[Tensor], Tensor]) -> Planting:
    return attending(system, lambda block, past, q, k, v, at, *rest: (q, k, v, change(at).expand_as(at), *rest))


@DEFECTS.plant("chunk_sees_its_future")
def chunk_sees_its_future(system: ModelsUnderContract) -> Planting:
    """New tokens of one pass see each other in both directions."""
    return _queries_at(system, lambda at: at.amax(1, keepdim=True))


@DEFECTS.plant("chunk_does_not_see_itself")
def chunk_does_not_see_itself(system: ModelsUnderContract) -> Planting:
    """New tokens of one pass see its first one alone, beside the past."""
    return _queries_at(system, lambda at: at.amin(1, keepdim=True))


@DEFECTS.plant("first_layer_misses_the_new_tokens")
def first_layer_misses_the_new_tokens(system: ModelsUnderContract) -> Planting:
    """The length is advanced after its attention, by the last layer."""

    def without(block: Any, past: Any, *given: Any) -> Any:
        keys = given[6].clone()
        if block.index == 0:
            keys[past.slots] = -1
        return (*given[:6], keys)

    return attending(system, without)


@DEFECTS.plant("window_ignored_in_decode")
def window_ignored_in_decode(system: ModelsUnderContract) -> Planting:
    """One token at a time sees all of the past."""

    def unlimited(right: Any) -> Any:
        whole = replace(right, window=None)
        return lambda q, k, *rest: (whole if q.shape[1] < k.shape[1] else right)(q, k, *rest)

    return stage_wrong(system, "untied", "layers.1.attention", unlimited)


@DEFECTS.plant("window_one_too_wide_in_decode")
def window_one_too_wide_in_decode(system: ModelsUnderContract) -> Planting:
    """The past's window does not count the token itself."""

    def wider(right: Any) -> Any:
        other = replace(right, window=right.window + 1)
        return lambda q, k, *rest: (other if q.shape[1] < k.shape[1] else right)(q, k, *rest)

    return stage_wrong(system, "untied", "layers.1.attention", wider)


@DEFECTS.plant("keys_beyond_a_tile_dropped")
def keys_beyond_a_tile_dropped(system: ModelsUnderContract) -> Planting:
    """The last, partial tile of keys is not read."""

    def whole_tiles(block: Any, past: Any, q: Any, k: Any, v: Any, at: Any, k_at: Any, doc: Any, k_doc: Any) -> Any:
        kept = max(1, k.shape[1] // 16) * 16
        return q, k[:, :kept], v[:, :kept], at, k_at[:, :kept], doc, k_doc[:, :kept]

    return attending(system, whole_tiles)


def _documents(system: ModelsUnderContract, change: Callable[[Tensor], Tensor], cached: bool = False) -> Planting:
    """Attention is told of other documents, of queries and of keys."""

    def changed(block: Any, past: Any, *given: Any) -> Any:
        documents = given[5:]
        return (*given[:5], *(change(d) for d in documents))

    return attending(system, changed, cached)


@DEFECTS.plant("documents_leak")
def documents_leak(system: ModelsUnderContract) -> Planting:
    """Packed documents are one."""
    return _documents(system, lambda documents: documents.clamp(max=0))


@DEFECTS.plant("documents_leak_in_the_cache")
def documents_leak_in_the_cache(system: ModelsUnderContract) -> Planting:
    """Only in passes with a cache."""
    return _documents(system, lambda documents: documents.clamp(max=0), cached=True)


@DEFECTS.plant("padding_is_attended")
def padding_is_attended(system: ModelsUnderContract) -> Planting:
    """It counts as the first document's."""
    return _documents(system, lambda documents: documents.clamp(min=0))


@DEFECTS.plant("documents_end_one_late")
def documents_end_one_late(system: ModelsUnderContract) -> Planting:
    """The first token of a document still belongs to the one before."""
    return _documents(system, lambda documents: torch.cat((documents[:, :1], documents[:, :-1]), 1))


@DEFECTS.plant("rows_share_the_first_rows_documents")
def rows_share_the_first_rows_documents(system: ModelsUnderContract) -> Planting:
    """The stride of the batch is missing."""
    return _documents(system, lambda documents: documents[:1].expand_as(documents))

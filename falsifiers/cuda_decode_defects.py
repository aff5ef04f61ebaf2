"""Planted defects of the CUDA path's cached decoding: slots, positions, lengths, masks, memory that is used again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.cuda import CudaTransformer, model
from aprender.transformer.cuda.batch import Places
from aprender.transformer.cuda.cache import Extension, KVCache
from falsifiers.cuda_model_planting import Planting, attending, rewired, stage_wrong, wrapped
from falsifiers.cuda_model_system import ModelsUnderContract

DEFECTS = Defects()


def _slots(system: ModelsUnderContract, change: Callable[[Tensor, KVCache], Tensor]) -> Planting:
    """New tokens go to ``change(slots, cache)``."""

    def make(right: Any) -> Any:
        def extend(self: Any, cache: KVCache, new: Any, lengths: Tensor, rows: Any, columns: Any, slots: Any) -> None:
            right(self, cache, new, lengths, rows, columns, change(slots, cache))

        return extend

    return wrapped(system, Extension, "__init__", make)


@DEFECTS.plant("cache_off_by_one")
def cache_off_by_one(system: ModelsUnderContract) -> Planting:
    """The first slot is never written."""
    return _slots(system, lambda slots, cache: (slots + 1) % cache.positions_BS.shape[1])


@DEFECTS.plant("last_slot_overwritten")
def last_slot_overwritten(system: ModelsUnderContract) -> Planting:
    """A new token takes the place of the one before it."""
    return _slots(system, lambda slots, cache: (slots - 1).clamp(min=0))


@DEFECTS.plant("cache_is_a_ring_of_sixteen")
def cache_is_a_ring_of_sixteen(system: ModelsUnderContract) -> Planting:
    """The first tokens are overwritten where a tile is full."""
    return _slots(system, lambda slots, cache: slots % 16)


def _appending(system: ModelsUnderContract, change: Callable[..., Any]) -> Planting:
    """``change(right, extension, layer, k, v)`` is what attention reads."""

    def make(right: Any) -> Any:
        return lambda self, layer, k, v: change(right, self, layer, k, v)

    return wrapped(system, Extension, "append", make)


@DEFECTS.plant("key_heads_exchanged_in_the_cache")
def key_heads_exchanged_in_the_cache(system: ModelsUnderContract) -> Planting:
    """The grouped layout is read the other way round."""

    def flipped(right: Any, extension: Any, layer: int, k: Tensor, v: Tensor) -> Any:
        return tuple(x.flip(2) for x in right(extension, layer, k, v))

    return _appending(system, flipped)


@DEFECTS.plant("rows_exchanged_in_the_cache")
def rows_exchanged_in_the_cache(system: ModelsUnderContract) -> Planting:
    """Each request reads the other's past."""

    def flipped(right: Any, extension: Any, layer: int, k: Tensor, v: Tensor) -> Any:
        return tuple(x.flip(0) for x in right(extension, layer, k, v))

    return _appending(system, flipped)


@DEFECTS.plant("layers_share_one_cache")
def layers_share_one_cache(system: ModelsUnderContract) -> Planting:
    """All write to the first layer's."""
    return _appending(system, lambda right, extension, layer, k, v: right(extension, 0, k, v))


@DEFECTS.plant("keys_and_values_exchanged")
def keys_and_values_exchanged(system: ModelsUnderContract) -> Planting:
    """The cache hands them out in the other order."""
    return _appending(system, lambda right, extension, layer, k, v: right(extension, layer, k, v)[::-1])


@DEFECTS.plant("cache_in_bfloat16")
def cache_in_bfloat16(system: ModelsUnderContract) -> Planting:
    """Half of the bits of a float32 model's past."""

    def rounded(right: Any, extension: Any, layer: int, k: Tensor, v: Tensor) -> Any:
        return right(extension, layer, k.bfloat16().to(k.dtype), v.bfloat16().to(v.dtype))

    return _appending(system, rounded)


@DEFECTS.plant("keys_cached_before_rope")
def keys_cached_before_rope(system: ModelsUnderContract) -> Planting:
    """And read as if they had been rotated."""

    def unrotated(block: Any, name: str, y: Tensor, seen: Any) -> Any:
        return seen["k_norm"] if name == "k_rope" else y

    return rewired(system, output=unrotated, cached=True, models=("untied",))


def _placed(system: ModelsUnderContract, change: Callable[..., Places]) -> Planting:
    """In passes with a cache: ``change(right, tokens, positions, documents, device, past, most)``."""

    def make(right: Any) -> Any:
        def places(tokens: Tensor, positions: Any, documents: Any, device: Any, past: Any, most: int) -> Places:
            if past is None:
                found: Places = right(tokens, positions, documents, device, past, most)
                return found
            return change(right, tokens, positions, documents, device, past, most)

        return places

    return wrapped(system, model, "places", make)


@DEFECTS.plant("positions_restart_in_decode")
def positions_restart_in_decode(system: ModelsUnderContract) -> Planting:
    """Each pass begins at 0."""
    return _placed(
        system,
        lambda right, tokens, positions, documents, device, past, most: right(
            tokens, positions, documents, device, None, most
        ),
    )


@DEFECTS.plant("positions_off_by_one_in_decode")
def positions_off_by_one_in_decode(system: ModelsUnderContract) -> Planting:
    """The new token stands one further than it does."""

    def shifted(right: Any, *given: Any) -> Places:
        at = right(*given)
        return Places(at.positions_BT + 1, at.documents_BT)

    return _placed(system, shifted)


@DEFECTS.plant("positions_of_the_first_row")
def positions_of_the_first_row(system: ModelsUnderContract) -> Planting:
    """All rows are as long as the first."""

    def first(right: Any, *given: Any) -> Places:
        at = right(*given)
        return Places(at.positions_BT[:1].expand_as(at.positions_BT), at.documents_BT)

    return _placed(system, first)


@DEFECTS.plant("left_padding_counts_as_positions")
def left_padding_counts_as_positions(system: ModelsUnderContract) -> Planting:
    """Columns count from the first, whatever is padding."""

    def counted(right: Any, tokens: Tensor, positions: Any, documents: Tensor, *rest: Any) -> Places:
        at, all_tokens = (right(tokens, positions, d, *rest) for d in (documents, documents.clamp(min=0)))
        return Places(all_tokens.positions_BT.where(at.documents_BT >= 0, 0), at.documents_BT)

    return _placed(system, counted)


@DEFECTS.plant("rows_share_one_length")
def rows_share_one_length(system: ModelsUnderContract) -> Planting:
    """The longest row's: shorter rows see what is beyond their end."""

    def make(right: Any) -> Any:
        def places(self: KVCache, lengths: Tensor | None = None) -> Any:
            lengths = self.lengths_B if lengths is None else lengths
            return right(self, lengths.amax().expand_as(lengths))

        return places

    return wrapped(system, KVCache, "places", make)


@DEFECTS.plant("padding_appended_to_the_cache")
def padding_appended_to_the_cache(system: ModelsUnderContract) -> Planting:
    """A row that waits grows all the same."""

    def make(right: Any) -> Any:
        return lambda self, new: right(self, Places(new.positions_BT, new.documents_BT.clamp(min=0)))

    return wrapped(system, KVCache, "extended", make)


@DEFECTS.plant("decoded_tokens_forgotten")
def decoded_tokens_forgotten(system: ModelsUnderContract) -> Planting:
    """Only the first pass is kept."""

    def make(right: Any) -> Any:
        return lambda self: None if int(self.cache.lengths_B.sum()) else right(self)

    return wrapped(system, Extension, "keep", make)


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


@DEFECTS.plant("bias_dropped_for_one_token")
def bias_dropped_for_one_token(system: ModelsUnderContract) -> Planting:
    """The matrix-vector road has no bias."""

    def without(right: Any) -> Any:
        return lambda x: (replace(right, bias=None) if x.shape[1] == 1 else right)(x)

    return stage_wrong(system, "untied", "layers.0.k_proj", without)


def _logits(system: ModelsUnderContract, change: Callable[..., Tensor]) -> Planting:
    """``change(logits, tokens)`` in passes with a cache."""

    def make(right: Any) -> Any:
        def forward(self: CudaTransformer, tokens: Tensor, **rest: Any) -> Any:
            logits = right(self, tokens, **rest)
            return logits if rest.get("cache") is None else change(logits, tokens)

        return forward

    return wrapped(system, CudaTransformer, "forward", make)


@DEFECTS.plant("logits_of_the_position_before")
def logits_of_the_position_before(system: ModelsUnderContract) -> Planting:
    """The choice is made one place too early wherever a pass has more than one token."""
    return _logits(system, lambda logits, tokens: logits.roll(1, 1))


@DEFECTS.plant("repetition_penalty_left_on")
def repetition_penalty_left_on(system: ModelsUnderContract) -> Planting:
    """What was just read is less likely."""

    def penalised(logits: Tensor, tokens: Tensor) -> Tensor:
        return logits.scatter_add(2, tokens.to(logits.device)[..., None], logits * 0 - 1.0)

    return _logits(system, penalised)


@DEFECTS.plant("temperature_left_on")
def temperature_left_on(system: ModelsUnderContract) -> Planting:
    """The choice stays, the odds do not."""
    return _logits(system, lambda logits, tokens: logits / 0.9)


@DEFECTS.plant("keys_beyond_a_tile_dropped")
def keys_beyond_a_tile_dropped(system: ModelsUnderContract) -> Planting:
    """The last, partial tile of keys is not read."""

    def whole_tiles(block: Any, past: Any, q: Any, k: Any, v: Any, at: Any, k_at: Any, doc: Any, k_doc: Any) -> Any:
        kept = max(1, k.shape[1] // 16) * 16
        return q, k[:, :kept], v[:, :kept], at, k_at[:, :kept], doc, k_doc[:, :kept]

    return attending(system, whole_tiles)


@DEFECTS.plant("cache_not_reset")
def cache_not_reset(system: ModelsUnderContract) -> Planting:
    """The next request goes on where the last one stopped."""
    return wrapped(system, KVCache, "reset", lambda right: lambda self: self.lengths_B.clamp_(max=3))


@DEFECTS.plant("reset_forgets_the_first_row_only")
def reset_forgets_the_first_row_only(system: ModelsUnderContract) -> Planting:
    """A batch of one was in mind; here the other rows lose all but one token."""

    def make(right: Any) -> Any:
        def reset(self: KVCache) -> None:
            self.lengths_B[0] = 0
            self.lengths_B.clamp_(max=1)

        return reset

    return wrapped(system, KVCache, "reset", make)


@DEFECTS.plant("stale_slots_are_seen")
def stale_slots_are_seen(system: ModelsUnderContract) -> Planting:
    """One slot beyond the end of each row counts."""

    def make(right: Any) -> Any:
        def places(self: KVCache, lengths: Tensor | None = None) -> Any:
            lengths = self.lengths_B if lengths is None else lengths
            return right(self, lengths + 1 if int(lengths.min()) else lengths)

        return places

    return wrapped(system, KVCache, "places", make)


@DEFECTS.plant("unfilled_slots_weigh_zero")
def unfilled_slots_weigh_zero(system: ModelsUnderContract) -> Planting:
    """Read, and multiplied by 0: right until there is NaN."""

    def touched(right: Any, extension: Any, layer: int, k: Tensor, v: Tensor) -> Any:
        keys, values = right(extension, layer, k, v)
        rest = extension.cache.layers[layer].v[:, keys.shape[1] :]
        return keys, values + 0 * rest.sum()

    return _appending(system, touched)


@DEFECTS.plant("caches_share_their_memory")
def caches_share_their_memory(system: ModelsUnderContract) -> Planting:
    """A new cache is the last one."""
    kept: list[KVCache] = []

    def make(right: Any) -> Any:
        def new_cache(self: CudaTransformer, rows: int, positions: int) -> KVCache:
            kept[:] = kept or [right(self, rows, positions)]
            return kept[0]

        return new_cache

    return wrapped(system, CudaTransformer, "new_cache", make)


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

"""Planted defects of the memory of a cached decode: slots, heads and rows, what is kept, and what is used again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.cuda import CudaTransformer
from aprender.transformer.cuda.batch import Places
from aprender.transformer.cuda.cache import Extension, KVCache
from falsifiers.cuda_model_planting import Planting, rewired, wrapped
from falsifiers.cuda_model_system import CACHE, ModelsUnderContract

DEFECTS = Defects()


def _slots(system: ModelsUnderContract, change: Callable[[Tensor, KVCache], Tensor]) -> Planting:
    """New tokens go to ``change(slots, cache)``."""

    def make(right: Any) -> Any:
        def extend(self: Any, cache: KVCache, new: Any, lengths: Tensor, rows: Any, columns: Any, slots: Any) -> None:
            right(self, cache, new, lengths, rows, columns, change(slots, cache))

        return extend

    return wrapped(system, Extension, "__init__", make, CACHE)


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

    return wrapped(system, Extension, "append", make, CACHE)


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


@DEFECTS.plant("cache_in_float8")
def cache_in_float8(system: ModelsUnderContract) -> Planting:
    """Half of the bits of a bfloat16 model's past: five of exponent, two of mantissa."""

    def rounded(right: Any, extension: Any, layer: int, k: Tensor, v: Tensor) -> Any:
        return right(extension, layer, *(x.to(torch.float8_e5m2).to(x.dtype) for x in (k, v)))

    return _appending(system, rounded)


@DEFECTS.plant("keys_cached_before_rope")
def keys_cached_before_rope(system: ModelsUnderContract) -> Planting:
    """And read as if they had been rotated."""

    def unrotated(block: Any, name: str, y: Tensor, seen: Any) -> Any:
        return seen["k_norm"] if name == "k_rope" else y

    return rewired(system, output=unrotated, cached=True, models=("untied",))


@DEFECTS.plant("decoded_tokens_forgotten")
def decoded_tokens_forgotten(system: ModelsUnderContract) -> Planting:
    """Only the first pass is kept."""

    def make(right: Any) -> Any:
        return lambda self: None if int(self.cache.lengths_B.sum()) else right(self)

    return wrapped(system, Extension, "keep", make, CACHE)


@DEFECTS.plant("padding_appended_to_the_cache")
def padding_appended_to_the_cache(system: ModelsUnderContract) -> Planting:
    """A row that waits grows all the same."""

    def make(right: Any) -> Any:
        return lambda self, new: right(self, Places(new.positions_BT, new.documents_BT.clamp(min=0)))

    return wrapped(system, KVCache, "extended", make, CACHE)


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

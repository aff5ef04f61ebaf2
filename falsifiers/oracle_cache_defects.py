"""Planted defects of cached decoding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.oracle import PADDING, Oracle, attention, layer, model
from aprender.transformer.oracle.attention import Places
from falsifiers.oracle_planting import Planting, wrong
from falsifiers.oracle_system import OracleUnderContract

DEFECTS = Defects()


@DEFECTS.plant("cache_position_off_by_one")
def cache_position_off_by_one(system: OracleUnderContract) -> Planting:
    """Decoded tokens stand one position further than they do."""

    def shifted(right: Any) -> Any:
        return lambda oracle, batch, cache: right(oracle, replace(batch, positions_BT=batch.positions_BT + 1), cache)

    return wrong(system, Oracle, "decode", shifted)


@DEFECTS.plant("decoded_tokens_forgotten")
def decoded_tokens_forgotten(system: OracleUnderContract) -> Planting:
    """Every step sees the prompt and itself, not what was decoded before it."""

    def forgetting(right: Any) -> Any:
        return lambda oracle, batch, cache: (right(oracle, batch, cache)[0], cache)

    return wrong(system, Oracle, "decode", forgetting)


def _places(system: OracleUnderContract, change: Any) -> Planting:
    def changed(right: Any) -> Any:
        return lambda batch, cache: right(batch, cache) if cache is None else change(right(batch, cache))

    return wrong(system, model, "all_places", changed)


@DEFECTS.plant("cached_padding_attended")
def cached_padding_attended(system: OracleUnderContract) -> Planting:
    """Slots that a shorter request left empty count as tokens before its first."""

    def attended(places: Places) -> Places:
        empty_BS = places.documents_BT == PADDING
        slots_S = torch.arange(empty_BS.shape[1], device=empty_BS.device)
        positions_BS = torch.where(empty_BS, -1 - slots_S, places.positions_BT)  # before all others, no two alike
        return Places(positions_BS, torch.where(empty_BS, 0, places.documents_BT))

    return _places(system, attended)


@DEFECTS.plant("slot_taken_for_position")
def slot_taken_for_position(system: OracleUnderContract) -> Planting:
    """Where a key lies in the cache is taken for where it stands in the text."""

    def by_slot(places: Places) -> Places:
        slots_S = torch.arange(places.positions_BT.shape[1], device=places.positions_BT.device)
        return Places(slots_S.expand_as(places.positions_BT), places.documents_BT)

    return _places(system, by_slot)


def _appending(system: OracleUnderContract, change: Any) -> Planting:
    return wrong(
        system, layer, "appended", lambda right: lambda past, k_BTGC, v_BTGC: right(change(*past), k_BTGC, v_BTGC)
    )


@DEFECTS.plant("cache_of_the_first_request_for_all")
def cache_of_the_first_request_for_all(system: OracleUnderContract) -> Planting:
    """The row index into the cache is always 0."""
    return _appending(system, lambda k, v: (k[:1].expand_as(k), v[:1].expand_as(v)))


@DEFECTS.plant("cached_values_one_slot_late")
def cached_values_one_slot_late(system: OracleUnderContract) -> Planting:
    """Keys and values of the past are paired off by one."""
    return _appending(system, lambda k, v: (k, v.roll(1, 1)))


@DEFECTS.plant("oldest_key_evicted")
def oldest_key_evicted(system: OracleUnderContract) -> Planting:
    """The first slot is overwritten with zeros."""

    def evicted(k_BSGC: Tensor, v_BSGC: Tensor) -> tuple[Tensor, Tensor]:
        kept_S11 = (torch.arange(k_BSGC.shape[1], device=k_BSGC.device) > 0)[:, None, None]
        return k_BSGC * kept_S11, v_BSGC * kept_S11

    return _appending(system, evicted)


@DEFECTS.plant("tokens_of_one_step_see_each_other")
def tokens_of_one_step_see_each_other(system: OracleUnderContract) -> Planting:
    """A step of several tokens has no causal mask among them."""

    def unmasked(right: Any) -> Any:
        def allowed_pairs(queries: Places, keys: Places, window: int | None) -> Any:
            if queries.positions_BT.shape == keys.positions_BT.shape:
                return right(queries, keys, window)
            last_B1 = queries.positions_BT.amax(1, keepdim=True)
            return right(Places(last_B1.expand_as(queries.positions_BT), queries.documents_BT), keys, window)

        return allowed_pairs

    return wrong(system, attention, "allowed_pairs", unmasked)

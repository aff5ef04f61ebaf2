"""Planted defects of where tokens of a cached decode stand: positions and lengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.cuda import model
from aprender.transformer.cuda.batch import Places
from aprender.transformer.cuda.cache import KVCache
from falsifiers.cuda_model_planting import Planting, wrapped
from falsifiers.cuda_model_system import CACHE, ModelsUnderContract

DEFECTS = Defects()


def _placed(system: ModelsUnderContract, change: Callable[..., Places]) -> Planting:
    """In passes with a cache: ``change(right, tokens, positions, documents, device, past, most)``."""

    def make(right: Any) -> Any:
        def places(tokens: Tensor, positions: Any, documents: Any, device: Any, past: Any, most: int) -> Places:
            if past is None:
                found: Places = right(tokens, positions, documents, device, past, most)
                return found
            return change(right, tokens, positions, documents, device, past, most)

        return places

    return wrapped(system, model, "places", make, CACHE)


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

    return wrapped(system, KVCache, "places", make, CACHE)

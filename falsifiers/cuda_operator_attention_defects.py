"""Planted defects of the CUDA path's attention: forward alone, mostly the right kernel on wrong arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from falsifiers.cuda_operator_cases import Leading
from falsifiers.cuda_operator_planting import Planting, after, computing, with_fields
from falsifiers.cuda_operator_system import OperatorsUnderContract
from falsifiers.oracle_attention_stage import seen

DEFECTS = Defects()
# Each in the case that shows most of it: all heads in one document; windows, documents, padding; Tq != Tk and a cache.
WHOLE, PACKED, DECODE = ("attention",), ("attention_packed",), ("attention_decode",)


def _attending(
    system: OperatorsUnderContract, change: Callable[..., tuple[Tensor, ...]], names: tuple[str, ...] = WHOLE
) -> Planting:
    """The right kernel on ``change(q, k, v, positions of q and of k, documents of q and of k)``."""

    def compute(right: Any, *inputs: Tensor) -> Any:
        whole = right.stage if isinstance(right, Leading) else right
        return whole(*change(*inputs))

    return computing(system, names, compute)


def _with(system: OperatorsUnderContract, names: tuple[str, ...] = WHOLE, **changes: Callable[[Any], Any]) -> Planting:
    """The right kernel with its scale or window changed, in the forward pass alone."""
    return computing(system, names, lambda right, *inputs: with_fields(right, **changes)(*inputs))


def _grouped(system: OperatorsUnderContract, k_head: Callable[..., Tensor], v_head: Callable[..., Tensor]) -> Planting:
    """Query head h of H reads key head ``k_head(h, H, G)`` and value head ``v_head(h, H, G)``."""

    def change(q: Tensor, k: Tensor, v: Tensor, *places: Tensor) -> tuple[Tensor, ...]:
        H, G = q.shape[2], k.shape[2]
        h = torch.arange(H, device=q.device)
        return (q, k[:, :, k_head(h, H, G)], v[:, :, v_head(h, H, G)], *places)

    return _attending(system, change)


def _right_head(h: Tensor, H: int, G: int) -> Tensor:
    return h // (H // G)


@DEFECTS.plant("gqa_heads_tiled")
def gqa_heads_tiled(system: OperatorsUnderContract) -> Planting:
    """``h % G`` for ``h // (H/G)``."""
    return _grouped(system, lambda h, H, G: h % G, lambda h, H, G: h % G)


@DEFECTS.plant("gqa_values_tiled")
def gqa_values_tiled(system: OperatorsUnderContract) -> Planting:
    """Keys are right, values are not."""
    return _grouped(system, _right_head, lambda h, H, G: h % G)


@DEFECTS.plant("gqa_all_heads_read_the_first")
def gqa_all_heads_read_the_first(system: OperatorsUnderContract) -> Planting:
    """Multi-query attention on grouped weights."""
    return _grouped(system, lambda h, H, G: h * 0, lambda h, H, G: h * 0)


@DEFECTS.plant("gqa_last_head_reads_the_first")
def gqa_last_head_reads_the_first(system: OperatorsUnderContract) -> Planting:
    """One head of all."""

    def head(h: Tensor, H: int, G: int) -> Tensor:
        return h // (H // G) * (h < H - 1)

    return _grouped(system, head, head)


@DEFECTS.plant("softmax_scale_of_head_dim")
def softmax_scale_of_head_dim(system: OperatorsUnderContract) -> Planting:
    """``1/d`` for ``1/sqrt(d)``."""
    return _with(system, scale=lambda scale: scale * scale)


@DEFECTS.plant("softmax_scale_missing")
def softmax_scale_missing(system: OperatorsUnderContract) -> Planting:
    """Scores as they are."""
    return _with(system, scale=lambda scale: 1.0)


@DEFECTS.plant("softmax_scale_off_by_a_hundredth")
def softmax_scale_off_by_a_hundredth(system: OperatorsUnderContract) -> Planting:
    """1.01 times the scale."""
    return _with(system, scale=lambda scale: scale * 1.01)


@DEFECTS.plant("softmax_scale_off_by_a_thousandth")
def softmax_scale_off_by_a_thousandth(system: OperatorsUnderContract) -> Planting:
    """1.001 times the scale."""
    return _with(system, scale=lambda scale: scale * 1.001)


@DEFECTS.plant("softmax_scale_in_bfloat16")
def softmax_scale_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """The scale rounded to bfloat16."""
    return _with(system, scale=lambda scale: float(torch.tensor(scale).bfloat16()))


@DEFECTS.plant("window_one_too_wide")
def window_one_too_wide(system: OperatorsUnderContract) -> Planting:
    """``<=`` for ``<``."""
    return _with(system, PACKED, window=lambda window: window and window + 1)


@DEFECTS.plant("window_one_too_narrow")
def window_one_too_narrow(system: OperatorsUnderContract) -> Planting:
    """The window does not count the query itself."""
    return _with(system, PACKED, window=lambda window: window and window - 1)


@DEFECTS.plant("window_ignored")
def window_ignored(system: OperatorsUnderContract) -> Planting:
    """Full attention."""
    return _with(system, PACKED, window=lambda window: None)


@DEFECTS.plant("window_where_there_is_none")
def window_where_there_is_none(system: OperatorsUnderContract) -> Planting:
    """A default of 16 positions."""
    return _with(system, window=lambda window: window or 16)


def _at(system: OperatorsUnderContract, change: Callable[[Tensor], Tensor]) -> Planting:
    """Queries stand at ``change(their positions)``."""
    return _attending(system, lambda q, k, v, at, *places: (q, k, v, change(at), *places))


@DEFECTS.plant("no_causal_mask")
def no_causal_mask(system: OperatorsUnderContract) -> Planting:
    """Every key of the document is seen."""
    return _at(system, lambda at: at * 0 + 2**20)


@DEFECTS.plant("mask_excludes_self")
def mask_excludes_self(system: OperatorsUnderContract) -> Planting:
    """``<`` for ``<=``."""
    return _at(system, lambda at: at - 1)


@DEFECTS.plant("mask_leaks_the_next_token")
def mask_leaks_the_next_token(system: OperatorsUnderContract) -> Planting:
    """One future key is seen."""
    return _at(system, lambda at: at + 1)


@DEFECTS.plant("mask_aligned_to_the_first_key")
def mask_aligned_to_the_first_key(system: OperatorsUnderContract) -> Planting:
    """Row i sees columns 0 to i, whatever the positions: wrong where Tq is not Tk."""

    def top_left(q: Tensor, k: Tensor, v: Tensor, at: Tensor, k_at: Tensor, *documents: Tensor) -> tuple[Tensor, ...]:
        rows, columns = (torch.arange(x.shape[1], device=x.device).expand_as(x) for x in (at, k_at))
        return (q, k, v, rows, columns, *documents)

    return _attending(system, top_left, DECODE)


@DEFECTS.plant("tail_tile_of_keys_dropped")
def tail_tile_of_keys_dropped(system: OperatorsUnderContract) -> Planting:
    """Keys beyond the last whole tile of 16 are never read."""

    def whole_tiles(q: Tensor, k: Tensor, v: Tensor, at: Tensor, k_at: Tensor, *documents: Tensor) -> Any:
        kept = k.shape[1] // 16 * 16
        return (q, k[:, :kept], v[:, :kept], at, k_at[:, :kept], documents[0], documents[1][:, :kept])

    return _attending(system, whole_tiles)


@DEFECTS.plant("document_boundary_leaks")
def document_boundary_leaks(system: OperatorsUnderContract) -> Planting:
    """Packed documents see each other."""
    return _attending(system, lambda *inputs: (*inputs[:5], *(x.clamp(max=0) for x in inputs[5:])), PACKED)


@DEFECTS.plant("padding_is_attended")
def padding_is_attended(system: OperatorsUnderContract) -> Planting:
    """Padding keys, and unfilled slots of the cache, count as the first document's."""
    return _attending(system, lambda *inputs: (*inputs[:6], inputs[6].clamp(min=0)), (*PACKED, *DECODE))


@DEFECTS.plant("softmax_off_by_one")
def softmax_off_by_one(system: OperatorsUnderContract) -> Planting:
    """One more in the denominator: a key with score 0 and value 0 that every query sees."""

    def one_more(q: Tensor, k: Tensor, v: Tensor, at: Tensor, k_at: Tensor, *documents: Tensor) -> Any:
        first, own = torch.zeros_like(k[:, :1]), k_at[:, :1] * 0
        joined = (torch.cat((first, x), 1) for x in (k, v))
        return (q, *joined, at, torch.cat((own, k_at), 1), documents[0], torch.cat((own, documents[1]), 1))

    return _attending(system, one_more, DECODE)


@DEFECTS.plant("softmax_sums_to_less_than_one")
def softmax_sums_to_less_than_one(system: OperatorsUnderContract) -> Planting:
    """0.999 of every weight."""
    return after(system, WHOLE, lambda out: (out.float() * 0.999).to(out.dtype))


@DEFECTS.plant("heads_merged_without_transpose")
def heads_merged_without_transpose(system: OperatorsUnderContract) -> Planting:
    """[B, H, T, C] read as [B, T, H, C]."""
    return after(system, WHOLE, lambda out: out.transpose(1, 2).reshape(out.shape))


def _by_hand(system: OperatorsUnderContract, softmax: Callable[[Tensor], Tensor]) -> Planting:
    """Attention in plain float32, with the softmax of scores_BHTS replaced."""

    def compute(right: Any, q: Tensor, k: Tensor, v: Tensor, *places: Tensor) -> Tensor:
        stage = right.stage if isinstance(right, Leading) else right
        group = q.shape[2] // k.shape[2]
        k, v = (x.float().repeat_interleave(group, 2) for x in (k, v))
        allowed = seen(list(places), stage.window)[:, None]
        scores = torch.einsum("bthc,bshc->bhts", q.float(), k) * stage.scale
        weights = softmax(torch.where(allowed, scores, -math.inf)).nan_to_num(0.0)
        return torch.einsum("bhts,bshc->bthc", weights, v).to(q.dtype)

    return computing(system, (*WHOLE, *PACKED), compute)


@DEFECTS.plant("softmax_in_bfloat16")
def softmax_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """Scores and weights are bfloat16."""
    return _by_hand(system, lambda scores: scores.bfloat16().softmax(-1).float())


@DEFECTS.plant("softmax_over_queries")
def softmax_over_queries(system: OperatorsUnderContract) -> Planting:
    """The other axis."""
    return _by_hand(system, lambda scores: scores.softmax(-2))


@DEFECTS.plant("rope_on_v")
def rope_on_v(system: OperatorsUnderContract) -> Planting:
    """Values are rotated as well: here by a quarter turn."""
    return _attending(system, lambda q, k, v, *places: (q, k, torch.cat(v.chunk(2, -1)[::-1], -1), *places))

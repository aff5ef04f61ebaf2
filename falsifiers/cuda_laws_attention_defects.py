"""Planted defects of attention that its laws must catch, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from falsifiers.cuda_laws_attention import in_order
from falsifiers.cuda_laws_planting import computing, differentiated_at, differentiating, fed, gradients_of, in_tf32
from falsifiers.cuda_operator_planting import Planting
from falsifiers.cuda_operator_system import ReplaceableStages

DEFECTS = Defects()
WHOLE, GROUPED, SOFTMAX = ("attention",), ("attention_grouped",), ("attention_softmax",)
WINDOW, PADDED, PACKED = ("attention_window",), ("attention_padded",), ("attention_packed",)
WIDE = ("attention_wide",)
SELF = ("attention_self",)


def queries_at(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """Queries stand at ``change(their positions)``."""
    return lambda q, k, v, at, *places: (q, k, v, change(at), *places)


def documents_as(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    """Documents of queries and keys are others."""
    return lambda *inputs: (*inputs[:5], *change(*inputs[5:])) if len(inputs) > 5 else inputs


def top_left(q: Tensor, k: Tensor, v: Tensor, *places: Tensor) -> Any:
    """Row i sees columns 0 to i."""
    return (q, k, v, in_order(q), in_order(k), *places[2:])


def other_heads(head: Callable[[Tensor, int, int], Tensor]) -> Callable[..., Any]:
    """Query head h of H reads key/value head ``head(h, H, G)``."""

    def change(q: Tensor, k: Tensor, v: Tensor, *places: Tensor) -> Any:
        chosen = head(torch.arange(q.shape[2], device=q.device), q.shape[2], k.shape[2])
        return (q, k[:, :, chosen], v[:, :, chosen], *places)

    return change


def with_window(change: Callable[[int], int | None]) -> Callable[..., Any]:
    """The right kernel with another window, where it has one."""
    return lambda right, *inputs: replace(right, window=change(right.window))(*inputs)


@DEFECTS.plant("mask_multiplies")
def mask_multiplies(system: ReplaceableStages) -> Planting:
    """Weights of unseen keys are multiplied by 0 where they should be left out: NaN goes through."""

    def compute(right: Any, q: Tensor, k: Tensor, v: Tensor, at: Tensor, k_at: Tensor, *documents: Tensor) -> Tensor:
        group = q.shape[2] // k.shape[2]
        k, v = (x.float().repeat_interleave(group, 2) for x in (k, v))
        weights = torch.exp(torch.einsum("bthc,bshc->bhts", q.float(), k) * right.scale)
        weights = weights * (k_at[:, None] <= at[:, :, None])[:, None]
        return torch.einsum("bhts,bshc->bthc", weights / weights.sum(-1, keepdim=True), v).to(q.dtype)

    return computing(system, WHOLE, compute)


@DEFECTS.plant("no_causal_mask")
def no_causal_mask(system: ReplaceableStages) -> Planting:
    """Every key is seen."""
    return fed(system, WHOLE, queries_at(lambda at: at * 0 + 2**20))


@DEFECTS.plant("mask_leaks_the_next_token")
def mask_leaks_the_next_token(system: ReplaceableStages) -> Planting:
    """One future key is seen."""
    return fed(system, WHOLE, queries_at(lambda at: at + 1))


@DEFECTS.plant("mask_excludes_self")
def mask_excludes_self(system: ReplaceableStages) -> Planting:
    """``<`` for ``<=``: with a window of one nothing is left."""
    return fed(system, SELF, queries_at(lambda at: at - 1))


@DEFECTS.plant("mask_aligned_to_the_first_key")
def mask_aligned_to_the_first_key(system: ReplaceableStages) -> Planting:
    """Top-left, where Tq is not Tk."""
    return fed(system, WHOLE, top_left)


@DEFECTS.plant("window_one_too_wide")
def window_one_too_wide(system: ReplaceableStages) -> Planting:
    """``<=`` for ``<``."""
    return computing(system, WINDOW, with_window(lambda window: window + 1))


@DEFECTS.plant("window_one_too_narrow")
def window_one_too_narrow(system: ReplaceableStages) -> Planting:
    """The window does not count the query itself."""
    return computing(system, WINDOW, with_window(lambda window: window - 1))


@DEFECTS.plant("window_ignored")
def window_ignored(system: ReplaceableStages) -> Planting:
    """Full attention."""
    return computing(system, WINDOW, with_window(lambda window: None))


@DEFECTS.plant("window_one_too_wide_in_whole_tiles")
def window_one_too_wide_in_whole_tiles(system: ReplaceableStages) -> Planting:
    """A tile counts as seen by all queries, and goes without a mask, where one pair of it is just out of the window."""
    return computing(system, WIDE, with_window(lambda window: window + 1))


@DEFECTS.plant("documents_leak_in_whole_tiles")
def documents_leak_in_whole_tiles(system: ReplaceableStages) -> Planting:
    """A tile that begins and ends in one document goes without a mask, whatever documents stand between."""
    return fed(system, WIDE, documents_as(lambda q, k: (q, k.clamp(max=0))))


@DEFECTS.plant("padding_attended_in_whole_tiles")
def padding_attended_in_whole_tiles(system: ReplaceableStages) -> Planting:
    """A tile that begins and ends in one document goes without a mask, whatever stands between."""
    return fed(system, WIDE, documents_as(lambda q, k: (q, k.clamp(min=0))))


@DEFECTS.plant("padding_queries_of_whole_tiles_compute")
def padding_queries_of_whole_tiles_compute(system: ReplaceableStages) -> Planting:
    """A tile of queries that begins and ends in one document takes its padding along."""
    return fed(system, WIDE, documents_as(lambda q, k: (q.clamp(min=0), k)))


@DEFECTS.plant("documents_leak")
def documents_leak(system: ReplaceableStages) -> Planting:
    """All tokens are of one document; positions of the first one are as small as the second's."""
    return fed(system, PACKED, documents_as(lambda q, k: (q.clamp(max=0), k.clamp(max=0))))


@DEFECTS.plant("padding_is_attended")
def padding_is_attended(system: ReplaceableStages) -> Planting:
    """Padding keys count as the first document's."""
    return fed(system, PADDED, documents_as(lambda q, k: (q.clamp(min=0), k.clamp(min=0))))


@DEFECTS.plant("padding_queries_give_their_value")
def padding_queries_give_their_value(system: ReplaceableStages) -> Planting:
    """What padding computes is not 0."""
    return fed(system, PADDED, documents_as(lambda q, k: (torch.where(q < 0, 1, q), k)))


@DEFECTS.plant("rows_share_the_first_rows_documents")
def rows_share_the_first_rows_documents(system: ReplaceableStages) -> Planting:
    """The stride of the batch is missing."""
    return fed(system, PACKED, documents_as(lambda q, k: (q[:1].expand_as(q), k[:1].expand_as(k))))


@DEFECTS.plant("gqa_heads_tiled")
def gqa_heads_tiled(system: ReplaceableStages) -> Planting:
    """``h % G`` for ``h // (H/G)``."""
    return fed(system, GROUPED, other_heads(lambda h, H, G: h % G))


@DEFECTS.plant("gqa_last_head_reads_the_first")
def gqa_last_head_reads_the_first(system: ReplaceableStages) -> Planting:
    """One head of all."""
    return fed(system, GROUPED, other_heads(lambda h, H, G: h // (H // G) * (h < H - 1)))


@DEFECTS.plant("scale_off_by_a_thousandth")
def scale_off_by_a_thousandth(system: ReplaceableStages) -> Planting:
    """1.001 times the scale."""
    return computing(system, SOFTMAX, lambda right, *inputs: replace(right, scale=right.scale * 1.001)(*inputs))


@DEFECTS.plant("weights_sum_to_less_than_one")
def weights_sum_to_less_than_one(system: ReplaceableStages) -> Planting:
    """The normaliser counts one weight more: here 0.999 of every output."""
    return computing(system, (*SOFTMAX, *SELF), lambda right, *inputs: right(*inputs) * 0.999)


@DEFECTS.plant("tail_tile_of_keys_dropped")
def tail_tile_of_keys_dropped(system: ReplaceableStages) -> Planting:
    """Keys beyond the last whole tile of 16 are never read."""

    def whole_tiles(q: Tensor, k: Tensor, v: Tensor, at: Tensor, k_at: Tensor) -> Any:
        kept = max(k.shape[1] // 16, 1) * 16
        return q, k[:, :kept], v[:, :kept], at, k_at[:, :kept]

    return fed(system, SOFTMAX, whole_tiles)


@DEFECTS.plant("scores_in_tf32")
def scores_in_tf32(system: ReplaceableStages) -> Planting:
    """The tensor cores' default for float32."""
    return fed(system, SOFTMAX, lambda q, k, *rest: (in_tf32(q), in_tf32(k), *rest))


@DEFECTS.plant("values_in_tf32")
def values_in_tf32(system: ReplaceableStages) -> Planting:
    """The other product of attention."""
    return fed(system, SELF, lambda q, k, v, *places: (q, k, in_tf32(v), *places))


def _backward(system: ReplaceableStages, names: tuple[str, ...], change: Callable[..., Any]) -> Planting:
    return differentiated_at(system, names, change)


@DEFECTS.plant("backward_mask_leaks_the_next_token")
def backward_mask_leaks_the_next_token(system: ReplaceableStages) -> Planting:
    """Forward masks right."""
    return _backward(system, WHOLE, queries_at(lambda at: at + 1))


@DEFECTS.plant("backward_mask_aligned_to_the_first_key")
def backward_mask_aligned_to_the_first_key(system: ReplaceableStages) -> Planting:
    """Top-left in the backward pass alone (ffpa-attn issue 300)."""
    return _backward(system, WHOLE, top_left)


@DEFECTS.plant("backward_documents_leak")
def backward_documents_leak(system: ReplaceableStages) -> Planting:
    """Gradients cross documents."""
    return _backward(system, PACKED, documents_as(lambda q, k: (q.clamp(max=0), k.clamp(max=0))))


@DEFECTS.plant("backward_reads_padding")
def backward_reads_padding(system: ReplaceableStages) -> Planting:
    """Padding's d_output counts."""
    return _backward(system, PADDED, documents_as(lambda q, k: (q.clamp(min=0), k.clamp(min=0))))


@DEFECTS.plant("backward_window_one_too_wide")
def backward_window_one_too_wide(system: ReplaceableStages) -> Planting:
    """``<=`` for ``<``, in the backward pass alone."""

    def changed(right: Any, inputs: Any, d_output: Tensor, d_inputs: Any, parameters: Any) -> Any:
        return gradients_of(replace(right, window=right.window + 1), inputs, d_output)

    return differentiating(system, WINDOW + WIDE, changed)


def _gradients(system: ReplaceableStages, names: tuple[str, ...], change: Callable[..., Any]) -> Planting:
    """``change(right, inputs, d_output, d_q, d_k, d_v)``."""

    def changed(right: Any, inputs: Any, d_output: Tensor, d_inputs: Any, parameters: Any) -> Any:
        return change(right, inputs, d_output, *d_inputs), parameters

    return differentiating(system, names, changed)


@DEFECTS.plant("gradients_of_key_heads_tiled")
def gradients_of_key_heads_tiled(system: ReplaceableStages) -> Planting:
    """d_k and d_v of another head."""
    return _gradients(system, GROUPED, lambda right, inputs, dy, q, k, v: (q, k.roll(1, 2), v.roll(1, 2)))


@DEFECTS.plant("gradient_of_one_head_of_a_group")
def gradient_of_one_head_of_a_group(system: ReplaceableStages) -> Planting:
    """The group's sum is missing."""

    def change(right: Any, inputs: Any, dy: Tensor, d_q: Tensor, d_k: Tensor, d_v: Tensor) -> Any:
        first = torch.zeros_like(dy)
        first[:, :, :: dy.shape[2] // d_k.shape[2]] = dy[:, :, :: dy.shape[2] // d_k.shape[2]]
        return d_q, *gradients_of(right, inputs, first)[0][1:]

    return _gradients(system, SELF, change)


@DEFECTS.plant("softmax_backward_without_row_sum")
def softmax_backward_without_row_sum(system: ReplaceableStages) -> Planting:
    """``ds = p dp``: delta is forgotten."""

    def change(right: Any, inputs: Any, dy: Tensor, d_q: Tensor, d_k: Tensor, d_v: Tensor) -> Any:
        q, k, v, at, k_at = inputs
        group = q.shape[2] // k.shape[2]
        k, v = (x.repeat_interleave(group, 2) for x in (k, v))
        scores = torch.einsum("bthc,bshc->bhts", q, k) * right.scale
        p = torch.where((k_at[:, None] <= at[:, :, None])[:, None], scores, -math.inf).softmax(-1)
        ds = p * torch.einsum("bthc,bshc->bhts", dy, v)
        return right.scale * torch.einsum("bhts,bshc->bthc", ds, k), d_k, d_v

    return _gradients(system, SOFTMAX, change)


@DEFECTS.plant("backward_mask_adds_a_large_number")
def backward_mask_adds_a_large_number(system: ReplaceableStages) -> Planting:
    """Masked scores are pushed down by 1e4, not left out: a large key comes back."""

    def change(right: Any, inputs: Any, dy: Tensor, d_q: Tensor, d_k: Tensor, d_v: Tensor) -> Any:
        q, k, v, at, k_at = inputs
        group = q.shape[2] // k.shape[2]
        k, v = (x.repeat_interleave(group, 2) for x in (k, v))
        scores = torch.einsum("bthc,bshc->bhts", q, k) * right.scale
        p = (scores - 1e4 * (k_at[:, None] > at[:, :, None])[:, None]).softmax(-1)
        dp = torch.einsum("bthc,bshc->bhts", dy, v)
        ds = p * (dp - (p * dp).sum(-1, keepdim=True))
        return right.scale * torch.einsum("bhts,bshc->bthc", ds, k), d_k, d_v

    return _gradients(system, WHOLE, change)


@DEFECTS.plant("backward_multiplies_zero_by_nan")
def backward_multiplies_zero_by_nan(system: ReplaceableStages) -> Planting:
    """Products run over whole tiles: a weight of 0 times a NaN that nobody sees is NaN."""

    def change(right: Any, inputs: Any, dy: Tensor, d_q: Tensor, d_k: Tensor, d_v: Tensor) -> Any:
        return d_q + 0 * inputs[1].sum((1, 2), keepdim=True), d_k, d_v

    return _gradients(system, (*WHOLE, *PACKED), change)

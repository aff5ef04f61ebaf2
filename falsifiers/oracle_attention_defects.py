"""Planted defects of the oracle's attention: mask, RoPE, scale, softmax, grouped heads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.oracle import PADDING, attention, layer, operators, rope
from aprender.transformer.oracle.attention import Places
from falsifiers.oracle_planting import Planting, wrong
from falsifiers.oracle_system import OracleUnderContract

DEFECTS = Defects()


def _masking(system: OracleUnderContract, change: Any) -> Planting:
    """``change(queries, keys)`` gives the places that the mask is made of instead."""
    return wrong(
        system, attention, "allowed_pairs", lambda right: lambda queries, keys, w: right(*change(queries, keys), w)
    )


def _moved(places: Places, by: int) -> Places:
    return Places(places.positions_BT + by, places.documents_BT)


def _in_one_document(places: Places, which: Any) -> Places:
    return Places(places.positions_BT, torch.where(which(places.documents_BT), 0, places.documents_BT))


@DEFECTS.plant("no_causal_mask")
def no_causal_mask(system: OracleUnderContract) -> Planting:
    """Every query sees its whole document."""
    return _masking(system, lambda queries, keys: (_moved(queries, 10**6), keys))


@DEFECTS.plant("mask_leaks_the_next_token")
def mask_leaks_the_next_token(system: OracleUnderContract) -> Planting:
    """Off by one: ``s <= t + 1``."""
    return _masking(system, lambda queries, keys: (_moved(queries, 1), keys))


@DEFECTS.plant("mask_excludes_self")
def mask_excludes_self(system: OracleUnderContract) -> Planting:
    """Off by one the other way: ``s < t``."""
    return _masking(system, lambda queries, keys: (_moved(queries, -1), keys))


@DEFECTS.plant("document_boundary_leaks")
def document_boundary_leaks(system: OracleUnderContract) -> Planting:
    """Documents packed in one row see each other."""

    def one(places: Places) -> Places:
        return _in_one_document(places, lambda documents_BT: documents_BT != PADDING)

    return _masking(system, lambda queries, keys: (one(queries), one(keys)))


@DEFECTS.plant("padding_is_attended")
def padding_is_attended(system: OracleUnderContract) -> Planting:
    """Padding counts as part of the row's first document."""
    return _masking(
        system, lambda queries, keys: (queries, _in_one_document(keys, lambda documents_BT: documents_BT == PADDING))
    )


@DEFECTS.plant("rope_interleaved_pairs")
def rope_interleaved_pairs(system: OracleUnderContract) -> Planting:
    """Neighbours are rotated together, as in the paper, on weights laid out for halves."""

    def interleaved(right: Any) -> Any:
        def rotate(x_BTHC: Tensor, cos_BTR: Tensor, sin_BTR: Tensor) -> Tensor:
            halves = right(torch.cat((x_BTHC[..., 0::2], x_BTHC[..., 1::2]), -1), cos_BTR, sin_BTR)
            return torch.stack(halves.chunk(2, -1), -1).flatten(-2)

        return rotate

    return wrong(system, rope, "rotate", interleaved)


@DEFECTS.plant("rope_missing")
def rope_missing(system: OracleUnderContract) -> Planting:
    """Attention knows no order but the mask's."""
    return wrong(system, rope, "rotate", lambda _: lambda x_BTHC, cos_BTR, sin_BTR: x_BTHC)


@DEFECTS.plant("rope_sign_flipped")
def rope_sign_flipped(system: OracleUnderContract) -> Planting:
    """Turned by the negative angle."""
    return wrong(system, rope, "rotate", lambda right: lambda x, cos, sin: right(x, cos, -sin))


@DEFECTS.plant("rope_on_v")
def rope_on_v(system: OracleUnderContract) -> Planting:
    """Values are rotated as well."""

    def rotating(right: Any) -> Any:
        def heads(weights: Any, setting: Any, kind: str, normed_BTD: Tensor) -> Tensor:
            heads_BTHC: Tensor = right(weights, setting, kind, normed_BTD)
            return rope.rotate(heads_BTHC, setting.cos_BTR, setting.sin_BTR) if kind == "v" else heads_BTHC

        return heads

    return wrong(system, layer, "heads", rotating)


@DEFECTS.plant("k_position_off_by_one")
def k_position_off_by_one(system: OracleUnderContract) -> Planting:
    """Each key is rotated by its predecessor's angle."""

    def shifted(right: Any) -> Any:
        def place(weights: Any, setting: Any, kind: str, heads_BTHC: Tensor) -> Any:
            if kind == "k":
                setting = replace(setting, cos_BTR=setting.cos_BTR.roll(1, 1), sin_BTR=setting.sin_BTR.roll(1, 1))
            return right(weights, setting, kind, heads_BTHC)

        return place

    return wrong(system, layer, "place", shifted)


@DEFECTS.plant("rope_theta_not_from_config")
def rope_theta_not_from_config(system: OracleUnderContract) -> Planting:
    """10000 whatever the configuration says."""
    return wrong(system, rope, "frequencies", lambda right: lambda head_dim, _, scaling: right(head_dim, 1e4, scaling))


@DEFECTS.plant("rope_tables_in_float32")
def rope_tables_in_float32(system: OracleUnderContract) -> Planting:
    """Tables of a float64 model went through float32."""

    def rounded(right: Any) -> Any:
        def tables(*arguments: Any) -> Any:
            *others, dtype = arguments
            return tuple(table.to(dtype) for table in right(*others, torch.float32))

        return tables

    return wrong(system, rope, "tables", rounded)


@DEFECTS.plant("rope_positions_clamped")
def rope_positions_clamped(system: OracleUnderContract) -> Planting:
    """The table has 256 rows, and what comes later uses the last one."""
    return wrong(
        system, rope, "tables", lambda right: lambda positions_BT, *more: right(positions_BT.clamp(max=255), *more)
    )


def _scaled(system: OracleUnderContract, scale: Any) -> Planting:
    return wrong(system, layer.Setting, "scale", lambda _: property(lambda setting: scale(setting.config)))


@DEFECTS.plant("softmax_scale_of_hidden_size")
def softmax_scale_of_hidden_size(system: OracleUnderContract) -> Planting:
    """``1 / sqrt(hidden_size / heads)``: right only where head_dim is that."""
    return _scaled(system, lambda config: (config.hidden_size / config.num_attention_heads) ** -0.5)


@DEFECTS.plant("softmax_scale_missing")
def softmax_scale_missing(system: OracleUnderContract) -> Planting:
    """Plain dot products."""
    return _scaled(system, lambda config: 1.0)


@DEFECTS.plant("softmax_scale_off_by_a_thousandth")
def softmax_scale_off_by_a_thousandth(system: OracleUnderContract) -> Planting:
    """As a scale rounded to bfloat16 is."""
    return _scaled(system, lambda config: 1.001 * config.head_dim**-0.5)


@DEFECTS.plant("softmax_off_by_one")
def softmax_off_by_one(system: OracleUnderContract) -> Planting:
    """One is added to the denominator of attention's softmax."""

    def with_one(scores: Tensor) -> Tensor:
        weights = torch.exp(scores)
        return weights / (1 + weights.sum(-1, keepdim=True))

    return wrong(system, operators, "softmax", lambda _: with_one)


@DEFECTS.plant("softmax_in_float32")
def softmax_in_float32(system: OracleUnderContract) -> Planting:
    """A float64 model whose softmax is float32, as the third party's own is for every dtype."""
    return wrong(system, operators, "softmax", lambda right: lambda scores: right(scores.float()).to(scores.dtype))


def _attending(system: OracleUnderContract, change: Any) -> Planting:
    return wrong(
        system,
        attention,
        "attention",
        lambda right: lambda q, k, v, allowed, scale: change(right, q, k, v, allowed, scale),
    )


def _tiled(heads: int, groups: int) -> Tensor:
    """For each slot of the grouped order, the query head that ``h % groups`` puts there."""
    return torch.arange(heads).reshape(-1, groups).T.flatten()


@DEFECTS.plant("gqa_heads_tiled")
def gqa_heads_tiled(system: OracleUnderContract) -> Planting:
    """Query head h reads key/value head ``h % G``; the same where there is one key head only."""

    def attend(right: Any, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scale: float) -> Any:
        order = _tiled(q.shape[2], k.shape[2]).to(q.device)
        return right(q[:, :, order], k, v, allowed, scale)[:, :, order.argsort()]

    return _attending(system, attend)


@DEFECTS.plant("gqa_last_head_reads_the_first_group")
def gqa_last_head_reads_the_first_group(system: OracleUnderContract) -> Planting:
    """An index that wraps around."""

    def attend(right: Any, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scale: float) -> Any:
        out = right(q, k, v, allowed, scale)
        last = right(q[:, :, -1:], k[:, :, :1], v[:, :, :1], allowed, scale)
        return torch.cat((out[:, :, :-1], last), 2)

    return _attending(system, attend)

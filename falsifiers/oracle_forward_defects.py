"""Planted defects of the oracle's forward pass and loss: what no family is right with."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from aprender.falsify.probe import Defects
from aprender.transformer.oracle import PADDING, Oracle, attention, layer, operators, parameters, rope
from aprender.transformer.oracle.attention import Places
from aprender.transformer.oracle.batch import Batch
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


def _norming(system: OracleUnderContract, norm: Any) -> Planting:
    return wrong(system, operators, "rms_norm", lambda right: lambda x, gain, eps: norm(right, x, gain, eps))


@DEFECTS.plant("rms_norm_eps_not_from_config")
def rms_norm_eps_not_from_config(system: OracleUnderContract) -> Planting:
    """1e-6 whatever the configuration says."""
    return _norming(system, lambda right, x, gain, eps: right(x, gain, 1e-6))


@DEFECTS.plant("rms_norm_eps_outside_root")
def rms_norm_eps_outside_root(system: OracleUnderContract) -> Planting:
    """``x / (sqrt(mean(x^2)) + eps)``."""
    return _norming(system, lambda right, x, gain, eps: x / ((x * x).mean(-1, keepdim=True).sqrt() + eps) * gain)


@DEFECTS.plant("rms_norm_gain_ignored")
def rms_norm_gain_ignored(system: OracleUnderContract) -> Planting:
    """The gain is never multiplied."""
    return _norming(system, lambda right, x, gain, eps: right(x, torch.ones_like(gain), eps))


@DEFECTS.plant("rms_norm_gain_plus_one")
def rms_norm_gain_plus_one(system: OracleUnderContract) -> Planting:
    """Gemma's convention on Llama's weights."""
    return _norming(system, lambda right, x, gain, eps: right(x, gain + 1, eps))


@DEFECTS.plant("rms_norm_mean_subtracted")
def rms_norm_mean_subtracted(system: OracleUnderContract) -> Planting:
    """LayerNorm."""
    return _norming(system, lambda right, x, gain, eps: right(x - x.mean(-1, keepdim=True), gain, eps))


@DEFECTS.plant("rms_norm_divides_by_n_minus_one")
def rms_norm_divides_by_n_minus_one(system: OracleUnderContract) -> Planting:
    """The unbiased variance's divisor."""
    return _norming(system, lambda right, x, gain, eps: right(x, gain, eps) * (1 - 1 / x.shape[-1]) ** 0.5)


@DEFECTS.plant("final_norm_missing")
def final_norm_missing(system: OracleUnderContract) -> Planting:
    """The head reads the residual stream as it is."""
    return wrong(system, Oracle, "_normed", lambda _: lambda oracle, x_BTD: x_BTD)


@DEFECTS.plant("gelu_for_silu")
def gelu_for_silu(system: OracleUnderContract) -> Planting:
    """The other smooth gate."""
    return wrong(system, operators, "swiglu", lambda _: lambda gate_BTF, up_BTF: functional.gelu(gate_BTF) * up_BTF)


@DEFECTS.plant("gate_and_up_swapped")
def gate_and_up_swapped(system: OracleUnderContract) -> Planting:
    """The wrong branch goes through the sigmoid."""
    return wrong(system, operators, "swiglu", lambda right: lambda gate_BTF, up_BTF: right(up_BTF, gate_BTF))


def _bias_times(system: OracleUnderContract, kinds: str, times: float) -> Planting:
    """The biases of ``kinds`` added ``times`` times."""

    def biased(right: Any) -> Any:
        def heads(weights: Any, setting: Any, kind: str, normed_BTD: Tensor) -> Any:
            heads_BTHC = right(weights, setting, kind, normed_BTD)
            if kind not in kinds or not setting.config.qkv_bias:
                return heads_BTHC
            return heads_BTHC + (times - 1) * weights[f"self_attn.{kind}_proj.bias"].view(heads_BTHC.shape[2:])

        return heads

    return wrong(system, layer, "heads", biased)


@DEFECTS.plant("q_bias_dropped")
def q_bias_dropped(system: OracleUnderContract) -> Planting:
    """Never added."""
    return _bias_times(system, "q", 0)


@DEFECTS.plant("k_bias_dropped")
def k_bias_dropped(system: OracleUnderContract) -> Planting:
    """Never added."""
    return _bias_times(system, "k", 0)


@DEFECTS.plant("v_bias_dropped")
def v_bias_dropped(system: OracleUnderContract) -> Planting:
    """Never added."""
    return _bias_times(system, "v", 0)


@DEFECTS.plant("bias_added_twice")
def bias_added_twice(system: OracleUnderContract) -> Planting:
    """By the projection and again after it."""
    return _bias_times(system, "qkv", 2)


@DEFECTS.plant("k_bias_added_after_rope")
def k_bias_added_after_rope(system: OracleUnderContract) -> Planting:
    """The bias no longer turns with the position."""

    def late(right: Any) -> Any:
        def place(weights: Any, setting: Any, kind: str, heads_BTHC: Tensor) -> Any:
            if kind != "k" or not setting.config.qkv_bias:
                return right(weights, setting, kind, heads_BTHC)
            bias_HC = weights["self_attn.k_proj.bias"].view(heads_BTHC.shape[2:])
            return right(weights, setting, kind, heads_BTHC - bias_HC) + bias_HC

        return place

    return wrong(system, layer, "place", late)


def _layer_output(system: OracleUnderContract, change: Any) -> Planting:
    """``change(weights, trace)`` is what a layer returns instead."""

    def changed(right: Any) -> Any:
        def forward(weights: Any, *arguments: Any) -> Any:
            trace = right(weights, *arguments)
            return replace(trace, out_BTD=change(weights, trace))

        return forward

    return wrong(system, layer, "forward", changed)


@DEFECTS.plant("residual_from_normed_input")
def residual_from_normed_input(system: OracleUnderContract) -> Planting:
    """Blocks add to what their norm returned."""
    return _layer_output(system, lambda weights, trace: trace.out_BTD - trace.x_BTD + trace.normed_BTD)


@DEFECTS.plant("one_layer_skipped")
def one_layer_skipped(system: OracleUnderContract) -> Planting:
    """The middle layer passes its input on."""
    return _layer_output(system, lambda weights, trace: trace.x_BTD if "layers.1." in weights.prefix else trace.out_BTD)


@DEFECTS.plant("residual_stream_in_bfloat16")
def residual_stream_in_bfloat16(system: OracleUnderContract) -> Planting:
    """Rounded after every layer."""
    return _layer_output(system, lambda weights, trace: trace.out_BTD.bfloat16().to(trace.out_BTD.dtype))


@DEFECTS.plant("last_term_of_a_sum_dropped")
def last_term_of_a_sum_dropped(system: OracleUnderContract) -> Planting:
    """A projection's loop over K ends one too early."""

    def short(right: Any) -> Any:
        def linear(x_BTK: Tensor, weight_NK: Tensor, *more: Any) -> Any:
            return right(x_BTK[..., :-1], weight_NK[:, :-1], *more)

        return linear

    return wrong(system, operators, "linear", short)


@DEFECTS.plant("token_ids_off_by_one")
def token_ids_off_by_one(system: OracleUnderContract) -> Planting:
    """Each token gets its neighbour's embedding."""
    return wrong(
        system,
        parameters.Parameters,
        "rows",
        lambda right: lambda self, name, rows: right(self, name, (rows - 1).clamp(min=0)),
    )


@DEFECTS.plant("embedding_times_sqrt_hidden")
def embedding_times_sqrt_hidden(system: OracleUnderContract) -> Planting:
    """Gemma's convention on Llama's weights."""

    def scaled(right: Any) -> Any:
        def rows(self: Any, name: str, rows_BT: Tensor) -> Any:
            x_BTD = right(self, name, rows_BT)
            return x_BTD * math.sqrt(x_BTD.shape[-1])

        return rows

    return wrong(system, parameters.Parameters, "rows", scaled)


@DEFECTS.plant("tie_broken")
def tie_broken(system: OracleUnderContract) -> Planting:
    """The head of a tied model has a table of its own, not the embedding; an untied one is left alone."""

    def other_table(right: Any) -> Any:
        def item(self: Any, name: str) -> Any:
            tensor = right(self, name)
            return tensor.roll(1, 0) if self.prefix + name == parameters.EMBEDDING else tensor

        return item

    return wrong(system, parameters.Parameters, "__getitem__", other_table)


@DEFECTS.plant("head_always_tied")
def head_always_tied(system: OracleUnderContract) -> Planting:
    """The embedding makes the logits, whatever the configuration says."""
    return wrong(system, Oracle, "head_name", lambda _: property(lambda oracle: parameters.EMBEDDING))


@DEFECTS.plant("targets_across_documents_counted")
def targets_across_documents_counted(system: OracleUnderContract) -> Planting:
    """The last token of a document is asked for the first one of the next."""

    def counted(batch: Batch) -> tuple[Tensor, Tensor]:
        return batch.tokens_BT[:, 1:], batch.documents_BT[:, 1:] != PADDING

    return wrong(system, Batch, "targets", lambda _: counted)


@DEFECTS.plant("targets_into_padding_counted")
def targets_into_padding_counted(system: OracleUnderContract) -> Planting:
    """Padding is predicted, and learned."""

    def counted(batch: Batch) -> tuple[Tensor, Tensor]:
        here_BT, next_BT = batch.documents_BT[:, :-1], batch.documents_BT[:, 1:]
        return batch.tokens_BT[:, 1:], (here_BT == next_BT) | (next_BT == PADDING)

    return wrong(system, Batch, "targets", lambda _: counted)


@DEFECTS.plant("targets_not_shifted")
def targets_not_shifted(system: OracleUnderContract) -> Planting:
    """Each token is asked for itself."""

    def own(right: Any) -> Any:
        return lambda batch: (batch.tokens_BT[:, :-1], right(batch)[1])

    return wrong(system, Batch, "targets", own)


@DEFECTS.plant("loss_is_a_mean_of_row_means")
def loss_is_a_mean_of_row_means(system: OracleUnderContract) -> Planting:
    """Short rows weigh as much as long ones."""
    return wrong(system, Oracle, "loss", lambda _: lambda oracle, batch: oracle.token_losses(batch).nanmean(-1).mean())


@DEFECTS.plant("loss_in_bits")
def loss_in_bits(system: OracleUnderContract) -> Planting:
    """log2 for ln: the published baseline's mistake."""
    return wrong(system, operators, "cross_entropy", lambda right: lambda z, targets: right(z, targets) / math.log(2))

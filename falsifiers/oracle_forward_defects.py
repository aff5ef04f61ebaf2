"""Planted defects of the oracle's forward pass outside attention, and of its loss."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from aprender.falsify.probe import Defects
from aprender.transformer.oracle import PADDING, Oracle, layer, operators, parameters
from aprender.transformer.oracle.batch import Batch
from falsifiers.oracle_planting import Planting, wrong
from falsifiers.oracle_system import OracleUnderContract

DEFECTS = Defects()


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

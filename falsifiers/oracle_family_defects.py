"""Planted defects of what single families add: scaled RoPE, windows, QK-norm; and fields that are not read."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.config import LinearScaling, Llama3Scaling, TransformerConfig, YarnScaling
from aprender.transformer.oracle import Oracle, attention, layer, operators, parameters, rope
from falsifiers import oracle_fields
from falsifiers.oracle_planting import Planting, wrong
from falsifiers.oracle_system import OracleUnderContract

DEFECTS = Defects()


def _scaling(system: OracleUnderContract, kind: type, change: Any) -> Planting:
    """Frequencies of models scaled by ``kind`` come from ``change(scaling)`` instead."""

    def changed(right: Any) -> Any:
        def frequencies(head_dim: int, theta: float, scaling: Any) -> Any:
            return right(head_dim, theta, change(scaling) if isinstance(scaling, kind) else scaling)

        return frequencies

    return wrong(system, rope, "frequencies", changed)


@DEFECTS.plant("llama3_scaling_ignored")
def llama3_scaling_ignored(system: OracleUnderContract) -> Planting:
    """Llama 3.1 read as Llama 3."""
    return _scaling(system, Llama3Scaling, lambda scaling: None)


@DEFECTS.plant("llama3_without_interpolation")
def llama3_without_interpolation(system: OracleUnderContract) -> Planting:
    """Every frequency is kept or divided, none is in between."""
    return wrong(system, rope, "llama3_kept", lambda right: lambda *arguments: right(*arguments).round())


@DEFECTS.plant("linear_scaling_ignored")
def linear_scaling_ignored(system: OracleUnderContract) -> Planting:
    """Positions are not stretched."""
    return _scaling(system, LinearScaling, lambda scaling: None)


@DEFECTS.plant("yarn_scaling_ignored")
def yarn_scaling_ignored(system: OracleUnderContract) -> Planting:
    """Only YaRN's attention factor is left."""
    return _scaling(system, YarnScaling, lambda scaling: None)


@DEFECTS.plant("yarn_is_linear")
def yarn_is_linear(system: OracleUnderContract) -> Planting:
    """All frequencies are divided, high ones too."""
    return _scaling(system, YarnScaling, lambda scaling: LinearScaling(scaling.factor))


@DEFECTS.plant("yarn_ramp_end_not_from_truncate")
def yarn_ramp_end_not_from_truncate(system: OracleUnderContract) -> Planting:
    """The ramp ends between pairs where the configuration wants whole numbers, and the other way round."""
    return _scaling(system, YarnScaling, lambda scaling: replace(scaling, truncate=not scaling.truncate))


@DEFECTS.plant("yarn_attention_factor_ignored")
def yarn_attention_factor_ignored(system: OracleUnderContract) -> Planting:
    """The tables have amplitude 1."""
    return wrong(system, rope, "amplitude", lambda _: lambda scaling: 1.0)


@DEFECTS.plant("yarn_attention_factor_not_from_config")
def yarn_attention_factor_not_from_config(system: OracleUnderContract) -> Planting:
    """The paper's recommendation, whatever the configuration says."""

    def recommended(scaling: Any) -> float:
        return 0.1 * math.log(scaling.factor) + 1 if isinstance(scaling, YarnScaling) else 1.0

    return wrong(system, rope, "amplitude", lambda _: recommended)


def _windowed(system: OracleUnderContract, change: Any) -> Planting:
    return wrong(
        system, attention, "allowed_pairs", lambda right: lambda queries, keys, w: right(queries, keys, change(w))
    )


@DEFECTS.plant("window_ignored")
def window_ignored(system: OracleUnderContract) -> Planting:
    """Every query sees all before it."""
    return _windowed(system, lambda window: None)


@DEFECTS.plant("window_one_too_wide")
def window_one_too_wide(system: OracleUnderContract) -> Planting:
    """The query's own position is not counted."""
    return _windowed(system, lambda window: window and window + 1)


@DEFECTS.plant("window_one_too_narrow")
def window_one_too_narrow(system: OracleUnderContract) -> Planting:
    """The last position of the window is lost."""
    return _windowed(system, lambda window: window and window - 1)


@DEFECTS.plant("window_on_every_layer")
def window_on_every_layer(system: OracleUnderContract) -> Planting:
    """Layers that see everything have a window as well."""
    return _windowed(system, lambda window: window or 53)


def _placing(system: OracleUnderContract, place: Any) -> Planting:
    """``place(right, weights, setting, kind, heads)`` in models with QK-norm."""

    def changed(right: Any) -> Any:
        def placed(weights: Any, setting: Any, kind: str, heads_BTHC: Tensor) -> Any:
            wanted = place if setting.config.qk_norm else lambda right, *arguments: right(*arguments)
            return wanted(right, weights, setting, kind, heads_BTHC)

        return placed

    return wrong(system, layer, "place", changed)


@DEFECTS.plant("qk_norm_missing")
def qk_norm_missing(system: OracleUnderContract) -> Planting:
    """Qwen3 read as Llama."""
    return _placing(
        system, lambda right, weights, setting, kind, heads: rope.rotate(heads, setting.cos_BTR, setting.sin_BTR)
    )


@DEFECTS.plant("qk_norm_after_rope")
def qk_norm_after_rope(system: OracleUnderContract) -> Planting:
    """Rotated first, normed then."""

    def place(right: Any, weights: Any, setting: Any, kind: str, heads_BTHC: Tensor) -> Any:
        rotated_BTHC = rope.rotate(heads_BTHC, setting.cos_BTR, setting.sin_BTR)
        return layer.norm(weights, setting, f"self_attn.{kind}_norm", rotated_BTHC)

    return _placing(system, place)


@DEFECTS.plant("qk_norm_over_all_heads")
def qk_norm_over_all_heads(system: OracleUnderContract) -> Planting:
    """One root mean square for all heads together."""

    def place(right: Any, weights: Any, setting: Any, kind: str, heads_BTHC: Tensor) -> Any:
        gain_C = weights[f"self_attn.{kind}_norm.weight"].repeat(heads_BTHC.shape[2])
        flat_BTN = operators.rms_norm(heads_BTHC.flatten(-2), gain_C, setting.config.rms_norm_eps)
        return rope.rotate(flat_BTN.view_as(heads_BTHC), setting.cos_BTR, setting.sin_BTR)

    return _placing(system, place)


def _hard_coded(system: OracleUnderContract, kind: type, **constants: Any) -> Planting:
    return _scaling(system, kind, lambda scaling: replace(scaling, **constants))


@DEFECTS.plant("llama3_factors_hard_coded")
def llama3_factors_hard_coded(system: OracleUnderContract) -> Planting:
    """Llama 3.1's own low and high frequency factors, whatever the configuration says."""
    return _hard_coded(system, Llama3Scaling, low_freq_factor=1.0, high_freq_factor=4.0)


@DEFECTS.plant("llama3_context_hard_coded")
def llama3_context_hard_coded(system: OracleUnderContract) -> Planting:
    """8192 positions, whatever the configuration says."""
    return _hard_coded(system, Llama3Scaling, original_max_position_embeddings=8192)


@DEFECTS.plant("yarn_betas_hard_coded")
def yarn_betas_hard_coded(system: OracleUnderContract) -> Planting:
    """The paper's 32 and 1, whatever the configuration says."""
    return _hard_coded(system, YarnScaling, beta_fast=32.0, beta_slow=1.0)


@DEFECTS.plant("linear_factor_hard_coded")
def linear_factor_hard_coded(system: OracleUnderContract) -> Planting:
    """Four, whatever the configuration says."""
    return _hard_coded(system, LinearScaling, factor=4.0)


@dataclass(frozen=True, slots=True)
class _WithSoftcap(TransformerConfig):
    final_logit_softcapping: float


@DEFECTS.plant("a_field_nobody_perturbs")
def a_field_nobody_perturbs(system: OracleUnderContract) -> Planting:
    """The configuration has got a field that nobody made sure is read."""
    return wrong(system, oracle_fields, "TransformerConfig", lambda _: _WithSoftcap)


@DEFECTS.plant("biases_added_wherever_there_are_some")
def biases_added_wherever_there_are_some(system: OracleUnderContract) -> Planting:
    """The weights are asked, not the configuration."""

    def asking_weights(right: Any) -> Any:
        def heads(weights: Any, setting: Any, kind: str, normed_BTD: Tensor) -> Any:
            present = f"{weights.prefix}self_attn.{kind}_proj.bias" in weights.tensors
            config = replace(setting.config, qkv_bias=present)
            return right(weights, replace(setting, config=config), kind, normed_BTD)

        return heads

    return wrong(system, layer, "heads", asking_weights)


@DEFECTS.plant("qk_norm_wherever_there_are_gains")
def qk_norm_wherever_there_are_gains(system: OracleUnderContract) -> Planting:
    """The weights are asked, not the configuration."""

    def asking_weights(right: Any) -> Any:
        def place(weights: Any, setting: Any, kind: str, heads_BTHC: Tensor) -> Any:
            present = f"{weights.prefix}self_attn.{kind}_norm.weight" in weights.tensors
            config = replace(setting.config, qk_norm=present)
            return right(weights, replace(setting, config=config), kind, heads_BTHC)

        return place

    return wrong(system, layer, "place", asking_weights)


@DEFECTS.plant("head_untied_wherever_there_is_one")
def head_untied_wherever_there_is_one(system: OracleUnderContract) -> Planting:
    """The weights are asked, not the configuration."""

    def asked(oracle: Oracle) -> str:
        return parameters.HEAD if parameters.HEAD in oracle.parameters.tensors else parameters.EMBEDDING

    return wrong(system, Oracle, "head_name", lambda _: property(asked))

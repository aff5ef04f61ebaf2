"""Planted defects of the CUDA path's RoPE and norms: forward alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.oracle import rope
from falsifiers.cuda_operator_cases import POSITIONS, THETA
from falsifiers.cuda_operator_planting import NORMS, ROPE, Planting, computing, in_bfloat16
from falsifiers.cuda_operator_system import OperatorsUnderContract

DEFECTS = Defects()


def _tabled(
    system: OperatorsUnderContract, angle: Callable[[Tensor, Tensor], Tensor], theta: float = THETA
) -> Planting:
    """The right kernel with tables of ``angle(positions [T, 1], frequencies [R])``, both float64."""

    def compute(right: Any, x: Tensor, positions: Tensor) -> Any:
        frequencies = rope.frequencies(2 * right.cos.shape[1], theta, None)
        angles = angle(torch.arange(POSITIONS).double()[:, None], frequencies)
        cos, sin = (table.float().to(x.device).contiguous() for table in (angles.cos(), angles.sin()))
        return replace(right, cos=cos, sin=sin)(x, positions)

    return computing(system, ROPE, compute)


@DEFECTS.plant("rope_theta_not_from_config")
def rope_theta_not_from_config(system: OperatorsUnderContract) -> Planting:
    """1e4 whatever the configuration says."""
    return _tabled(system, torch.mul, 1e4)


@DEFECTS.plant("rope_sign_flipped")
def rope_sign_flipped(system: OperatorsUnderContract) -> Planting:
    """Rotated the other way."""
    return _tabled(system, lambda positions, frequencies: -positions * frequencies)


@DEFECTS.plant("rope_positions_clamped")
def rope_positions_clamped(system: OperatorsUnderContract) -> Planting:
    """As at position 63 from there on."""
    return _tabled(system, lambda positions, frequencies: positions.clamp(max=63) * frequencies)


@DEFECTS.plant("rope_position_off_by_one")
def rope_position_off_by_one(system: OperatorsUnderContract) -> Planting:
    """Counted from 1."""
    return _tabled(system, lambda positions, frequencies: (positions + 1) * frequencies)


@DEFECTS.plant("rope_positions_in_bfloat16")
def rope_positions_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """Whole numbers end at 256."""
    return _tabled(system, lambda positions, frequencies: in_bfloat16(positions) * frequencies)


@DEFECTS.plant("rope_frequencies_in_bfloat16")
def rope_frequencies_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """Far positions turn by another angle."""
    return _tabled(system, lambda positions, frequencies: positions * in_bfloat16(frequencies))


@DEFECTS.plant("rope_tables_in_bfloat16")
def rope_tables_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """Cos and sin are kept in bfloat16."""

    def compute(right: Any, *inputs: Tensor) -> Any:
        return replace(right, cos=in_bfloat16(right.cos), sin=in_bfloat16(right.sin))(*inputs)

    return computing(system, ROPE, compute)


@DEFECTS.plant("rope_missing")
def rope_missing(system: OperatorsUnderContract) -> Planting:
    """Nothing is rotated."""
    return computing(system, ROPE, lambda right, x, positions: x.clone())


@DEFECTS.plant("rope_missing_on_k")
def rope_missing_on_k(system: OperatorsUnderContract) -> Planting:
    """Only queries are rotated."""
    return computing(system, ("rope_k",), lambda right, x, positions: x.clone())


@DEFECTS.plant("k_position_off_by_one")
def k_position_off_by_one(system: OperatorsUnderContract) -> Planting:
    """Keys alone are counted from 1."""
    return computing(system, ("rope_k",), lambda right, x, positions: right(x, positions + 1))


@DEFECTS.plant("rope_interleaved_pairs")
def rope_interleaved_pairs(system: OperatorsUnderContract) -> Planting:
    """Neighbours are pairs."""

    def compute(right: Any, x: Tensor, positions: Tensor) -> Tensor:
        y = right(torch.cat((x[..., 0::2], x[..., 1::2]), -1), positions)
        return torch.stack(y.chunk(2, -1), -1).flatten(-2)

    return computing(system, ROPE, compute)


@DEFECTS.plant("rope_on_the_first_head_only")
def rope_on_the_first_head_only(system: OperatorsUnderContract) -> Planting:
    """A grid without heads."""
    return computing(
        system, ("rope_q",), lambda right, x, positions: torch.cat((right(x, positions)[:, :, :1], x[:, :, 1:]), 2)
    )


def _norming(
    system: OperatorsUnderContract, norm: Callable[[Tensor, Tensor, float], Tensor], names: tuple[str, ...] = NORMS
) -> Planting:
    """Each norm computes ``norm(x, gain, eps)`` in float32; the fused one of its sum."""

    def compute(right: Any, x: Tensor, *branch: Tensor) -> Any:
        h = right(x, *branch)[0] if branch else x
        y = norm(h.float(), right.weight.float(), right.eps).to(x.dtype)
        return (h, y) if branch else y

    return computing(system, names, compute)


def _normed(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    return gain * x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()


@DEFECTS.plant("rms_norm_eps_times_ten")
def rms_norm_eps_times_ten(system: OperatorsUnderContract) -> Planting:
    """Another family's eps."""
    return _norming(system, lambda x, gain, eps: _normed(x, gain, 10 * eps))


@DEFECTS.plant("rms_norm_eps_hard_coded_in_the_fused_one")
def rms_norm_eps_hard_coded_in_the_fused_one(system: OperatorsUnderContract) -> Planting:
    """1e-5, in the fused variant alone."""
    return _norming(system, lambda x, gain, eps: _normed(x, gain, 1e-5), ("add_norm",))


@DEFECTS.plant("rms_norm_eps_missing")
def rms_norm_eps_missing(system: OperatorsUnderContract) -> Planting:
    """No eps at all."""
    return _norming(system, lambda x, gain, eps: _normed(x, gain, 0.0))


@DEFECTS.plant("rms_norm_eps_outside_root")
def rms_norm_eps_outside_root(system: OperatorsUnderContract) -> Planting:
    """``x / (sqrt(mean(x^2)) + eps)``."""
    return _norming(system, lambda x, gain, eps: gain * x / (x.square().mean(-1, keepdim=True).sqrt() + eps))


@DEFECTS.plant("rms_norm_gain_ignored")
def rms_norm_gain_ignored(system: OperatorsUnderContract) -> Planting:
    """The gain is never multiplied."""
    return _norming(system, lambda x, gain, eps: _normed(x, torch.ones_like(gain), eps))


@DEFECTS.plant("rms_norm_gain_plus_one")
def rms_norm_gain_plus_one(system: OperatorsUnderContract) -> Planting:
    """Gemma's convention on Llama's weights."""
    return _norming(system, lambda x, gain, eps: _normed(x, gain + 1, eps))


@DEFECTS.plant("rms_norm_mean_subtracted")
def rms_norm_mean_subtracted(system: OperatorsUnderContract) -> Planting:
    """LayerNorm."""
    return _norming(system, lambda x, gain, eps: _normed(x - x.mean(-1, keepdim=True), gain, eps))


@DEFECTS.plant("rms_norm_divides_by_n_minus_one")
def rms_norm_divides_by_n_minus_one(system: OperatorsUnderContract) -> Planting:
    """The unbiased variance's divisor."""
    return _norming(system, lambda x, gain, eps: _normed(x, gain, eps) * (1 - 1 / x.shape[-1]) ** 0.5)


@DEFECTS.plant("rms_norm_statistics_in_bfloat16")
def rms_norm_statistics_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """The mean square is rounded to bfloat16."""
    return _norming(
        system, lambda x, gain, eps: gain * x * (in_bfloat16(x.square().mean(-1, keepdim=True)) + eps).rsqrt()
    )


@DEFECTS.plant("qk_norm_missing")
def qk_norm_missing(system: OperatorsUnderContract) -> Planting:
    """Heads go on as they are."""
    return computing(system, ("k_norm",), lambda right, x: x.clone())


@DEFECTS.plant("fused_norm_returns_its_input_as_the_sum")
def fused_norm_returns_its_input_as_the_sum(system: OperatorsUnderContract) -> Planting:
    """The residual stream loses the branch; the normed output is right."""
    return computing(system, ("add_norm",), lambda right, x, branch: (x.clone(), right(x, branch)[1]))

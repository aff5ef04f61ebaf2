"""Rotary positions: frequencies (plain, linear, llama3, YaRN), tables, the rotation and its VJP.

Every frequency and angle is computed in float64 on the CPU; only the finished tables are cast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aprender.transformer.config import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling


def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> Tensor:
    """The angle per position of each rotation pair, in radians: float64, shape [R].

    Unscaled ``theta^(-2r / head_dim)``: Su et al. 2021 (arXiv 2104.09864), section 3.2.2, with the base 10000 replaced
    by ``theta``.
    """
    plain_R = theta ** (-2.0 * torch.arange(head_dim // 2, dtype=torch.float64) / head_dim)
    match scaling:
        case None:
            return plain_R
        case LinearScaling():
            return plain_R / scaling.factor
        case Llama3Scaling():
            return blend(plain_R, scaling.factor, llama3_kept(plain_R, scaling))
        case YarnScaling():
            return blend(plain_R, scaling.factor, yarn_kept(head_dim, theta, scaling))


def blend(plain_R: Tensor, factor: float, kept_R: Tensor) -> Tensor:
    """Keep the share ``kept_R`` of each frequency, divide the rest by ``factor``."""
    return kept_R * plain_R + (1 - kept_R) * plain_R / factor


def llama3_kept(plain_R: Tensor, scaling: Llama3Scaling) -> Tensor:
    """How much of each frequency Llama 3.1 keeps, by the number of turns over the original context: shape [R].

    All of it from ``high_freq_factor`` turns on, nothing up to ``low_freq_factor``, linear between. Llama 3.1's
    reference code (meta-llama/llama-models, models/llama3/model.py, apply_scaling).
    """
    turns_R = scaling.original_max_position_embeddings * plain_R / (2 * math.pi)
    kept_R = (turns_R - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return kept_R.clamp(0, 1)


def yarn_kept(head_dim: int, theta: float, scaling: YarnScaling) -> Tensor:
    """How much of each frequency YaRN keeps: 1 below the pair that turns ``beta_fast`` times, 0 above ``beta_slow``'s.

    Peng et al. 2023 (arXiv 2309.00071), section 3.2, with the ramp linear in the pair's index as in the authors'
    code (jquesnelle/yarn), which checkpoints assume; its ends are whole numbers where ``truncate`` says so. Shape [R].
    """

    def pair_that_turns(times: float) -> float:
        # theta^(-2r / head_dim) * context = 2 pi times, solved for r
        context = scaling.original_max_position_embeddings
        return head_dim * math.log(context / (2 * math.pi * times)) / (2 * math.log(theta))

    first, last = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    if first == last:
        last += 0.001  # a step, as in the authors' code
    index_R = torch.arange(head_dim // 2, dtype=torch.float64)
    return 1 - ((index_R - first) / (last - first)).clamp(0, 1)


def amplitude(scaling: RopeScaling | None) -> float:
    """What cos and sin are multiplied by: YaRN's ``attention_factor``, else 1. arXiv 2309.00071, section 3.4."""
    return scaling.attention_factor if isinstance(scaling, YarnScaling) else 1.0


def tables(
    positions_BT: Tensor, head_dim: int, theta: float, scaling: RopeScaling | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """cos_BTR and sin_BTR of ``position * frequency``, times the amplitude, on the device of ``positions_BT``."""
    frequency_R = frequencies(head_dim, theta, scaling)
    angle_BTR = positions_BT.cpu().double()[..., None] * frequency_R
    cos_BTR, sin_BTR = torch.cos(angle_BTR) * amplitude(scaling), torch.sin(angle_BTR) * amplitude(scaling)
    return cos_BTR.to(positions_BT.device, dtype), sin_BTR.to(positions_BT.device, dtype)


def rotate(x_BTHC: Tensor, cos_BTR: Tensor, sin_BTR: Tensor) -> Tensor:
    """Rotate the pair (x[r], x[r + C/2]) of every head by the angle of its position: ``(a + ib) e^(i angle)``.

    Half-split pairs as in GPT-NeoX, which checkpoints under Hugging Face's names assume; the paper (arXiv
    2104.09864, eq. 34) pairs neighbours, which is the same up to an order of channels.
    """
    R = x_BTHC.shape[-1] // 2
    a_BTHR, b_BTHR = x_BTHC[..., :R], x_BTHC[..., R:]
    cos_BT1R, sin_BT1R = cos_BTR[:, :, None], sin_BTR[:, :, None]
    return torch.cat((a_BTHR * cos_BT1R - b_BTHR * sin_BT1R, a_BTHR * sin_BT1R + b_BTHR * cos_BT1R), -1)


def rotate_vjp(dy_BTHC: Tensor, cos_BTR: Tensor, sin_BTR: Tensor) -> Tensor:
    """The transpose of a rotation turns back: ``dx = rotate(dy)`` by the negative angle (times the amplitude)."""
    R = dy_BTHC.shape[-1] // 2
    da_BTHR, db_BTHR = dy_BTHC[..., :R], dy_BTHC[..., R:]
    cos_BT1R, sin_BT1R = cos_BTR[:, :, None], sin_BTR[:, :, None]
    return torch.cat((da_BTHR * cos_BT1R + db_BTHR * sin_BT1R, db_BTHR * cos_BT1R - da_BTHR * sin_BT1R), -1)

"""The rotary tables: how far each pair of channels turns at each position, plain or scaled to a longer context.

Formula (Su et al. 2021, arXiv 2104.09864, section 3.2.2): pair r of head_dim/2 turns by ``theta^(-2r/head_dim)``
radians per position. Scaling slows pairs down: all of them (Chen et al. 2023, arXiv 2306.15595), or only those whose
wavelength is long beside the context that the model was trained on (Llama 3.1; YaRN, Peng et al. 2023, arXiv
2309.00071).

Rounding plan: frequencies, angles, cos and sin in float64 on the CPU; the finished tables are rounded once, to float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aprender.transformer.config import (
    LinearScaling,
    Llama3Scaling,
    RopeScaling,
    TransformerConfig,
    YarnScaling,
)


def rope_tables(config: TransformerConfig, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tabulate cos and sin, both [positions, R], float32, on ``device``; YaRN's attention factor is in both."""
    angle_TR = torch.outer(torch.arange(positions, dtype=torch.float64), radians_per_position(config))
    amplitude = config.rope_scaling.attention_factor if isinstance(config.rope_scaling, YarnScaling) else 1.0
    return tuple((amplitude * table).to(device, torch.float32) for table in (angle_TR.cos(), angle_TR.sin()))  # type: ignore[return-value]


def radians_per_position(config: TransformerConfig) -> Tensor:
    """Compute the frequency of each pair of channels, float64, [R]."""
    exponent_R = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    radians_R = 1.0 / config.rope_theta**exponent_R
    scaling = config.rope_scaling
    if scaling is None:
        return radians_R
    slowed_R = _share_slowed(radians_R, config, scaling)
    return torch.lerp(radians_R, radians_R / scaling.factor, slowed_R)


def _share_slowed(radians_R: Tensor, config: TransformerConfig, scaling: RopeScaling) -> Tensor:
    """0 where a pair keeps its frequency, 1 where it is divided by the factor, between them a straight line."""
    match scaling:
        case LinearScaling():
            return torch.ones_like(radians_R)
        case Llama3Scaling():
            # Llama 3.1's reference code, apply_scaling: by how many wavelengths fit into the original context
            wavelength_R = 2 * math.pi / radians_R
            fitting_R = scaling.original_max_position_embeddings / wavelength_R
            kept_R = (fitting_R - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
            return 1 - kept_R.clamp(0, 1)
        case YarnScaling():
            # The authors' code (jquesnelle/yarn): a ramp over the pairs' indices, between two numbers of turns
            begin, end = (_pair_turning(turns, config, scaling) for turns in (scaling.beta_fast, scaling.beta_slow))
            if scaling.truncate:
                begin, end = math.floor(begin), math.ceil(end)
            begin, end = max(begin, 0), min(end, config.head_dim - 1)
            width = end - begin or 0.001
            return ((torch.arange(len(radians_R), dtype=torch.float64) - begin) / width).clamp(0, 1)


def _pair_turning(turns: float, config: TransformerConfig, scaling: YarnScaling) -> float:
    """The index, not whole, of the pair that makes ``turns`` turns over the original context."""
    wavelength = scaling.original_max_position_embeddings / turns
    return config.head_dim * math.log(wavelength / (2 * math.pi)) / (2 * math.log(config.rope_theta))

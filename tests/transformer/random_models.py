"""Tiny random models on which a mistake shows: uneven shapes, large biases, gains unlike 1, default values nowhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aprender.transformer.config import TransformerConfig
from aprender.transformer.oracle import Batch, Oracle

Weights = dict[str, Tensor]

_SHARED: dict[str, Any] = {"vocab_size": 211, "intermediate_size": 88, "num_hidden_layers": 3}
CONFIGS = {
    "qwen2-7to1-untied": TransformerConfig(
        **_SHARED,
        family="qwen2",
        hidden_size=60,
        num_attention_heads=7,
        num_key_value_heads=1,
        head_dim=12,
        rms_norm_eps=3e-4,
        rope_theta=70_000.0,
        rope_scaling=None,
        windows=(None,) * 3,
        tie_word_embeddings=False,
        qkv_bias=True,
        qk_norm=False,
    ),
    "qwen2-6to2-tied": TransformerConfig(
        **_SHARED,
        family="qwen2",
        hidden_size=52,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=18,
        rms_norm_eps=2e-3,
        rope_theta=3_000.0,
        rope_scaling=None,
        windows=(None,) * 3,
        tie_word_embeddings=True,
        qkv_bias=True,
        qk_norm=False,
    ),
    "llama-6to2-untied": TransformerConfig(
        **_SHARED,
        family="llama",
        hidden_size=48,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=10,
        rms_norm_eps=5e-4,
        rope_theta=200_000.0,
        rope_scaling=None,
        windows=(None,) * 3,
        tie_word_embeddings=False,
        qkv_bias=False,
        qk_norm=False,
    ),
    "llama-7to1-tied": TransformerConfig(
        **_SHARED,
        family="llama",
        hidden_size=77,
        num_attention_heads=7,
        num_key_value_heads=1,
        head_dim=14,
        rms_norm_eps=1e-3,
        rope_theta=900.0,
        rope_scaling=None,
        windows=(None,) * 3,
        tie_word_embeddings=True,
        qkv_bias=False,
        qk_norm=False,
    ),
}


def random_weights(config: TransformerConfig, seed: int = 7) -> Weights:
    """Draw gains 1 +- 0.3, biases of 0.5, matrices of 1.5 / sqrt(fan-in)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, shape: tuple[int, ...]) -> Tensor:
        noise = torch.randn(shape, generator=generator)
        if name.endswith("norm.weight"):
            return 1 + 0.3 * noise
        return noise * (0.5 if name.endswith(".bias") else 1.5 / shape[-1] ** 0.5)

    return {name: draw(name, shape) for name, shape in config.tensor_shapes().items()}


def random_tokens(config: TransformerConfig, B: int = 2, T: int = 61) -> Tensor:
    """Draw tokens_BT, int64, from the whole vocabulary."""
    return torch.randint(config.vocab_size, (B, T), generator=torch.Generator().manual_seed(11))


def float32_envelope(config: TransformerConfig, weights: Weights, tokens_BT: Tensor, method: str) -> float:
    """Twice the largest error of the float32 oracle over its legal orders of summation.

    Rounding, not a guess, sets what the CUDA path may differ by: an implementation without a defect is one more
    order of summation of the same float32 products, its error has the same distribution as those two, and its
    maximum over as many elements stays within a factor of two of theirs.
    """
    batch = Batch.of(tokens_BT)
    exact = getattr(Oracle(config, weights), method)(batch)
    plans = [Oracle(config, weights, torch.float32, k_splits=splits) for splits in (1, 4)]
    return 2 * max(float((getattr(plan, method)(batch) - exact).abs().max()) for plan in plans)

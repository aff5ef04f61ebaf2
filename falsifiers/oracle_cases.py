"""Small random models on which a mistake shows, one or more for every family, and what they read.

Uneven shapes, head ratios of 7:1 and 3:1, head_dim unlike hidden/heads, no constant at its usual value, large biases,
gains unlike 1; contexts that scaled RoPE was made for (shorter than the text) and windows shorter than the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from aprender.transformer.config import LinearScaling, Llama3Scaling, TransformerConfig, YarnScaling
from aprender.transformer.oracle import Batch

SEED = 20261124


@dataclass(frozen=True)
class Case:
    """A configuration, and the lengths of the documents in each row of what it reads."""

    name: str
    config: TransformerConfig
    lengths: tuple[tuple[int, ...], ...]

    @cache  # noqa: B019 - a handful of cases, alive as long as the process
    def weights(self) -> dict[str, Tensor]:
        """Gains 1 +- 0.3, biases of 0.5, matrices of 1.5 / sqrt(fan-in), embeddings of 1: float32.

        Each is drawn from a seed of its own name, so that cases with one shape share what they both have.
        """
        return {name: _drawn(name, shape) for name, shape in self.config.tensor_shapes().items()}

    @cache  # noqa: B019
    def documents(self) -> list[Tensor]:
        """Random tokens over the whole vocabulary, document by document."""
        generator = torch.Generator().manual_seed(SEED + 1)
        return [
            torch.randint(self.config.vocab_size, (length,), generator=generator)
            for row in self.lengths
            for length in row
        ]

    def batch(self) -> Batch:
        """The documents packed into rows, shorter rows padded."""
        documents = iter(self.documents())
        return Batch.packed([[next(documents) for _ in row] for row in self.lengths])

    def by_document(self, x_BT: Tensor) -> list[Tensor]:
        """Cut a tensor over the batch [B, T, ...] into one [t, ...] for each document; padding falls away."""
        rows = zip(x_BT, self.lengths, strict=True)
        return [document for x_T, lengths in rows for document in x_T[: sum(lengths)].split(lengths)]


def _drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(SEED + crc32(name.encode())))
    if name.endswith("norm.weight"):
        return 1 + 0.3 * noise
    if name.endswith(".bias"):
        return 0.5 * noise
    return noise if name == "model.embed_tokens.weight" else 1.5 * noise / shape[-1] ** 0.5


def _config(family: str, hidden: int, heads: tuple[int, int, int], **values: Any) -> TransformerConfig:
    """``heads`` are query heads, key/value heads and head_dim."""
    sizes = {"vocab_size": 211, "intermediate_size": 88, "num_hidden_layers": 2, "hidden_size": hidden}
    sizes |= dict(zip(("num_attention_heads", "num_key_value_heads", "head_dim"), heads, strict=True))
    own = {
        "rope_scaling": None,
        "windows": (None,) * 2,
        "qkv_bias": family == "qwen2",
        "qk_norm": family == "qwen3",
    }
    return TransformerConfig(family=family, **(sizes | own | values))


PACKED = ((307,), (151, 97))  # one long document; two in a row, and padding after them
CASES = {
    case.name: case
    for case in (
        Case(
            "qwen2",
            _config("qwen2", 60, (7, 1, 12), rms_norm_eps=3e-4, rope_theta=7e4, tie_word_embeddings=False),
            PACKED,
        ),
        Case(
            "qwen2-tied",
            _config("qwen2", 52, (6, 2, 18), rms_norm_eps=2e-3, rope_theta=3e3, tie_word_embeddings=True),
            ((301,), (83, 200)),
        ),
        Case(
            "llama2",
            _config("llama", 48, (6, 2, 10), rms_norm_eps=5e-4, rope_theta=2e5, tie_word_embeddings=False),
            PACKED,
        ),
        Case(
            "smollm2",
            _config("llama", 54, (9, 3, 8), rms_norm_eps=7e-4, rope_theta=900.0, tie_word_embeddings=True),
            ((303,), (64, 90, 31)),
        ),
        Case(
            "llama3-scaled",
            _config(
                "llama",
                77,
                (7, 1, 16),
                rms_norm_eps=1e-3,
                rope_theta=5e3,
                tie_word_embeddings=True,
                rope_scaling=Llama3Scaling(6.0, 1.25, 3.5, 48),
            ),
            PACKED,
        ),
        Case(
            "llama-linear",
            _config(
                "llama",
                48,
                (6, 2, 10),
                rms_norm_eps=5e-4,
                rope_theta=2e4,
                tie_word_embeddings=False,
                rope_scaling=LinearScaling(2.5),
            ),
            PACKED,
        ),
        Case(
            "qwen2-yarn",
            _config(
                "qwen2",
                60,
                (7, 1, 20),
                rms_norm_eps=3e-4,
                rope_theta=2e3,
                tie_word_embeddings=False,
                rope_scaling=YarnScaling(3.0, 8.0, 0.75, 1.17, True, 100),
            ),
            PACKED,
        ),
        Case(
            "mistral",
            _config(
                "mistral",
                45,
                (6, 2, 12),
                rms_norm_eps=8e-4,
                rope_theta=4e4,
                tie_word_embeddings=False,
                windows=(37,) * 2,
            ),
            PACKED,
        ),
        Case(
            "qwen3",
            _config("qwen3", 45, (6, 2, 14), rms_norm_eps=6e-4, rope_theta=3e5, tie_word_embeddings=True),
            PACKED,
        ),
        Case(
            "qwen3-yarn-windows",
            _config(
                "qwen3",
                50,
                (7, 1, 22),
                rms_norm_eps=2e-3,
                rope_theta=6e3,
                tie_word_embeddings=False,
                rope_scaling=YarnScaling(4.5, 6.0, 0.5, 0.83, False, 80),
                windows=(None, 53),
            ),
            PACKED,
        ),
    )
}

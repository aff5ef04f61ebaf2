"""How defects are planted in the CUDA transformer: stages of the live models replaced, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from typing import Any

from torch import Tensor

from aprender.transformer.cuda.ops import Linear
from aprender.transformer.cuda.stages import get_stage
from falsifiers.projections import QKV, WrongParts
from falsifiers.transformer_system import TransformerUnderContract

Planting = Generator[None]


def stages_wrong(
    system: TransformerUnderContract,
    variants: tuple[str, ...],
    names: tuple[str, ...],
    wrong: Callable[[Any, int], Any],
) -> Planting:
    """Replace stage ``names`` of every layer of ``variants`` by ``wrong(original stage, layer index)``."""
    with ExitStack() as planted:
        for variant in variants:
            model = system.models[variant]
            for index in range(len(model.layers)):
                for name in names:
                    full = f"layers.{index}.{name}"
                    planted.enter_context(system.with_stage(variant, full, wrong(get_stage(model, full), index)))
        yield


def projections_wrong(system: TransformerUnderContract, compute: Callable[[Linear, Tensor], Tensor]) -> Planting:
    """Compute Q, K and V of the biased model otherwise, each by itself."""
    return stages_wrong(system, ("biased",), ("qkv_proj",), lambda original, _: WrongParts(original, QKV, compute))


def everywhere(system: TransformerUnderContract, name: str, wrong: Callable[[Any], Any]) -> Planting:
    return stages_wrong(system, ("biased", "bias_free"), (name,), lambda original, _: wrong(original))

"""How defects are planted in the CUDA transformer: stages of the live models replaced, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aprender.transformer.cuda.ops import Linear
from aprender.transformer.cuda.stages import get_stage
from falsifiers.transformer_system import TransformerUnderContract

QKV = ("q_proj", "k_proj", "v_proj")
Planting = Generator[None]


@dataclass
class WrongLinear:
    """A projection that still exposes ``weight`` and ``bias``, as the built object did, but computes otherwise."""

    original: Linear
    compute: Callable[[Linear, Tensor], Tensor]

    @property
    def weight(self) -> Tensor:
        return self.original.weight

    @property
    def bias(self) -> Tensor | None:
        return self.original.bias

    @bias.setter
    def bias(self, value: Tensor | None) -> None:
        self.original.bias = value

    def __call__(self, x: Tensor) -> Tensor:
        return self.compute(self.original, x)


def bias_of(linear: Linear) -> Tensor:
    return torch.zeros(len(linear.weight), device=linear.weight.device) if linear.bias is None else linear.bias


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
    return stages_wrong(system, ("biased",), QKV, lambda original, _: WrongLinear(original, compute))


def everywhere(system: TransformerUnderContract, name: str, wrong: Callable[[Any], Any]) -> Planting:
    return stages_wrong(system, ("biased", "bias_free"), (name,), lambda original, _: wrong(original))

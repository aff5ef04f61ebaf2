"""The projections inside the fused stage ``qkv_proj``, one at a time: read, changed, or computed otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.transformer.cuda.ops import FusedLinear, Linear

QKV = ("q_proj", "k_proj", "v_proj")


def part(fused: FusedLinear, name: str) -> Linear:
    """One of ``QKV`` alone: its parameters are views of the stage's."""
    return fused.part(QKV.index(name))


def bias_with(fused: FusedLinear, name: str, bias_N: Tensor | float) -> Tensor:
    """A copy of the stage's bias in which that of one projection is another."""
    assert fused.bias is not None  # noqa: S101 - asked of stages that have one
    copy = fused.bias.clone()
    torch.split(copy, list(fused.widths))[QKV.index(name)].copy_(torch.as_tensor(bias_N))
    return copy


@dataclass
class WrongParts:
    """The fused stage, which still exposes its parameters, but computes projections ``names`` otherwise."""

    original: FusedLinear
    names: tuple[str, ...]
    compute: Callable[[Linear, Tensor], Tensor]

    @property
    def weight(self) -> Tensor:
        return self.original.weight

    @property
    def widths(self) -> tuple[int, ...]:
        return self.original.widths

    @property
    def bias(self) -> Tensor | None:
        return self.original.bias

    @bias.setter
    def bias(self, value: Tensor | None) -> None:
        self.original.bias = value

    def part(self, index: int) -> Linear:
        return self.original.part(index)

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        right = zip(QKV, self.original(x), strict=True)
        return tuple(self.compute(part(self.original, name), x) if name in self.names else y for name, y in right)


def bias_of(linear: Linear) -> Tensor:
    """Its bias, or zeros."""
    return torch.zeros(len(linear.weight), device=linear.weight.device) if linear.bias is None else linear.bias

"""A small reference, and candidates (or references) that fail in one way each; builders for ``apr parity``."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Embedding, two projections, a residual, a head: every operator shows on random tokens."""

    def __init__(self, width: int = 24, fails: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.emb = nn.Embedding(50, 16)
        self.up = nn.Linear(16, width)
        self.down = nn.Linear(width, 16)
        self.head = nn.Linear(16, 50)
        self.fails = fails

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.emb(tokens)
        x = x + self.down(nn.functional.silu(self.up(x)))
        if self.fails == "out of memory":
            torch.empty(2**50, dtype=torch.uint8)
        if self.fails == "raises":
            raise RuntimeError("first line\nsecond line")
        out: Tensor = self.head(x)
        return out


class Hungry(nn.Linear):
    """Asks for a petabyte."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.empty(2**50, dtype=torch.uint8)


def right() -> nn.Module:
    return Net()


def wider() -> nn.Module:
    return Net(width=32)


def poisoned() -> nn.Module:
    made = Net()
    made.up.weight.data[1, 2] = float("nan")
    return made


def hungry_stage() -> nn.Module:
    made = Net()
    made.up.__class__ = Hungry
    return made


def hungry_between_stages() -> nn.Module:
    return Net(fails="out of memory")


def raises_between_stages() -> nn.Module:
    return Net(fails="raises")


def hungry_builder() -> nn.Module:
    torch.empty(2**50, dtype=torch.uint8)
    return Net()


def renamed() -> nn.Module:
    made = Net()
    made.upp = made.up
    del made.up
    return made

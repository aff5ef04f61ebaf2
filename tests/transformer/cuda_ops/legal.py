"""How far honest rounding may go: measured from plain torch in the stage's own rounding plan, never typed in.

``Arithmetic`` is float32 with results stored in a dtype, and one order of summation or another. Each test writes its
formula once in it, and once in float64. A stage may be twice as far from float64, in each block of rows, as the
farthest of three orders: it is one more order of the same sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

_BLOCK = 512  # elements, at least, whose errors are taken together


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Float32 arithmetic that stores results as ``storage``; ``splits`` sums apart, added up in descending order."""

    storage: torch.dtype
    splits: int

    def store(self, x: Tensor) -> Tensor:
        return x.to(self.storage).float()

    def sum(self, x: Tensor, axis: int = -1, keepdim: bool = False) -> Tensor:
        parts = [part.sum(axis, keepdim=keepdim) for part in x.chunk(self.splits, axis)]
        total = parts[-1]
        for part in parts[-2::-1]:
            total = total + part
        return total

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        K = a.shape[-1]
        edges = [K * i // self.splits for i in range(self.splits + 1)]
        total: Tensor | None = None
        for start, stop in reversed(list(pairwise(edges))):
            part = a[..., start:stop] @ b[..., start:stop, :]
            total = part if total is None else total + part
        assert total is not None
        return total


def arithmetics(dtype: torch.dtype) -> list[Arithmetic]:
    """Three orders of summation."""
    return [Arithmetic(dtype, splits) for splits in (1, 3, 7)]


def legal_results(dtype: torch.dtype, compute: Callable[[Arithmetic], Tensor]) -> list[Tensor]:
    """Compute in three orders of summation."""
    return [compute(arithmetic) for arithmetic in arithmetics(dtype)]


def assert_legal(what: str, got: Tensor, exact: Tensor, legal: list[Tensor]) -> None:
    """Assert that each block of rows of ``got`` is as near to ``exact`` as honest rounding is."""
    assert got.shape == exact.shape, f"{what}: shape {tuple(got.shape)}, not {tuple(exact.shape)}"
    assert exact.dtype == torch.float64
    assert torch.isfinite(got).all(), f"{what}: not finite"
    width = exact.shape[-1] if exact.ndim else 1
    z = exact.detach().cpu().reshape(-1, width)
    assert z.abs().max() > 0, f"{what}: the exact result is all zeros, which shows nothing"
    error = got.detach().cpu().double().reshape(-1, width) - z
    noises = [y.detach().cpu().double().reshape(-1, width) - z for y in legal]
    rows = -(-_BLOCK // width)
    blocks = list(range(0, max(len(z) - rows, 0) + 1, rows))  # what is left over joins the last block
    for start, stop in pairwise([*blocks, len(z)]):
        allowed = 2 * max(float(noise[start:stop].norm()) for noise in noises)
        found = float(error[start:stop].norm())
        assert found <= allowed, f"{what}, rows {start} to {stop - 1}: error {found:.3g}, legal {allowed:.3g}"


def doubles(*tensors: Tensor) -> list[Tensor]:
    """Copy to float64 leaves on the CPU, for the exact result and its gradients."""
    return [x.detach().cpu().double().requires_grad_() for x in tensors]


def backpropagate(exact: Tensor, d_output: Tensor) -> None:
    """Fill the gradients of the leaves that ``exact`` was computed from."""
    torch.autograd.backward([exact], [d_output.detach().cpu().double()])


def grad(x: Tensor) -> Tensor:
    """The gradient of a leaf of the exact computation."""
    assert x.grad is not None
    return x.grad


def normal(seed: int, *shape: int, dtype: torch.dtype, device: torch.device, std: float = 1.0) -> Tensor:
    """Draw on the CPU, so that every device sees the same numbers."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * std).to(device, dtype)

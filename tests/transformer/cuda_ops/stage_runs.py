"""Every stage once, forward and backward, on a small uneven input: for the tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.transformer.cuda.ops import (
    AddRMSNorm,
    Attention,
    Embedding,
    FusedLinear,
    Linear,
    LinearCrossEntropy,
    ResidualAdd,
    RMSNorm,
    Rope,
    Stage,
    SwiGLU,
)
from tests.transformer.cuda_ops.legal import normal


@dataclass(frozen=True)
class Run:
    """A stage and what it is given."""

    stage: Stage[Tensor] | Stage[tuple[Tensor, Tensor]] | Stage[tuple[Tensor, ...]]
    inputs: tuple[Tensor, ...]
    d_output: Tensor | tuple[Tensor, ...]

    def forward(self) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        output, saved = self.stage.forward(*self.inputs)
        return ([output] if isinstance(output, Tensor) else list(output)), saved

    def backward(self, saved: tuple[Tensor, ...]) -> list[Tensor]:
        inputs, parameters = self.stage.backward(saved, self.d_output)  # type: ignore[arg-type]
        return [*inputs, *(parameters[name] for name in sorted(parameters))]

    def results(self) -> list[Tensor]:
        """All outputs and all gradients."""
        outputs, saved = self.forward()
        return [*outputs, *self.backward(saved)]


def all_runs() -> dict[str, Callable[[torch.dtype, torch.device], Run]]:
    return {
        "embedding": embedding,
        "linear": linear,
        "fused_linear": fused_linear,
        "rms_norm": rms_norm,
        "add_rms_norm": add_rms_norm,
        "residual_add": residual_add,
        "rope": rope,
        "swiglu": swiglu,
        "attention": attention,
        "cross_entropy": cross_entropy,
    }


def embedding(dtype: torch.dtype, device: torch.device) -> Run:
    tokens = torch.tensor([[3, 1, 3, 3, 0], [1, 3, 3, 6, 3]], device=device)
    weight, d_x = (normal(i, *s, dtype=dtype, device=device) for i, s in ((1, (7, 70)), (2, (2, 5, 70))))
    return Run(Embedding(weight), (tokens,), d_x)


def linear(dtype: torch.dtype, device: torch.device) -> Run:
    shapes = ((7, 13), (7,), (3, 5, 13), (3, 5, 7))
    weight, bias, x, d_y = (normal(i, *shape, dtype=dtype, device=device) for i, shape in enumerate(shapes))
    return Run(Linear(weight, bias), (x,), d_y)


def fused_linear(dtype: torch.dtype, device: torch.device) -> Run:
    shapes = ((14, 13), (14,), (3, 5, 13), (3, 5, 6), (3, 5, 3), (3, 5, 5))
    weight, bias, x, *d_y = (normal(i, *shape, dtype=dtype, device=device) for i, shape in enumerate(shapes))
    return Run(FusedLinear(weight, bias, (6, 3, 5)), (x,), tuple(d_y))


def rms_norm(dtype: torch.dtype, device: torch.device) -> Run:
    gain, x, d_y = (normal(i, *s, dtype=dtype, device=device) for i, s in enumerate(((13,), (3, 5, 13), (3, 5, 13))))
    return Run(RMSNorm(gain, 1e-3), (x,), d_y)


def add_rms_norm(dtype: torch.dtype, device: torch.device) -> Run:
    shapes = ((13,), (3, 5, 13), (3, 5, 13), (3, 5, 13), (3, 5, 13))
    gain, x, branch, d_sum, d_y = (normal(i, *shape, dtype=dtype, device=device) for i, shape in enumerate(shapes))
    return Run(AddRMSNorm(gain, 1e-3), (x, branch), (d_sum, d_y))


def residual_add(dtype: torch.dtype, device: torch.device) -> Run:
    x, branch, d_y = (normal(i, 3, 5, 13, dtype=dtype, device=device) for i in range(3))
    return Run(ResidualAdd(), (x, branch), d_y)


def rope(dtype: torch.dtype, device: torch.device) -> Run:
    cos, sin = (normal(i, 9, 3, dtype=torch.float32, device=device) for i in range(2))
    x, d_y = (normal(i, 2, 5, 3, 6, dtype=dtype, device=device) for i in (2, 3))
    return Run(Rope(cos, sin), (x, torch.arange(5, device=device).repeat(2, 1) + 3), d_y)


def swiglu(dtype: torch.dtype, device: torch.device) -> Run:
    gate, up, d_y = (normal(i, 3, 67, dtype=dtype, device=device) for i in range(3))
    return Run(SwiGLU(), (gate, up), d_y)


def attention(dtype: torch.dtype, device: torch.device) -> Run:
    q, k, v, d_out = (normal(i, 2, 19, heads, 10, dtype=dtype, device=device) for i, heads in enumerate((2, 1, 1, 2)))
    at = torch.arange(19, device=device).repeat(2, 1)
    documents = at // 11
    documents[1, -2:] = -1
    return Run(Attention(0.3, window=12), (q, k, v, at, at, documents, documents), d_out)


def cross_entropy(dtype: torch.dtype, device: torch.device) -> Run:
    weight, x = normal(1, 67, 5, dtype=dtype, device=device), normal(2, 11, 5, dtype=dtype, device=device)
    targets = torch.tensor([3, 66, -100, 0, 5, 5, 9, -100, 65, 64, 1], device=device)
    return Run(LinearCrossEntropy(weight, logits_at_once=4 * 67), (x, targets), torch.ones((), device=device))

"""Projection, with or without a bias, and several of one input as one product: cuBLAS.

Formula: ``y = x W^T + b``, W stored [N, K] as checkpoints have it. Backward (matrix calculus, e.g. Goodfellow et al.,
Deep Learning, 6.5.6)::

    dx = dy W
    dW = dy^T x
    db = sum over rows of dy

Rounding plan: that of ``matmul``: float32 products and sums, the bias added in float32, one rounding of y and dx to the
storage dtype. dW and db are float32 and never rounded to bfloat16. Of several projections dx is one sum over the
outputs of all of them, rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from aprender.transformer.cuda.ops.checks import check_floats, check_shape
from aprender.transformer.cuda.ops.matmul import kernel_names, product
from aprender.transformer.cuda.ops.memory import empty
from aprender.transformer.cuda.ops.runtime import library_kernel, note_library
from aprender.transformer.cuda.ops.stage import Gradients, Saved


@dataclass(slots=True)
class Logits:
    """``x W^T`` in float32: x_..D -> logits_..V. Training takes ``LinearCrossEntropy``, which has a backward."""

    weight: Tensor  # [V, D]

    kernel = property(lambda self: library_kernel(self.weight.device, "mm"))

    def __call__(self, x: Tensor) -> Tensor:
        """Project."""
        V, D = self.weight.shape
        check_floats("Logits", weight=self.weight, x=x)
        check_shape("Logits", "x", x, (*x.shape[:-1], D))
        return product(x.reshape(-1, D), self.weight.T, torch.float32).view(*x.shape[:-1], V)


@dataclass(slots=True)
class Linear:
    """``x W^T + b``: x_..K -> y_..N, all float32 or all bfloat16. ``bias`` is None where there is none."""

    weight: Tensor  # [N, K]
    bias: Tensor | None  # [N]

    @property
    def kernel(self) -> str:
        """The library calls of ``forward``."""
        return library_kernel(self.weight.device, *kernel_names(self.bias))

    @property
    def backward_kernel(self) -> str:
        """The library calls of ``backward``."""
        return library_kernel(self.weight.device, "mm", "mm", *(() if self.bias is None else ("sum",)))

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """Project; saves x."""
        N, K = self.weight.shape
        parameters = {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})
        check_floats("Linear", **parameters, x=x)
        check_shape("Linear", "x", x, (*x.shape[:-1], K))
        if self.bias is not None:
            check_shape("Linear", "bias", self.bias, (N,))
        y_MN = product(x.reshape(-1, K), self.weight.T, x.dtype, self.bias)
        return y_MN.view(*x.shape[:-1], N), (x,)

    def backward(self, saved: Saved, d_output: Tensor) -> Gradients:
        """Compute (d_x,) in x's dtype, and ``weight`` and ``bias``, float32."""
        (x,) = saved
        N, K = self.weight.shape
        check_floats("Linear backward", x=x, d_output=d_output)
        check_shape("Linear backward", "d_output", d_output, (*x.shape[:-1], N))
        d_y_MN = d_output.reshape(-1, N)
        d_x = product(d_y_MN, self.weight, x.dtype).view(x.shape)
        parameters = {"weight": product(d_y_MN.T, x.reshape(-1, K), torch.float32)}
        if self.bias is not None:
            note_library(x, "sum")
            d_bias = empty((N,), torch.float32, x.device)
            parameters["bias"] = torch.sum(d_y_MN, 0, dtype=torch.float32, out=d_bias)
        return (d_x,), parameters

    def __call__(self, x: Tensor) -> Tensor:
        """Project."""
        return self.forward(x)[0]


@dataclass(slots=True)
class FusedLinear:
    """Several projections of one input as one product: x_..K -> (y_..N1, y_..N2, ...), each a view of one tensor.

    ``weight`` and ``bias`` hold those of the projections one after the other, N = N1 + N2 + ... rows; ``widths`` are
    N1, N2, ... Gradients of parameters come as the parameters are.
    """

    weight: Tensor  # [N, K]
    bias: Tensor | None  # [N]
    widths: tuple[int, ...]

    @property
    def kernel(self) -> str:
        """The library calls of ``forward``."""
        return self._whole().kernel

    @property
    def backward_kernel(self) -> str:
        """The library calls of ``backward``."""
        return library_kernel(self.weight.device, "cat") + "+" + self._whole().backward_kernel

    def part(self, index: int) -> Linear:
        """Projection ``index`` alone, over views of the parameters."""
        start, stop = list(accumulate(self.widths, initial=0))[index : index + 2]
        return Linear(self.weight[start:stop], None if self.bias is None else self.bias[start:stop])

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, ...], Saved]:
        """Project; saves x."""
        check_shape("FusedLinear", "weight", self.weight, (sum(self.widths), self.weight.shape[1]))
        y, saved = self._whole().forward(x)
        return torch.split(y, list(self.widths), -1), saved

    def backward(self, saved: Saved, d_output: tuple[Tensor, ...]) -> Gradients:
        """Compute (d_x,) in x's dtype, and ``weight`` and ``bias``, float32."""
        (x,) = saved
        check_floats("FusedLinear backward", x=x, **{f"d_output_{i}": d_y for i, d_y in enumerate(d_output)})
        for i, (d_y, width) in enumerate(zip(d_output, self.widths, strict=True)):
            check_shape("FusedLinear backward", f"d_output_{i}", d_y, (*x.shape[:-1], width))
        note_library(x, "cat")
        d_y = torch.cat(d_output, -1, out=empty((*x.shape[:-1], sum(self.widths)), x.dtype, x.device))
        return self._whole().backward(saved, d_y)

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """Project."""
        return self.forward(x)[0]

    def _whole(self) -> Linear:
        return Linear(self.weight, self.bias)

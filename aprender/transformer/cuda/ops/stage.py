"""What every operator of the CUDA path is: a stage, with a forward and a backward of its own and no autograd."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from torch import Tensor

Saved = tuple[Tensor, ...]
Gradients = tuple[tuple[Tensor, ...], dict[str, Tensor]]

Output = TypeVar("Output", Tensor, tuple[Tensor, Tensor], tuple[Tensor, ...])


class Stage(Protocol[Output]):
    """One named operator that holds its parameters and never changes its inputs.

    A stage raises AprenderError for a dtype, device or shape that it has no kernel for; it never takes another road.
    """

    @property
    def kernel(self) -> str:
        """The kernels that ``forward`` runs, in order, joined by ``+``: ``triton:rms_norm_forward``."""

    @property
    def backward_kernel(self) -> str:
        """The kernels that ``backward`` runs, named as in ``kernel``."""

    def forward(self, *inputs: Any) -> tuple[Output, Saved]:
        """Compute the output, and the tensors that ``backward`` needs."""

    def backward(self, saved: Saved, d_output: Output) -> Gradients:
        """Compute the gradients of the floating-point inputs, in order, and of the parameters, by field name.

        An input's gradient has the input's dtype; a parameter's is float32, because it is added up and given to the
        optimizer's float32 master weights.
        """

    def __call__(self, *inputs: Any) -> Output:
        """Compute the output and save nothing."""

"""The one step that moves a checkpoint's tensors to the device, and the check that something is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from aprender.errors import AprenderError, FormatError
from aprender.transformer.config import TransformerConfig

Upload = Callable[[TransformerConfig, Mapping[str, Tensor], torch.device, torch.dtype], dict[str, Tensor]]


def upload(
    config: TransformerConfig, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Move every tensor that ``config`` names, biases included, to ``device`` as ``dtype``; change nothing else.

    A tensor that is already there in that dtype is shared, not copied; the model copies those of q, k and v into one.
    """
    return {name: tensors[name].to(device, dtype) for name in config.tensor_shapes()}


def check_on(device: torch.device, what: str, tensor: Tensor) -> None:
    """Raise AprenderError unless ``tensor`` is on ``device``; "cuda" without an index is whichever is current."""
    if tensor.device.type != device.type or device.index not in (None, tensor.device.index):
        raise AprenderError(f"{what} is on {tensor.device}, not on {device} as asked for")


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise FormatError unless all of them hold finite numbers: one pass over each, and one wait for the device."""
    ends = torch.stack([torch.stack(torch.aminmax(tensor)).float() for tensor in tensors.values()])  # NaN is both ends
    for name, finite in zip(tensors, ends.isfinite().all(1).tolist(), strict=True):
        if not finite:
            tensor = tensors[name]
            wrong = tensor.isfinite().logical_not().nonzero()
            first = wrong[0].tolist()
            raise FormatError(
                f"tensor {name} has {len(wrong)} of {tensor.numel()} values that are not finite in {tensor.dtype}, the "
                f"first is {tensor[tuple(first)].item()} at {first}: load the weights anew, or correct what made them"
            )

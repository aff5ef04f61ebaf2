"""The one step that moves a checkpoint's tensors to the device, and the check that something is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.config import TransformerConfig

Upload = Callable[[TransformerConfig, Mapping[str, Tensor], torch.device, torch.dtype], dict[str, Tensor]]


def upload(
    config: TransformerConfig, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Move every tensor that ``config`` names, biases included, to ``device`` as ``dtype``; change nothing else.

    A tensor that is already there in that dtype is shared, not copied.
    """
    return {name: tensors[name].to(device, dtype) for name in config.tensor_shapes()}


def check_on(device: torch.device, what: str, tensor: Tensor) -> None:
    """Raise AprenderError unless ``tensor`` is on ``device``; "cuda" without an index is whichever is current."""
    if tensor.device.type != device.type or device.index not in (None, tensor.device.index):
        raise AprenderError(f"{what} is on {tensor.device}, not on {device} as asked for")

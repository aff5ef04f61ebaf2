"""Finding NaN and infinity in large tensors at the speed of memory, whatever their float type."""

from __future__ import annotations

import numpy as np
import torch


def all_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite. ``tensor``: on the CPU, float32, float16 or bfloat16."""
    # aminmax carries NaN through and, unlike isfinite, allocates nothing of the tensor's size
    return not tensor.numel() or all(bool(bound.isfinite()) for bound in torch.aminmax(tensor))


def describe_non_finite(tensor: torch.Tensor) -> str:
    """How many elements aren't finite, and which is the first: ``2 values not finite, the first is nan at [3, 7]``."""
    wrong = (~tensor.isfinite()).reshape(-1)
    count, first = int(wrong.sum()), int(wrong.to(torch.uint8).argmax())
    index = [int(i) for i in np.unravel_index(first, tuple(tensor.shape))]
    value = tensor.reshape(-1)[first].item()
    return f"{count} value{'s'[: count > 1]} not finite, the first is {value} at {index}"

"""Finding NaN and infinity in large tensors at the speed of memory, whatever their float type."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

_PIECE = 1 << 17  # elements: a piece and its shifted copy stay in the second-level cache

# Without its sign, a value that isn't finite has all bits of its exponent set, and no finite one is above that.
_INTEGERS: dict[torch.dtype, tuple[torch.dtype, type[np.unsignedinteger[Any]], int]] = {
    torch.float32: (torch.int32, np.uint32, 0x7F800000 << 1),
    torch.float16: (torch.int16, np.uint16, 0x7C00 << 1),
    torch.bfloat16: (torch.int16, np.uint16, 0x7F80 << 1),
}


def all_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite. ``tensor``: contiguous, on the CPU, float32, float16 or bfloat16.

    On integers, because numpy knows no bfloat16; by numpy, because loading has threads of its own, and torch's would
    stand in their way.
    """
    signed, unsigned, limit = _INTEGERS[tensor.dtype]
    bits = tensor.view(-1).view(signed).numpy().view(unsigned)
    shifted = np.empty(min(_PIECE, len(bits)), unsigned)
    for start in range(0, len(bits), _PIECE):
        piece = bits[start : start + _PIECE]
        if np.left_shift(piece, 1, out=shifted[: len(piece)]).max() >= limit:
            return False
    return True


def describe_non_finite(tensor: torch.Tensor) -> str:
    """How many elements aren't finite, and which is the first: ``2 values not finite, the first is nan at [3, 7]``."""
    wrong = (~tensor.isfinite()).view(-1)
    count, first = int(wrong.sum()), int(wrong.to(torch.uint8).argmax())
    index = [int(i) for i in np.unravel_index(first, tuple(tensor.shape))]
    value = tensor.view(-1)[first].item()
    return f"{count} value{'s'[: count > 1]} not finite, the first is {value} at {index}"

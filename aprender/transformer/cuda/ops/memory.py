"""The one place where stages get memory, so that a test can show that nothing is read before it is written.

``empty`` is ``torch.empty``. Inside ``poisoned`` it fills what it returns: with NaN, with a huge number, or with the
previous result negated, which a stale read would show; and it can lay guard zones around each tensor, which a write
out of bounds would spoil. A correct stage returns the same bits under every poison.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from aprender.errors import AprenderError

_GUARD_BYTE = 0xA5


@dataclass(slots=True)
class _Poison:
    fill: float | Sequence[Tensor]
    guard: int
    given: list[Tensor] = field(default_factory=list)
    buffers: list[Tensor] = field(default_factory=list)
    index: Iterator[int] = field(default_factory=count)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        size = torch.Size(shape).numel()
        buffer = torch.empty(size + 2 * self.guard, dtype=dtype, device=device)
        buffer.view(torch.uint8).fill_(_GUARD_BYTE)
        tensor = buffer[self.guard : self.guard + size].view(shape)
        self._fill(tensor, next(self.index))
        self.given.append(tensor)
        self.buffers.append(buffer)
        return tensor

    def _fill(self, tensor: Tensor, index: int) -> None:
        if not isinstance(self.fill, Sequence):
            tensor.fill_(self.fill if tensor.is_floating_point() else torch.iinfo(tensor.dtype).min)
            return
        if index >= len(self.fill) or self.fill[index].shape != tensor.shape:
            raise AprenderError(f"allocation {index} has no previous tensor of shape {tuple(tensor.shape)} to negate")
        tensor.copy_(self.fill[index]).neg_()

    def check_guards(self) -> None:
        for index, buffer in enumerate(self.buffers):
            guards = torch.cat((buffer[: self.guard], buffer[len(buffer) - self.guard :])).view(torch.uint8)
            if not bool((guards == _GUARD_BYTE).all()):
                shape = tuple(self.given[index].shape)
                raise AprenderError(f"allocation {index}, of shape {shape}, was written to outside its bounds")


_poison: _Poison | None = None


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Allocate a contiguous tensor whose content means nothing yet."""
    if _poison is not None:
        return _poison.empty(shape, dtype, device)
    return torch.empty(shape, dtype=dtype, device=device)


@contextmanager
def poisoned(fill: float | Sequence[Tensor], guard: int = 0) -> Iterator[list[Tensor]]:
    """Fill all that ``empty`` returns inside, and give the list of it: the poison of a second run is the first's list.

    ``fill`` is a number, which integer tensors replace by their smallest one, or earlier tensors to negate, one for
    each allocation. ``guard`` elements on both sides of each tensor are checked at the end: AprenderError when one was
    written to. Not reentrant, and for one thread: it is meant for tests.
    """
    global _poison
    outer, _poison = _poison, _Poison(fill, guard)
    poison = _poison
    try:
        yield poison.given
        poison.check_guards()
    finally:
        _poison = outer

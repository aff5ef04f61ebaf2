"""Running somebody's module in another arithmetic: truly in float64, or with every sum taken term by term."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

MOST_PARTS = 256  # of a sum taken in order; with more the error hardly grows, the time does

_NARROW = (torch.float32, torch.bfloat16, torch.float16)
_CASTS = (Tensor.float, Tensor.half, Tensor.bfloat16)


class InFloat64(TorchFunctionMode):
    """Inside, every cast to a narrower float goes to float64 instead.

    Modules that are right in bfloat16 compute norms and softmax in float32 whatever they are given; an oracle may not.
    """

    paused = False

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Inside this, as if the mode were not there."""
        self.paused = True
        try:
            yield
        finally:
            self.paused = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Torch calls this for each of its functions."""
        if self.paused:
            return func(*args, **(kwargs or {}))
        if func in _CASTS:
            return args[0].double()
        wide = {name: _wide(value) for name, value in (kwargs or {}).items()}
        return func(*map(_wide, args), **wide)


class TermByTerm(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no types
    """Inside, products of matrices sum one term (of long sums, a few) after the other: the legal order that errs most.

    A GPU thread accumulates so; the vectorised sums of a CPU err several times less.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Torch calls this for each of its kernels."""
        aten = torch.ops.aten
        if func in (aten.mm.default, aten.bmm.default):
            return _in_order(args[0], args[1])
        if func in (aten.addmm.default, aten.baddbmm.default) and not kwargs:
            return _in_order(args[1], args[2]) + args[0]
        return func(*args, **(kwargs or {}))


def _in_order(a: Tensor, b: Tensor) -> Tensor:
    K = a.shape[-1]
    parts = min(K, MOST_PARTS)
    edges = [K * i // parts for i in range(parts + 1)]
    total = a[..., : edges[1]] @ b[..., : edges[1], :]
    for start, stop in pairwise(edges[1:]):
        total += a[..., start:stop] @ b[..., start:stop, :]
    return total


def _wide(value: Any) -> Any:
    return torch.float64 if value in _NARROW and isinstance(value, torch.dtype) else value

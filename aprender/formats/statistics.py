"""Statistics of stored tensors, one tensor in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from aprender.errors import FormatError
from aprender.formats.stored import TensorFiles
from aprender.formats.tensor_table import TensorEntry

_PIECE = 1 << 14  # elements: torch splits no work of this size over threads, which would only wait here


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of the finite values, in float64; NaN where there is none. ``std`` is of the population."""

    minimum: float
    mean: float
    maximum: float
    std: float
    non_finite: int


def statistics(
    entries: Sequence[TensorEntry], progress: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[TensorEntry, Statistics | None]]:
    """Each tensor with its statistics, None where its dtype can't be read. ``progress`` is told of each one's bytes."""
    with TensorFiles() as files:
        files.open(list(entries))
        for entry in entries:
            try:
                yield entry, tensor_statistics(files.read(entry))
            except FormatError:
                yield entry, None
            progress(entry.size)


def tensor_statistics(tensor: torch.Tensor) -> Statistics:
    """Statistics of one tensor of any shape. Sums are of deviations from the first piece's mean: nothing cancels."""
    count = non_finite = 0
    minimum, maximum, shift, first, second = math.inf, -math.inf, math.nan, 0.0, 0.0
    for piece in torch.split(tensor.reshape(-1), _PIECE):
        values = piece.double()
        finite = values.isfinite()
        if not bool(finite.all()):
            values = values[finite]
            non_finite += len(piece) - len(values)
        if not len(values):
            continue
        shift = float(values.mean()) if count == 0 else shift
        count += len(values)
        deviations = values - shift
        first += float(deviations.sum())
        second += float((deviations * deviations).sum())
        minimum, maximum = min(minimum, float(values.min())), max(maximum, float(values.max()))
    if not count:
        return Statistics(math.nan, math.nan, math.nan, math.nan, non_finite)
    offset = first / count
    return Statistics(minimum, shift + offset, maximum, math.sqrt(max(0.0, second / count - offset**2)), non_finite)

"""Tile sizes: how much of a tensor one program of a kernel handles. The kernels take them as they come.

On a GPU a tile fills a multiprocessor. In the interpreter, where a program costs milliseconds whatever it computes, it
is large; inside ``small_tiles`` it is small, so that a tiny test has several tiles and a partial one. Sizes depend on
widths, dtype and device, never on the number of rows, so that a row's bits do not depend on how many other rows there
are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from aprender.errors import AprenderError

_WIDEST_ROW = 16384


class Tile(NamedTuple):
    """``rows`` x ``columns`` elements of a matrix."""

    rows: int
    columns: int


class RowTile(NamedTuple):
    """``rows`` whole rows of ``width`` columns at a time; a backward program goes over ``strip`` rows."""

    rows: int
    width: int
    strip: int
    warps: int


class AttentionTile(NamedTuple):
    """``queries`` x ``keys`` scores at a time, heads of ``channels``, positions scanned ``scan`` at a time."""

    queries: int
    keys: int
    channels: int
    scan: int
    warps: int
    stages: int


class _Interpreted(NamedTuple):
    """What the interpreter takes at a time."""

    rows: int
    strip: int
    columns: int
    logits: int
    flat: int
    scores: int
    scan: int


_LARGE = _Interpreted(rows=64, strip=128, columns=256, logits=512, flat=16384, scores=128, scan=256)
_SMALL = _Interpreted(rows=4, strip=8, columns=64, logits=64, flat=64, scores=16, scan=64)
_interpreted = _LARGE


@contextmanager
def small_tiles() -> Iterator[None]:
    """Take little at a time in the interpreter, for tests of what happens between tiles. A GPU's tiles stay."""
    global _interpreted
    outer, _interpreted = _interpreted, _SMALL
    try:
        yield
    finally:
        _interpreted = outer


def power_of_two(n: int) -> int:
    """Return the smallest power of two that is at least ``n``."""
    return 1 << max(n - 1, 0).bit_length()


def row_tile(columns: int, device: torch.device) -> RowTile:
    """Choose the tile for kernels that need a whole row at once. Raises AprenderError when the row is too wide."""
    width = power_of_two(columns)
    if width > _WIDEST_ROW:
        raise AprenderError(f"rows of {columns} columns: the row kernels take up to {_WIDEST_ROW}")
    if device.type == "cpu":
        return RowTile(rows=_interpreted.rows, width=width, strip=_interpreted.strip, warps=1)
    rows = max(1, 2048 // width)
    return RowTile(rows=rows, width=width, strip=max(16, 2 * rows), warps=4 if width <= 2048 else 8)


def flat_block(device: torch.device) -> int:
    """Choose how many elements of dense memory one program handles."""
    return _interpreted.flat if device.type == "cpu" else 1024


def elementwise_tile(device: torch.device) -> Tile:
    """Choose the tile for kernels that go over rows with a stride, element by element."""
    return Tile(_interpreted.rows, _interpreted.columns) if device.type == "cpu" else Tile(rows=1, columns=1024)


def vocabulary_tile(device: torch.device) -> Tile:
    """Choose how many rows of logits a program handles, and how many logits of each it holds at once."""
    return Tile(_interpreted.rows, _interpreted.logits) if device.type == "cpu" else Tile(rows=1, columns=4096)


def attention_tile(head_dim: int, dtype: torch.dtype, device: torch.device) -> AttentionTile:
    """Choose the tile of scores for a head width. Raises AprenderError for one that there is no kernel for."""
    if head_dim % 2 or not 2 <= head_dim <= 256:
        raise AprenderError(f"attention: head_dim is {head_dim}; there are kernels for even ones up to 256")
    channels = max(16, power_of_two(head_dim))
    if device.type == "cpu":
        return AttentionTile(
            queries=_interpreted.scores,
            keys=_interpreted.scores,
            channels=channels,
            scan=_interpreted.scan,
            warps=1,
            stages=1,
        )
    if dtype == torch.float32:  # exact products use no tensor cores, and twice the bytes
        side = 32 if channels <= 128 else 16
        return AttentionTile(
            queries=side, keys=side, channels=channels, scan=1024, warps=8 if channels == 128 else 4, stages=1
        )
    queries = 128 if channels <= 128 else 64
    return AttentionTile(
        queries=queries, keys=64 if channels <= 128 else 32, channels=channels, scan=1024, warps=8, stages=2
    )

"""Block systems: the tensor, its rows, columns, heads, tiles and small rows, each judged by a norm of its own.

A defect that is confined to a few elements (a tail, a head, one channel with a large bias) is drowned in the norm of
the whole tensor and stands out in the norm of its block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

TILE = 128  # what GEMM and attention kernels on GPUs tile by: a tile that was not written is one block

SMALL_ROW = 1 / 8  # of the median norm of rows: there additive constants (eps, biases) carry the result


@dataclass(frozen=True, slots=True)
class Layout:
    """How the axes of a tensor are read: the first ``rows`` count rows (batch, positions), the rest channels.

    ``heads`` is the axis of attention heads, if there is one. ``joint_rows``: a row may be one rounded number times a
    vector, as where one key or one position dominates a softmax; its errors then move together.
    """

    rows: int
    heads: int | None = None
    joint_rows: bool = False

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Layout:
        """The usual one: the last axis holds channels."""
        return cls(max(len(shape) - 1, 0))


class Blocks:
    """The blocks of tensors of one shape: sums over them, their names, and where they lie.

    ``small_rows`` is a bool mask over the rows (flattened) that form a block of their own, or None.
    """

    def __init__(self, shape: tuple[int, ...], layout: Layout, small_rows: Tensor | None = None) -> None:
        self.shape, self.layout, self.small_rows = shape, layout, small_rows
        self.M, self.N = prod(shape[: layout.rows]), prod(shape[layout.rows :])

    def sums(self, values: Tensor) -> dict[str, Tensor]:
        """Sum ``values`` (of this shape) over each block: one vector per block system."""
        values_MN = values.reshape(self.M, self.N)
        row_M = values_MN.sum(1)
        found = {"tensor": row_M.sum()[None]}
        if self.M > 1 and self.N > 1:
            found |= {"row": row_M, "column": values_MN.sum(0)}
        if self.layout.heads is not None:
            found["head"] = values.movedim(self.layout.heads, 0).flatten(1).sum(1)
        if self.M > TILE or self.N > TILE:
            found["tile"] = self._tile_sums(values_MN)
        if self.small_rows is not None:
            found["small rows"] = row_M[self.small_rows].sum()[None]
        return found

    def effective_terms(self, variance: Tensor) -> dict[str, Tensor]:
        """How many independent errors of ``variance`` each block is worth: ``(sum v)^2 / sum v^2``.

        v are elements, or with ``joint_rows`` the parts of rows that lie in a block; a column has one element of each.
        """
        total, squares = self.sums(variance), self.sums(variance**2)
        if self.layout.joint_rows:
            row_M = variance.reshape(self.M, self.N).sum(1)
            parts = Blocks((self.M,), Layout(rows=1), self.small_rows).sums(row_M**2)
            squares |= {"tensor": parts["tensor"]} | ({"row": row_M**2} if "row" in squares else {})
            squares |= {name: parts[name] for name in ("small rows",) if name in squares}
            if "head" in squares:
                by_head = variance.movedim(self.layout.heads or 0, 0)
                squares["head"] = by_head.reshape(len(by_head), self.M, -1).sum(2).square().sum(1)
            if "tile" in squares:
                squares["tile"] = self._tile_sums(variance.reshape(self.M, self.N), joint=True)
        return {name: sums**2 / squares[name] for name, sums in total.items()}

    def label(self, system: str, index: int) -> str:
        """What people call block ``index`` of ``system``: ``row (1, 17)``, ``head 3``, ``tile rows 128-255 ...``."""
        match system:
            case "row":
                return f"row {_place(index, self.shape[: self.layout.rows])}"
            case "column":
                return f"column {_place(index, self.shape[self.layout.rows :])}"
            case "head":
                return f"head {index}"
            case "tile":
                rows, columns = self._tile(index)
                return f"tile rows {rows.start}-{rows.stop - 1} columns {columns.start}-{columns.stop - 1}"
            case _:
                return system

    def largest(self, values: Tensor, system: str, index: int) -> tuple[int, ...]:
        """The index, in the tensor's own axes, of the largest of ``values`` inside a block."""
        inside = torch.zeros(self.M, self.N, dtype=torch.bool, device=values.device)
        mark: dict[str, Callable[[], object]] = {
            "tensor": lambda: inside.fill_(True),
            "row": lambda: inside[index].fill_(True),
            "column": lambda: inside[:, index].fill_(True),
            "head": lambda: inside.view(self.shape).select(self.layout.heads or 0, index).fill_(True),
            "tile": lambda: inside[self._tile(index)].fill_(True),
            "small rows": lambda: inside.logical_or_(torch.as_tensor(self.small_rows)[:, None]),
        }
        mark[system]()
        masked = torch.where(inside.view(self.shape), values, -torch.inf)
        return _unravelled(int(masked.argmax()), self.shape)

    def _tile_sums(self, values_MN: Tensor, joint: bool = False) -> Tensor:
        """Sums over tiles; ``joint``: of the squares of each row's sum inside a tile."""
        down, across = -(-self.M // TILE), -(-self.N // TILE)
        columns = torch.nn.functional.pad(values_MN, (0, across * TILE - self.N)).view(self.M, across, TILE).sum(2)
        columns = columns**2 if joint else columns
        rows = torch.nn.functional.pad(columns, (0, 0, 0, down * TILE - self.M)).view(down, TILE, across).sum(1)
        return rows.flatten()

    def _tile(self, index: int) -> tuple[slice, slice]:
        down, across = divmod(index, -(-self.N // TILE))
        return (
            slice(down * TILE, min((down + 1) * TILE, self.M)),
            slice(across * TILE, min((across + 1) * TILE, self.N)),
        )


def small_rows(x: Tensor, rows: tuple[int, ...]) -> Tensor | None:
    """Which rows of an operator's first input are small: bool [prod(rows)], None where none is or axes differ.

    Small is a root mean square below an eighth of the median row's.
    """
    if not x.is_floating_point() or x.ndim <= len(rows) or tuple(x.shape[: len(rows)]) != rows or prod(rows) < 2:
        return None
    rms_M = x.double().reshape(prod(rows), -1).square().mean(1).sqrt()
    small_M = rms_M < SMALL_ROW * rms_M.median()
    return small_M if bool(small_M.any()) else None


def _place(index: int, shape: tuple[int, ...]) -> str:
    places = _unravelled(index, shape) or (0,)
    return str(places[0]) if len(places) == 1 else f"({', '.join(map(str, places))})"


def _unravelled(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The indices in a tensor of ``shape`` (row-major) of its element ``index``."""
    places: list[int] = []
    for size in reversed(shape):
        index, place = divmod(index, size)
        places.append(place)
    return tuple(reversed(places))

"""Projections of the error: onto the result (gain), onto what a parameter moves (direction), onto each channel's mean.

Rounding errors differ in sign from element to element, so their projection onto anything that is not rounding falls as
1/sqrt(n), far below one ulp; a defect's does not. This is what sees ``scale x 1.001`` in bfloat16, which no norm sees.
A direction is a matched filter: how the result moves when one parameter moves by 10%.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from aprender.parity.blocks import Blocks
from aprender.parity.record import Measured
from aprender.parity.rounding import UNIT_ROUNDOFF_ACCUMULATOR
from aprender.parity.tails import norm_excess, students

# Elementary functions may be off in one direction all along: CUDA documents 2 ulp for expf, 2 for rsqrtf, in the
# accumulator's precision (CUDA C Programming Guide, mathematical functions); an operator applies at most two in a row.
SYSTEMATIC = 4 * UNIT_ROUNDOFF_ACCUMULATOR

FEW_ROWS = 8  # fewer are no sample of independent rows: each element stands for itself then

PERTURBATION = 0.1  # by how much a parameter moves to make a direction


@dataclass(slots=True)
class _Direction:
    d_MN: Tensor
    square: float  # <d, d>
    noise: float  # sd of the coefficient by the last rounding alone
    quantile: float  # of Student's t
    systematic: float
    allowed: float = 0.0


@dataclass(slots=True)
class _Gains:
    """The error's part along each row (or column) of z: a factor per row that is wrong, whatever its sign."""

    name: str
    z_MN: Tensor
    axis: int
    square: float  # of the projected error's norm: expected of one rounding, or a plan's if that is larger
    factor: float
    systematic: float

    @classmethod
    def of(cls, z_MN: Tensor, q2_MN: Tensor, axis: int, undeclared: float) -> _Gains:
        weight = (z_MN**2).sum(axis)
        variance = torch.where(weight > 0, (q2_MN * z_MN**2).sum(axis) / weight, 0.0)
        square = float(variance.sum())
        terms = variance.sum() ** 2 / (variance**2).sum()
        systematic = SYSTEMATIC * math.sqrt(float(weight.sum()))
        return cls(
            "row gains" if axis else "column gains",
            z_MN,
            axis,
            square,
            undeclared * float(norm_excess(terms)),
            systematic,
        )

    def projected(self, error_MN: Tensor) -> float:
        """The squared norm of the error's part along the rows."""
        weight = (self.z_MN**2).sum(self.axis)
        along = (error_MN * self.z_MN).sum(self.axis)
        return float(torch.where(weight > 0, along**2 / weight, 0.0).sum())


@dataclass(slots=True)
class Projections:
    """Collects the plans' projections by ``add``, then measures a candidate's error against what they allow."""

    z: Tensor
    q2: Tensor  # the variance of one rounding
    blocks: Blocks
    directions: Mapping[str, Tensor]
    undeclared: float  # the factor for plans that are not declared
    _found: dict[str, _Direction] = field(default_factory=dict)
    _gains: list[_Gains] = field(default_factory=list)
    _mean_N: Tensor | None = None
    _square_N: Tensor | None = None

    def __post_init__(self) -> None:
        q2_MN = self._matrix(self.q2)
        for name, d in {"gain": self.z, **{f"direction: {name}": d for name, d in self.directions.items()}}.items():
            d_MN = self._matrix(d)
            weight = self._clusters(d_MN**2)
            square = float(weight.sum())
            if square == 0:
                continue  # the vacuity rule speaks of parameters that move nothing
            effective = square**2 / float((weight**2).sum())
            self._found[name] = _Direction(
                d_MN,
                square,
                float((q2_MN * d_MN**2).sum().sqrt()) / square,
                students(effective),
                SYSTEMATIC * float((self._matrix(self.z) * d_MN).abs().sum()) / square,
            )
        if self.blocks.M >= FEW_ROWS and self.blocks.N > 1:
            self._mean_N, self._square_N = torch.zeros_like(q2_MN[0]), q2_MN.mean(0)
            z_MN = self._matrix(self.z)
            self._gains = [_Gains.of(z_MN, q2_MN, axis, self.undeclared) for axis in (1, 0)]

    def add(self, s: Tensor) -> None:
        """Take in one plan's error: |its projection| + quantile * sd, taken over rows: inside one errors correlate."""
        s_MN = self._matrix(s)
        for found in self._found.values():
            parts = self._clusters(s_MN * found.d_MN) / found.square
            sd = max(float(parts.square().sum().sqrt()), found.noise)
            found.allowed = max(found.allowed, abs(float(parts.sum())) + found.quantile * sd + found.systematic)
        for gains in self._gains:
            gains.square = max(gains.square, gains.projected(s_MN))
        if self._mean_N is not None and self._square_N is not None:
            self._mean_N = torch.maximum(self._mean_N, s_MN.mean(0).abs())
            self._square_N = torch.maximum(self._square_N, s_MN.square().mean(0))

    def measure(self, r: Tensor) -> Iterator[Measured]:
        """(C) gain, directions (in units of the parameter), gains by row and column; (D) the worst channel mean."""
        r_MN = self._matrix(r)
        for name, found in self._found.items():
            unit = 1.0 if name == "gain" else PERTURBATION
            observed = abs(float((r_MN * found.d_MN).sum())) / found.square
            yield Measured(name, "tensor", observed * unit, found.allowed * unit)
        for gains in self._gains:
            observed = math.sqrt(gains.projected(r_MN))
            yield Measured(gains.name, "tensor", observed, gains.factor * math.sqrt(gains.square) + gains.systematic)
        if self._mean_N is not None and self._square_N is not None:
            yield self._channel_mean(r_MN, self._mean_N, self._square_N)

    def _channel_mean(self, r_MN: Tensor, mean_N: Tensor, square_N: Tensor) -> Measured:
        sd_N = (square_N / self.blocks.M).sqrt()
        floor_N = SYSTEMATIC * self._matrix(self.z).abs().mean(0)
        allowed_N = mean_N + students(self.blocks.M) * sd_N + floor_N
        observed_N = r_MN.mean(0).abs()
        n = int((observed_N / allowed_N).argmax())
        return Measured(
            "channel mean",
            self.blocks.label("column", n),
            float(observed_N[n]),
            float(allowed_N[n]),
            block=("column", n),
        )

    def _matrix(self, x: Tensor) -> Tensor:
        return x.reshape(self.blocks.M, self.blocks.N)

    def _clusters(self, products_MN: Tensor) -> Tensor:
        return products_MN.flatten() if self.blocks.M < FEW_ROWS else products_MN.sum(1)


def directions_of(moved: Mapping[str, Iterable[Tensor]], results: tuple[Tensor, ...]) -> list[dict[str, Tensor]]:
    """For each of an operator's results, by parameter: how the result moved."""
    found: list[dict[str, Tensor]] = [{} for _ in results]
    for name, tensors in moved.items():
        for directions, tensor, z in zip(found, tensors, results, strict=True):
            directions[name] = tensor - z
    return found

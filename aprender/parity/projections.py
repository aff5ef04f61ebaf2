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
    unit_MN: Tensor  # the rows of z, each of length 1 (or 0)
    axis: int
    joint: bool  # the lines' errors are not independent of each other
    undeclared: float
    square: float  # of the projected error's norm: expected of one rounding
    terms: float  # how many independent errors that is worth
    systematic: float
    allowed: float = 0.0

    @classmethod
    def of(cls, z_MN: Tensor, q2_MN: Tensor, axis: int, undeclared: float, joint: bool) -> _Gains:
        length = (z_MN**2).sum(axis, keepdim=True).sqrt()
        unit_MN = torch.where(length > 0, z_MN / length, 0.0)
        variance = (q2_MN * unit_MN**2).sum(axis)
        square, terms = float(variance.sum()), float(variance.sum() ** 2 / (variance**2).sum())
        systematic = SYSTEMATIC * float((length**2).sum().sqrt())
        return cls("row gains" if axis else "column gains", unit_MN, axis, joint, undeclared, square, terms, systematic)

    def add(self, s_MN: Tensor) -> None:
        """Take in one plan's error: what is allowed goes by how many independent lines there are."""
        square, terms = max(self.square, self.projected(s_MN)), self.terms
        if self.joint:
            expected, terms = self._of_joint_lines(s_MN)
            square = max(square, expected)
        chance = self.undeclared * float(norm_excess(torch.tensor(terms, dtype=torch.float64)))
        self.allowed = max(self.allowed, chance * math.sqrt(square) + self.systematic)

    def projected(self, error_MN: Tensor) -> float:
        """The squared norm of the error's part along the rows."""
        return float((error_MN * self.unit_MN).sum(self.axis).square().sum())

    def _of_joint_lines(self, s_MN: Tensor) -> tuple[float, float]:
        """What the squares of the columns' projections add up to, and how many independent ones they are worth.

        Where a row is one rounded number times a vector, columns move together: with K the covariance of their
        projections, estimated over the rows, the sum of squares has mean tr K and is worth (tr K)^2 / tr K^2 terms.
        """
        parts_MN = s_MN * self.unit_MN
        covariance_NN = parts_MN.T @ parts_MN
        expected, squares = float(covariance_NN.trace()), float(covariance_NN.square().sum())
        return expected, expected**2 / squares if squares else self.terms


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
            joint = self.blocks.layout.joint_rows
            of_rows = _Gains.of(z_MN, q2_MN, 1, self.undeclared, joint=False)
            self._gains = [of_rows, _Gains.of(z_MN, q2_MN, 0, self.undeclared, joint)]

    def add(self, s: Tensor) -> None:
        """Take in one plan's error: |its projection| + quantile * sd, taken over rows: inside one errors correlate."""
        s_MN = self._matrix(s)
        for found in self._found.values():
            parts = self._clusters(s_MN * found.d_MN) / found.square
            sd = max(float(parts.square().sum().sqrt()), found.noise)
            found.allowed = max(found.allowed, abs(float(parts.sum())) + found.quantile * sd + found.systematic)
        for gains in self._gains:
            gains.add(s_MN)
        if self._mean_N is not None and self._square_N is not None:
            mean_N, square_N = s_MN.mean(0), s_MN.square().mean(0)
            # Rows may have a part in common: of attention's dk, what rounding does to a query's row sum reaches all of
            # its keys. In a channel's mean that is one draw; how large such draws are, all channels say together.
            parts_N = torch.where(square_N > 0, self.blocks.M * mean_N.square() / square_N, 1.0)
            self._mean_N = torch.maximum(self._mean_N, mean_N.abs())
            self._square_N = torch.maximum(self._square_N, square_N * max(float(parts_N.mean()), 1.0))

    def measure(self, r: Tensor) -> Iterator[Measured]:
        """(C) gain, directions (in units of the parameter), gains by row and column; (D) the worst channel mean."""
        r_MN = self._matrix(r)
        for name, found in self._found.items():
            unit = 1.0 if name == "gain" else PERTURBATION
            observed = abs(float((r_MN * found.d_MN).sum())) / found.square
            yield Measured(name, "tensor", observed * unit, found.allowed * unit)
        for gains in self._gains:
            yield Measured(gains.name, "tensor", math.sqrt(gains.projected(r_MN)), gains.allowed)
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

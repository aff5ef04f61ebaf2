"""The same operator in float32 and in bfloat16: rounding shrinks by 2^16 between them, a defect does not."""

from __future__ import annotations

from dataclasses import dataclass

from aprender.parity.record import Comparison

# 2^16 is the ratio of unit roundoffs. Sums lose up to sqrt(K) more in float32 than their one output rounding in
# bfloat16: 2^4 admits K = 256 terms in order, or 100,000 in blocks.
LEAST_SLOPE = 2.0**12


@dataclass(frozen=True, slots=True)
class Slope:
    """The relative error in bfloat16 over that in float32, of one tensor of one stage."""

    stage: str
    tensor: str
    slope: float

    @property
    def holds(self) -> bool:
        """Whether the error is rounding: it shrank as the dtype says."""
        return self.slope >= LEAST_SLOPE


def slopes(float32: Comparison, bfloat16: Comparison) -> list[Slope]:
    """Of every tensor that both runs compared, each in its dtype; not of exact ones, which have no error."""
    fine = {(r.stage, r.tensor): r for r in float32.records if r.dtype == "float32"}
    found = []
    for coarse in bfloat16.records:
        other = fine.get((coarse.stage, coarse.tensor))
        if other is None or coarse.dtype != "bfloat16" or coarse.statistic == "bitwise" or other.relative_error == 0:
            continue
        found.append(Slope(coarse.stage, coarse.tensor, coarse.relative_error / other.relative_error))
    return found

"""Which statistics may raise an alarm, and by how much their formulas were found short: measured, never typed in.

``calibration.json`` is written by ``bench/parity_null.py``: for every kind of device, dtype and statistic the largest
observed/allowed (by the plain formula) over many runs of honest implementations. A statistic without an entry is
reported and never alarms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import torch

from aprender.errors import AprenderError

# A tail that 1,000 runs did not reach lies this much above the largest value that they did. Norms concentrate (the
# spread between two legal roundings was 0.2% of L2, parity.md 3.1); projections have tails like a normal variable,
# whose 1e-12 quantile is 1.6 times its largest of 1e6: sqrt(ln 2e12 / ln 2e6) = 1.4, and some for their measured scale.
# The norms of many projections, gains by row and column, are between: another 1,000 runs went 16% further on an H100.
MARGIN_OF_NORMS = 1.1
MARGIN_OF_GAINS = 1.25
MARGIN_OF_PROJECTIONS = 1.6

GAINS = ("row gains", "column gains")

LEAST_SEEDS = 1000


@dataclass(frozen=True, slots=True)
class Calibration:
    """``largest[device][dtype][statistic]``: the largest null ratio, over ``seeds[device]`` honest runs."""

    largest: Mapping[str, Mapping[str, Mapping[str, float]]]
    seeds: Mapping[str, int]

    def factor(self, device: torch.device, dtype: torch.dtype, statistic: str) -> float | None:
        """What to multiply the formula's allowance by, at least 1; None where the null is not calibrated."""
        if self.seeds.get(device.type, 0) < LEAST_SEEDS:
            return None
        found = self.largest.get(device.type, {}).get(str(dtype).removeprefix("torch."), {}).get(statistic)
        if found is None:
            return None
        return max(1.0, found * _margin(statistic))


def _margin(statistic: str) -> float:
    if statistic.startswith("norm") or statistic == "max":
        return MARGIN_OF_NORMS
    return MARGIN_OF_GAINS if statistic in GAINS else MARGIN_OF_PROJECTIONS


@cache
def packaged() -> Calibration:
    """The table that came with this package. Raises AprenderError where it can't be read."""
    try:
        table = json.loads(files("aprender.parity").joinpath("calibration.json").read_text("utf-8"))
        return Calibration(table["largest"], table["seeds"])
    except (OSError, ValueError, KeyError) as error:
        raise AprenderError(f"aprender/parity/calibration.json: {error}; bench/parity_null.py writes it") from error


def uncalibrated() -> Calibration:
    """Plain formulas that all alarm: for calibrating, where no limit may come from an earlier calibration."""
    statistics = [f"norm {system}" for system in ("tensor", "row", "column", "head", "tile", "small rows")]
    ones = dict.fromkeys([*statistics, "max", *GAINS, "gain", "direction", "channel mean"], 0.0)
    kinds = dict.fromkeys(("float32", "bfloat16", "float16"), ones)
    return Calibration({"cpu": kinds, "cuda": kinds}, {"cpu": LEAST_SEEDS, "cuda": LEAST_SEEDS})

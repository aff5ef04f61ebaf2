"""A comparison as text for people: one line a stage, and what is known of the first that is not GREEN."""

from __future__ import annotations

import math
from collections.abc import Iterable

from aprender.parity.record import Comparison, StageRecord, worst

HEADINGS = ("verdict", "stage", "forward", "backward", "worst tensor", "statistic", "where", "sensitivity", "limit")


def comparison_text(comparison: Comparison) -> str:
    """The whole table. ``forward`` and ``backward`` are observed/allowed: up to 1 is what rounding explains."""
    names = list(dict.fromkeys(record.stage for record in comparison.records))
    rows = [HEADINGS, *(_row(name, comparison.of(name)) for name in names)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    reasons = dict.fromkeys(f"{r.stage} {r.tensor}: {r.reason}" for r in comparison.records if r.verdict == "ERROR")
    unjudged = sorted({name.split(":")[0] for record in comparison.records for name in record.uncalibrated})
    notes = [f"Reported, not judged (not calibrated on this device): {', '.join(unjudged)}."] if unjudged else []
    return "\n".join([*lines, "", *_errors(list(reasons)), *notes, *first_text(comparison)])


def first_text(comparison: Comparison) -> list[str]:
    """The summary: the verdict, what was compared, and everything known of the first stage that is wrong."""
    elements = sum(record.elements for record in comparison.records)
    names = {record.stage for record in comparison.records}
    head = f"{comparison.verdict}: {len(names)} stages, {len(comparison.records)} tensors, {elements} elements compared"
    first = comparison.first
    if first is None or first.verdict == "ERROR":
        return [f"{head}; largest observed/allowed {number(comparison.ratio)}."]
    lines = [f"{head}. First stage that is wrong: {first.stage}, {first.direction}, {first.tensor}."]
    lines.append(
        f"  {first.statistic} at {first.block}: observed {first.observed:.3g}, allowed {first.allowed:.3g}, "
        f"ratio {number(first.ratio)}; relative error {first.relative_error:.2e} in {first.dtype}"
    )
    if first.worst is not None:
        index, candidate, oracle = first.worst
        lines.append(f"  worst element {list(index)}: {candidate:.6g}, the oracle's {oracle:.6g}")
    return lines + _reproducer(first)


def number(x: float) -> str:
    """A ratio, short: two decimals below ten, three digits above."""
    if math.isnan(x):
        return "-"
    return f"{x:.2f}" if x < 10 else f"{x:.3g}"


def _row(name: str, comparison: Comparison) -> tuple[str, ...]:
    judged = [record for record in comparison.records if record.statistic]
    first = max(judged, key=lambda record: record.ratio, default=None)
    sensitivity = min((s for record in judged for s in record.sensitivity.values()), default=math.nan)
    limit = max((x for record in judged for x in record.detection_limit.values()), default=math.nan)
    where = ("-", "-", "-") if first is None else (first.tensor, first.statistic, first.block)
    return (
        worst(record.verdict for record in comparison.records),
        name,
        number(_largest(judged, "forward")),
        number(_largest(judged, "backward")),
        *where,
        number(sensitivity),
        "-" if math.isnan(limit) else f"{limit:.1e}",
    )


def _largest(records: Iterable[StageRecord], direction: str) -> float:
    return max((record.ratio for record in records if record.direction == direction), default=math.nan)


def _errors(reasons: list[str]) -> list[str]:
    shown = 12
    more = [f"ERROR {len(reasons) - shown} more (--json has all)"] if len(reasons) > shown else []
    return [f"ERROR {reason}" for reason in reasons[:shown]] + more


def _reproducer(record: StageRecord) -> list[str]:
    found = record.reproducer
    if found is None:
        return []
    rows, positions = (f"{start}-{stop - 1}" if stop else "all" for start, stop in (found.rows, found.positions))
    shapes = ", ".join(str(list(shape)) for shape in found.shapes)
    return [f"  smallest reproducer: seed {found.seed}, rows {rows}, positions {positions}, inputs {shapes}"]

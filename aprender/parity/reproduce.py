"""The smallest reproducer: fewer rows and fewer positions while the stage stays RED."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from aprender.parity.calibration import Calibration
from aprender.parity.compare import compare_stage
from aprender.parity.record import Reproducer, StageRecord
from aprender.parity.stages import Candidate, ReferenceStage

Span = tuple[int, int]


def smallest(
    stage: ReferenceStage, candidate: Candidate, record: StageRecord, calibration: Calibration | None = None
) -> Reproducer:
    """Shrink the input of a RED ``record`` to the fewest rows and positions on which its tensor is still RED.

    Halves are tried first, either of them, then ever smaller pieces from either end. Positions keep what belongs to
    them: tables and masks are cut with them.
    """
    rows, positions = _extent(stage)
    crop = cropping(stage)

    def ratio(rows: Span, positions: Span) -> float:
        smaller = crop(slice(*rows), slice(*positions))
        found = compare_stage(smaller, candidate, backward=record.direction == "backward", calibration=calibration)
        same = (r for r in found.records if r.direction == record.direction and r.tensor == record.tensor)
        return next((r.ratio for r in same if r.verdict == "RED"), 0.0)

    best = (0, rows), (0, positions)
    worst = record.ratio
    for axis in (1, 0):
        shrunk = True
        while shrunk:
            shrunk = False
            for span in _shorter(best[axis]):
                trial = (best[0], span) if axis else (span, best[1])
                found = ratio(*trial)
                if found > 1:
                    best, worst, shrunk = trial, found, True
                    break
    final = crop(slice(*best[0]), slice(*best[1]))
    return Reproducer(stage.seed, *best, tuple(tuple(x.shape) for x in final.inputs), worst)


def reproduced(
    stage: ReferenceStage,
    candidate: Candidate,
    records: Sequence[StageRecord],
    calibration: Calibration | None = None,
) -> list[StageRecord]:
    """The same records, the first RED one with its smallest reproducer."""
    found = list(records)
    for i, record in enumerate(found):
        if record.verdict == "RED":
            found[i] = replace(record, reproducer=smallest(stage, candidate, record, calibration))
            break
    return found


def cropping(stage: ReferenceStage) -> Callable[[slice, slice], ReferenceStage]:
    """Cut the first input by its first two axes, and every other by the axes that are as long as those.

    A length that means something else by chance makes shapes that do not fit: then nothing is cut.
    """
    rows, positions = _extent(stage)

    def cut(i: int, x: Tensor, r: slice, p: slice) -> Tensor:
        last = min(x.ndim, 2) if i == 0 else x.ndim
        places = [
            r if axis == 0 and x.shape[0] == rows else p if positions and x.shape[axis] == positions else slice(None)
            for axis in range(last)
        ]
        return x[tuple(places)]

    return lambda r, p: replace(stage, inputs=tuple(cut(i, x, r, p) for i, x in enumerate(stage.inputs)))


def _extent(stage: ReferenceStage) -> tuple[int, int]:
    """Rows and positions of the first input: [B, T, ...], or tokens [B, T]; (M, 0) where only rows are known."""
    x = stage.inputs[0]
    if x.ndim > 2 or (x.ndim == 2 and not x.is_floating_point()):
        return x.shape[0], x.shape[1]
    return (len(x) if x.ndim else 1), 0


def _shorter(span: Span) -> Iterator[Span]:
    """The span without its second half, its first, its last quarter, its first ... down to one step."""
    start, stop = span
    cut = (stop - start) // 2
    while cut:
        yield start, stop - cut
        yield start + cut, stop
        cut //= 2

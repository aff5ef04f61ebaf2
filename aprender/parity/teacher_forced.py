"""Teacher-forced comparison: every stage is fed the reference's inputs, forward and backward, in one pass.

No error propagates from one stage to the next, so the first stage that is RED is where the defect is, and several
defects are seen at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aprender.errors import AprenderError
from aprender.parity.calibration import Calibration
from aprender.parity.compare import compare_stage, failure
from aprender.parity.names import check_names
from aprender.parity.record import Comparison, StageRecord
from aprender.parity.reproduce import reproduced
from aprender.parity.stages import Candidate, Reference, ReferenceStage


def teacher_forced(
    reference: Reference,
    candidates: Mapping[str, Candidate],
    *,
    backward: bool = True,
    with_limits: bool = False,
    calibration: Calibration | None = None,
) -> Comparison:
    """Compare every stage; the first that is RED gets its smallest reproducer.

    One stage is in memory at a time. What fails at a stage is its ERROR; a reference that fails leaves the rest ERROR.
    Raises AprenderError where the two sides do not have the same names.
    """
    check_names(reference.names, candidates)
    records: list[StageRecord] = []
    seen: list[str] = []
    for stage in _made(reference):
        if isinstance(stage, str):
            records += [StageRecord(name, "forward", "output", "ERROR", stage) for name in reference.names[len(seen) :]]
            return Comparison(tuple(records))
        seen.append(stage.name)
        if stage.name not in candidates:
            break
        found = compare_stage(
            stage, candidates[stage.name], backward=backward, with_limits=with_limits, calibration=calibration
        ).records
        first = not any(record.verdict == "RED" for record in records)
        records += reproduced(stage, candidates[stage.name], found, calibration) if first else found
    if seen != list(reference.names):
        raise AprenderError(f"the reference promised the stages {list(reference.names)} and made {seen}")
    return Comparison(tuple(records))


def _made(reference: Reference) -> Iterator[ReferenceStage | str]:
    """The stages of the reference; where making one fails, why, and none after it."""
    try:
        yield from reference.stages()
    except Exception as error:  # noqa: BLE001 - a reference may raise anything; what was compared so far is kept
        yield f"the reference failed at making this stage, or one before it: {failure(error)}"

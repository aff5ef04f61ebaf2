"""Teacher-forced comparison: every stage is fed the reference's inputs, forward and backward, in one pass.

No error propagates from one stage to the next, so the first stage that is RED is where the defect is, and several
defects are seen at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from aprender.errors import AprenderError
from aprender.parity.calibration import Calibration
from aprender.parity.compare import compare_stage
from aprender.parity.names import check_names
from aprender.parity.record import Comparison, StageRecord
from aprender.parity.reproduce import reproduced
from aprender.parity.stages import Candidate, Reference


def teacher_forced(
    reference: Reference,
    candidates: Mapping[str, Candidate],
    *,
    backward: bool = True,
    with_limits: bool = False,
    calibration: Calibration | None = None,
) -> Comparison:
    """Compare every stage; the first that is RED gets its smallest reproducer.

    One stage is in memory at a time. Raises AprenderError where the two sides do not have the same names.
    """
    check_names(reference.names, candidates)
    records: list[StageRecord] = []
    seen: list[str] = []
    for stage in reference.stages():
        seen.append(stage.name)
        candidate = candidates[stage.name]
        found = compare_stage(
            stage, candidate, backward=backward, with_limits=with_limits, calibration=calibration
        ).records
        first = not any(record.verdict == "RED" for record in records)
        records += reproduced(stage, candidate, found, calibration) if first else found
    if seen != list(reference.names):
        raise AprenderError(f"the reference promised the stages {list(reference.names)} and made {seen}")
    return Comparison(tuple(records))

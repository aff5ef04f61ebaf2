"""JSON for machines: one object per command."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from aprender.contracts.findings import Finding
from aprender.falsify.gate import Standing, ship_percentage
from aprender.falsify.record import FalsifierRun


def runs_json(
    runs: Sequence[FalsifierRun], findings: Sequence[Finding], unrecorded: Sequence[str], exit_code: int
) -> str:
    """``falsifiers``, ``counts`` by verdict, ``findings`` of contracts not run, ``unrecorded``, ``exit_code``.

    ``unrecorded`` says why evidence could not be written.
    """
    return _dump(
        {
            "falsifiers": [run.to_json() for run in runs],
            "counts": dict(Counter(str(run.verdict) for run in runs)),
            "findings": [finding.to_json() for finding in findings],
            "unrecorded": list(unrecorded),
            "exit_code": exit_code,
        }
    )


def standings_json(found: Sequence[Standing], findings: Sequence[Finding], exit_code: int) -> str:
    """``falsifiers``, ``counts`` by verdict, ``ship_percentage``, ``findings``, ``exit_code``."""
    return _dump(
        {
            "falsifiers": [standing.to_json() for standing in found],
            "counts": dict(Counter(str(standing.verdict) for standing in found)),
            "ship_percentage": ship_percentage(found),
            "findings": [finding.to_json() for finding in findings],
            "exit_code": exit_code,
        }
    )


def _dump(data: object) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)

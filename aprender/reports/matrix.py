"""The record of a run by defect: every declared defect class against every falsifier that declares it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aprender.contracts.contract import DefectClass
from aprender.contracts.findings import Finding
from aprender.falsify.record import FalsifierRun, Outcome, Witness


@dataclass(frozen=True)
class Matrix:
    """The runs of one contract's falsifiers, and by defect class and falsifier what became of it."""

    contract: Path
    runs: tuple[FalsifierRun, ...]
    cells: dict[str, dict[str, Witness]]

    def count(self, outcome: Outcome) -> int:
        """How many cells came out as ``outcome``."""
        return sum(cell.outcome is outcome for row in self.cells.values() for cell in row.values())


def matrices(runs: Sequence[FalsifierRun]) -> list[Matrix]:
    """One matrix per contract, in the order of ``runs``; its classes in the order of their first declaration."""
    by_contract: dict[Path, list[FalsifierRun]] = {}
    for run in runs:
        by_contract.setdefault(run.contract.path, []).append(run)
    return [_matrix(path, members) for path, members in by_contract.items()]


def matrices_json(
    runs: Sequence[FalsifierRun], device: str, findings: Sequence[Finding], unrecorded: Sequence[str], exit_code: int
) -> str:
    """One object: how many pairs of a defect class and a falsifier that declares it there are, and every one of them.

    ``declared``, ``planted``, ``caught``, ``survived``, ``inert``, ``not_planted``, ``crashed``: counts of pairs.
    ``matrix``: by contract, class and falsifier; ``falsifiers``: their runs; the rest is as of ``pv run``.
    """
    found = matrices(runs)
    report = {
        "device": device,
        **totals(found),
        "matrix": [_plain(matrix) for matrix in found],
        "falsifiers": [_without_witnesses(run) for run in runs],
        "counts": dict(Counter(str(run.verdict) for run in runs)),
        "findings": [finding.to_json() for finding in findings],
        "unrecorded": list(unrecorded),
        "exit_code": exit_code,
    }
    return json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)


def totals(found: Sequence[Matrix]) -> dict[str, int]:
    """How many pairs are declared, how many of them were planted, and what became of all: the denominators."""
    outcomes = {str(outcome): sum(matrix.count(outcome) for matrix in found) for outcome in Outcome}
    declared = sum(outcomes.values())
    return {"declared": declared, "planted": declared - outcomes[Outcome.NOT_PLANTED], **outcomes}


def _matrix(path: Path, runs: Sequence[FalsifierRun]) -> Matrix:
    cells: dict[str, dict[str, Witness]] = {}
    for run in runs:
        for witness in _witnesses(run):
            cells.setdefault(witness.defect, {})[run.falsifier.id] = witness
    return Matrix(path, tuple(runs), cells)


def _witnesses(run: FalsifierRun) -> Iterator[Witness]:
    """One for every declared class: those that the run did not come to were not planted, and it says why."""
    seen = {witness.defect: witness for witness in run.witnesses}
    for defect in run.falsifier.defect_classes:
        yield seen.get(defect.name) or _never_planted(run, defect)


def _never_planted(run: FalsifierRun, defect: DefectClass) -> Witness:
    reason = f"the falsifier is {run.verdict}, and defects are planted only into what is GREEN: {run.reason}"
    return Witness(defect.name, Outcome.NOT_PLANTED, reason)


def _plain(matrix: Matrix) -> dict[str, Any]:
    return {
        "contract": str(matrix.contract),
        "falsifiers": [run.falsifier.id for run in matrix.runs],
        "defects": {
            defect: {
                falsifier: {key: value for key, value in cell.to_json().items() if key != "defect"}
                for falsifier, cell in row.items()
            }
            for defect, row in matrix.cells.items()
        },
    }


def _without_witnesses(run: FalsifierRun) -> dict[str, Any]:
    plain = {key: value for key, value in run.to_json().items() if key != "witnesses"}
    return {**plain, "system": dict(run.provenance.get("system", {}))}

"""The record of a run by defect, for people: each falsifier with its defect classes, then all of them at a glance."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from aprender.falsify.judge import Judged
from aprender.falsify.record import FalsifierRun, Outcome, Witness
from aprender.falsify.verdict import Verdict
from aprender.reports.colour import coloured
from aprender.reports.matrix import Matrix, matrices, totals
from aprender.reports.text import COLOURS, bound_text, details_text, limit_text, plural, work_text

_WIDTH = 118
_LETTERS = {
    Outcome.CAUGHT: "C", Outcome.SURVIVED: "S", Outcome.INERT: "I", Outcome.NOT_PLANTED: "N", Outcome.CRASHED: "X",
}  # fmt: skip
_UNDECLARED = "."


def matrices_text(runs: Sequence[FalsifierRun]) -> str:
    """By falsifier and class what was measured against what is allowed, a compact matrix, and one closing line."""
    found = matrices(runs)
    parts = [part for matrix in found for part in (*_falsifiers(matrix), _at_a_glance(matrix))]
    return "\n\n".join([*parts, _closing(found, runs)])


def _falsifiers(matrix: Matrix) -> Iterator[str]:
    for number, run in enumerate(matrix.runs, 1):
        cells = [row[run.falsifier.id] for row in matrix.cells.values() if run.falsifier.id in row]
        yield "\n".join([_head(number, run, cells), *_rows(run, cells)])


def _head(number: int, run: FalsifierRun, cells: Sequence[Witness]) -> str:
    caught = sum(cell.outcome is Outcome.CAUGHT for cell in cells)
    verdict = coloured(run.verdict, COLOURS[run.verdict], bold=True)
    limit = f"; {text}" if (text := limit_text(run)) else ""
    head = f"{number}  {run.falsifier.id}  {verdict}  {caught} of {len(cells)} caught{limit}"
    if run.verdict is Verdict.GREEN or (run.verdict is Verdict.UNPROVEN and caught < len(cells)):
        return head  # the rows below say why
    return f"{head}\n{textwrap.indent(details_text(run), '   ')}"


def _rows(run: FalsifierRun, cells: Sequence[Witness]) -> Iterator[str]:
    """What was not caught comes first."""
    if not run.witnesses:
        return  # nothing was planted, for the one reason that the head gives
    width = max(len(cell.defect) for cell in cells)
    for cell in sorted(cells, key=lambda cell: cell.outcome is Outcome.CAUGHT):
        colour = "green" if cell.outcome is Outcome.CAUGHT else "yellow"
        outcome = coloured(cell.outcome.words.ljust(11), colour)
        yield f"   {outcome}  {cell.defect.ljust(width)}  {_why(run, cell)}"


def _why(run: FalsifierRun, cell: Witness) -> str:
    if cell.outcome is not Outcome.CAUGHT:
        return cell.detail
    more = f" (and {len(cell.violated) - 1} more)" if len(cell.violated) > 1 else ""
    return f"{_violated(run, cell.violated[0])}{more}"


def _violated(run: FalsifierRun, judged: Judged) -> str:
    if judged.left is None or judged.right is None:
        return f"not {judged.text}"
    comparison = next(c for c in run.falsifier.expectations if c.text == judged.text)
    left, right = comparison.side_texts()
    return f"{left} = {judged.left:.6g}, not {comparison.symbol} {bound_text(right, judged.right)}"


def _at_a_glance(matrix: Matrix) -> str:
    """Classes with the same outcome under every falsifier share a line."""
    ids = [run.falsifier.id for run in matrix.runs]
    patterns: dict[str, list[str]] = {}
    for defect, row in matrix.cells.items():
        letters = (_LETTERS[row[name].outcome] if name in row else _UNDECLARED for name in ids)
        patterns.setdefault(" ".join(letters), []).append(defect)
    size = f"{plural(len(matrix.cells), 'defect class', 'es')} x {plural(len(ids), 'falsifier')}"
    lines = [f"{matrix.contract}: {size}", "   " + " ".join(str(number % 10) for number in range(1, len(ids) + 1))]
    for pattern, defects in sorted(patterns.items()):
        head = f"   {pattern}  {len(defects):3}  "
        lines.append(textwrap.fill(", ".join(defects), _WIDTH, initial_indent=head, subsequent_indent=" " * len(head)))
    return "\n".join(lines)


def _closing(found: Sequence[Matrix], runs: Sequence[FalsifierRun]) -> str:
    legend = ", ".join(f"{letter} {outcome.words}" for outcome, letter in _LETTERS.items())
    counts = totals(found)
    others = ", ".join(f"{counts[o]} {o.words}" for o in Outcome if o is not Outcome.CAUGHT)
    planted = (
        f"{counts['caught']} of {counts['declared']} declared defects caught ({counts['planted']} planted; {others})"
    )
    return f"{legend}, {_UNDECLARED} not declared\n\n{plural(len(runs), 'falsifier')}: {planted}; {work_text(runs)}"

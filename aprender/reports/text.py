"""Plain text for people: aligned columns, colour only on the verdicts (the command line strips it where unwanted)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aprender.falsify.gate import Standing, ship_percentage
from aprender.falsify.judge import Judged
from aprender.falsify.record import FalsifierRun, Outcome
from aprender.falsify.verdict import Verdict
from aprender.reports.colour import coloured
from aprender.reports.table import aligned

COLOURS = {
    Verdict.GREEN: "green", Verdict.RED: "red", Verdict.TAMPERED: "red", Verdict.ERROR: "magenta",
    Verdict.UNPROVEN: "yellow", Verdict.STALE: "yellow", Verdict.SKIPPED: "cyan",
}  # fmt: skip


def runs_text(runs: Sequence[FalsifierRun]) -> str:
    """The table of verdicts, details of what is not GREEN, and one closing line."""
    header = ("FALSIFIER", "VERDICT", "MEASURED AGAINST BOUND", "DEFECTS", "TIME")
    rows: list[tuple[str, ...]] = [header]
    for run in runs:
        measured = [_measured(run, judged) for judged in run.expectations] or ["-"]
        measured += filter(None, (limit_text(run),))
        rows.append((run.falsifier.id, run.verdict, measured[0], _defects(run), _time(run)))
        rows += [("", "", line, "", "") for line in measured[1:]]
    details = [details_text(run) for run in runs if run.verdict is not Verdict.GREEN]
    return "\n\n".join([_table(rows), *details, _closing(runs)])


def details_text(run: FalsifierRun) -> str:
    """Why a falsifier is not GREEN; for RED also prediction, observation, where to look, and its place."""
    verdict = coloured(run.verdict, COLOURS[run.verdict], bold=True)
    lines = [f"{run.falsifier.id} is {verdict}: {run.reason}"]
    if run.verdict is Verdict.RED:
        at = run.falsifier.position
        observed = ", ".join(f"{name} = {value:.6g} {run.units[name]}".rstrip() for name, value in run.values.items())
        lines += [
            f"  prediction:  {_one_line(run.falsifier.prediction)}",
            f"  observation: {observed}",
            f"  if it fails: {_one_line(run.falsifier.if_fails)}",
            f"  stated at:   {run.contract.path}:{at.line}:{at.column}",
        ]
    return "\n".join(lines)


def standings_text(found: Sequence[Standing]) -> str:
    """The table of present verdicts, the computed ship percentage and what the author's claims are worth."""
    rows: list[tuple[str, ...]] = [("FALSIFIER", "VERDICT", "SHIP-BLOCKING", "EVIDENCE", "REASON")]
    for standing in found:
        evidence = f"{standing.device} {standing.evidence['observed_at'][:16]}" if standing.evidence else "-"
        blocking = "yes" if standing.falsifier.ship_blocking else "no"
        rows.append((standing.falsifier.id, standing.verdict, blocking, evidence, standing.reason))
    percentage = ship_percentage(found)
    blocking_count = sum(standing.falsifier.ship_blocking for standing in found)
    green = sum(s.falsifier.ship_blocking and s.verdict is Verdict.GREEN for s in found)
    ship = "no ship-blocking falsifier" if percentage is None else f"ship {percentage:.0f}% ({green}/{blocking_count})"
    return f"{_table(rows)}\n\n{ship}"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    lines = []
    for row, cells in zip(rows, aligned(rows), strict=True):
        if isinstance(row[1], Verdict):
            cells[1] = coloured(cells[1], COLOURS[row[1]], bold=True)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _measured(run: FalsifierRun, judged: Judged) -> str:
    if judged.left is None or judged.right is None:
        return f"{judged.text}: no value"
    comparison = next(c for c in run.falsifier.expectations if c.text == judged.text)
    left, right = comparison.side_texts()
    unit = run.units.get(left, "")
    mark = "" if judged.holds else "  FAILS"
    bound = bound_text(right, judged.right)
    return f"{left} = {judged.left:.6g}{' ' if unit else ''}{unit} {comparison.symbol} {bound}{mark}"


def bound_text(text: str, value: float) -> str:
    """A bound's value, and how the contract writes it where that is not the same."""
    number = f"{value:.6g}"
    try:
        return number if float(text) == value else f"{number} ({text})"
    except ValueError:
        return f"{number} ({text})"


def _defects(run: FalsifierRun) -> str:
    if not run.witnesses:
        return "-"
    parts = [f"{run.count(Outcome.CAUGHT)}/{len(run.falsifier.defect_classes)} caught"]
    shown = [o for o in Outcome if o is not Outcome.CAUGHT and (run.count(o) or o is Outcome.INERT)]
    return ", ".join(parts + [f"{run.count(outcome)} {outcome.words}" for outcome in shown])


def limit_text(run: FalsifierRun) -> str | None:
    """The smallest corruption that would be RED, where the probe observes it (docs/falsifiers.md)."""
    if (limit := run.values.get("detection_limit")) is None:
        return None
    size = run.values.get("detection_limit_size")
    unit = f" {run.units['detection_limit']}".rstrip()
    return f"detection limit: one element off by {limit:.3g}{unit}" + ("" if size is None else f" ({size:.3g})")


def _time(run: FalsifierRun) -> str:
    reused = "" if not run.reused else f" ({run.reused}/{run.observed} reused)"
    return f"{run.seconds:.1f} s{reused}"


def _closing(runs: Sequence[FalsifierRun]) -> str:
    counts = ", ".join(f"{sum(r.verdict is v for r in runs)} {v}" for v in Verdict if any(r.verdict is v for r in runs))
    planted = sum(len(run.witnesses) for run in runs)
    caught = sum(run.count(Outcome.CAUGHT) for run in runs)
    return (
        f"{plural(len(runs), 'falsifier')}: {counts}; {caught} of {planted} planted defects caught; {work_text(runs)}"
    )


def work_text(runs: Sequence[FalsifierRun]) -> str:
    """How much was observed, and how much of it anew."""
    observed, reused = sum(run.observed for run in runs), sum(run.reused for run in runs)
    if observed and observed == reused:
        return f"nothing changed: all {observed} observations reused, nothing was run again"
    return f"{observed} observations, {reused} reused from earlier runs"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def plural(count: int, word: str, ending: str = "s") -> str:
    """A number and its noun."""
    return f"{count} {word}{'' if count == 1 else ending}"


def claims_text(found: Iterable[Standing]) -> str | None:
    """What contracts claim (``metadata.status``) against what evidence shows; None where nothing is claimed."""
    by_contract: dict[str, list[Standing]] = {}
    for standing in found:
        by_contract.setdefault(str(standing.contract.path), []).append(standing)
    lines = []
    for path, members in by_contract.items():
        claim = members[0].contract.status
        if claim in ("ACTIVE", "DISCHARGED"):
            open_ids = [s.falsifier.id for s in members if s.falsifier.ship_blocking and s.verdict is not Verdict.GREEN]
            held = "evidence supports it" if not open_ids else f"evidence does not support it: {', '.join(open_ids)}"
            lines.append(f"{path} claims {claim}: {held}")
        elif claim == "DRAFT_RED":
            shown = any(s.verdict in (Verdict.RED, Verdict.UNPROVEN) for s in members)
            lines.append(f"{path} claims DRAFT_RED: {'so it is' if shown else 'but nothing is RED or unproven'}")
    return "\n".join(lines) or None

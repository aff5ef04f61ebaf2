"""One finding for people: where, what, and the source line with a caret."""

from __future__ import annotations

from aprender.contracts.findings import Finding
from aprender.reports.colour import coloured
from aprender.reports.excerpt import excerpt, shown

_COLOURS = {"error": "red", "warning": "yellow"}


def finding_text(finding: Finding, file: str, *, colour: bool) -> list[str]:
    """The lines of ``finding``; ``file`` is how its file is called."""
    head = finding_line(finding, file, colour=colour)
    below = excerpt(finding.source, finding.line, finding.column)
    if colour and below:
        below[-1] = below[-1].replace("^", coloured("^", _COLOURS[finding.severity], bold=True))
    return [head, *below]


def finding_line(finding: Finding, file: str, *, colour: bool = False) -> str:
    """Where and what, in one line."""
    severity = coloured(finding.severity, _COLOURS[finding.severity], bold=True) if colour else finding.severity
    return f"{shown(file)}:{finding.line}:{finding.column}: {severity} {finding.rule} {shown(finding.message)}"

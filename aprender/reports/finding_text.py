"""One finding for people: where, what, and the source line with a caret."""

from __future__ import annotations

from aprender.contracts.findings import Finding
from aprender.reports.colour import coloured
from aprender.reports.excerpt import excerpt, shown

_COLOURS = {"error": "red", "warning": "yellow"}


def finding_text(finding: Finding, file: str, *, colour: bool) -> list[str]:
    """The lines of ``finding``; ``file`` is how its file is called."""
    severity = coloured(finding.severity, _COLOURS[finding.severity], bold=True) if colour else finding.severity
    place = f"{shown(file)}:{finding.line}:{finding.column}"
    head = f"{place}: {severity} {finding.rule} {shown(finding.message)}"
    below = excerpt(finding.source, finding.line, finding.column)
    if colour and below:
        below[-1] = below[-1].replace("^", coloured("^", _COLOURS[finding.severity], bold=True))
    return [head, *below]

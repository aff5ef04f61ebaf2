"""The source line of findings that were made where the text was not at hand: across files, of probes, of evidence."""

from __future__ import annotations

from collections.abc import Iterable

from aprender.contracts.files import STANDARD_INPUT, read_content
from aprender.contracts.findings import Finding

LONGEST = 1000  # as of the findings of one file


def with_source_lines(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, each with the text of its line; standard input can't be read twice and stays as it is."""
    texts: dict[str, list[str]] = {}
    completed: list[Finding] = []
    for finding in findings:
        if not finding.source and finding.file != STANDARD_INPUT:
            lines = texts.get(finding.file)
            if lines is None:
                lines = texts[finding.file] = _lines(finding.file)
            if finding.line <= len(lines):
                finding = finding._replace(source=lines[finding.line - 1][:LONGEST])
        completed.append(finding)
    return completed


def _lines(file: str) -> list[str]:
    from aprender.contracts.syntax import lines_of

    content = read_content(file)
    return [] if isinstance(content, Finding) else lines_of(content.decode("utf-8-sig", "replace"))

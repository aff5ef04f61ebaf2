"""Findings as JUnit XML: one test case per file, which fails where the file has errors (with strict: or warnings)."""

from __future__ import annotations

from collections.abc import Sequence

from aprender.contracts.findings import Finding
from aprender.contracts.validate import Validation
from aprender.reports.excerpt import shown
from aprender.reports.hidden import Hidden
from aprender.reports.validation_text import file_name, plural, summary

SUITE = "pv validate"


def validation_junit(result: Validation, hidden: Hidden, *, strict: bool = False) -> str:
    """One XML document. It is ASCII, so no encoding can break it; what XML can't hold is escaped as in the text."""
    by_file: dict[str, list[Finding]] = {file: [] for file in result.files}
    for finding in result.findings:
        by_file.setdefault(finding.file, []).append(finding)
    failing = [any(finding.severity == "error" or strict for finding in found) for found in by_file.values()]
    counts = f'tests="{len(by_file)}" failures="{sum(failing)}" errors="0"'
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f"<testsuites {counts}>",
        f'  <testsuite name="{SUITE}" {counts} skipped="0">',
        *(_case(file, found, fails) for (file, found), fails in zip(by_file.items(), failing, strict=True)),
        f"    <system-out>{_text(summary(result, hidden=hidden, strict=strict))}</system-out>",
        "  </testsuite>",
        "</testsuites>",
    ]
    return "\n".join(lines).encode("ascii", "xmlcharrefreplace").decode()


def _case(file: str, found: Sequence[Finding], fails: bool) -> str:
    head = f'    <testcase classname="{SUITE}" name="{_text(file_name(file))}"'
    if not found:
        return f"{head}/>"
    told = "\n".join(_line(finding) for finding in found)
    if not fails:
        return f"{head}>\n      <system-out>{told}</system-out>\n    </testcase>"
    errors = sum(finding.severity == "error" for finding in found)
    message = f"{plural(errors, 'error')}, {plural(len(found) - errors, 'warning')}"
    return f'{head}>\n      <failure message="{message}" type="{found[0].rule}">{told}</failure>\n    </testcase>'


def _line(finding: Finding) -> str:
    place = f"{file_name(finding.file)}:{finding.line}:{finding.column}"
    return _text(f"{place}: {finding.severity} {finding.rule} {finding.message}")


def _text(text: str) -> str:
    """``text`` for XML, as content or between double quotes."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return shown(text)

"""What ``pv validate`` tells programs: one JSON object, documented in docs/validate.md."""

from __future__ import annotations

import json

from aprender.contracts.validate import Validation
from aprender.reports.hidden import Hidden
from aprender.reports.validation_text import file_name

FORMAT_VERSION = 1  # grows where a key changes its meaning or goes; new keys may come at any time


def validation_json(result: Validation, hidden: Hidden, exit_code: int) -> str:
    """``format_version``, ``files``, ``passed_over``, ``findings``, ``counts``, ``ignored``, ``exit_code``.

    It is ASCII: what a stranger's contract says goes through any terminal and any encoding unchanged.
    """
    report = {
        "format_version": FORMAT_VERSION,
        "files": [file_name(file) for file in result.files],
        "passed_over": list(result.passed_over),
        "findings": [
            {
                "file": file_name(finding.file), "line": finding.line, "column": finding.column,
                "rule": finding.rule, "severity": finding.severity, "message": finding.message,
            }
            for finding in result.findings
        ],
        "counts": counts(result),
        "ignored": hidden._asdict(),
        "exit_code": exit_code,
    }  # fmt: skip
    return json.dumps(report, indent=2, allow_nan=False)


def counts(result: Validation) -> dict[str, int]:
    """The denominators, and how many findings there are."""
    return {
        "contracts": len(result.files),
        "falsifiers": result.falsifiers,
        "expectations": result.expectations,
        "errors": result.errors,
        "warnings": result.warnings,
    }

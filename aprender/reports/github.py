"""Findings as workflow commands: GitHub shows each beside the line that it is about.

https://docs.github.com/en/actions/writing-workflows/choosing-what-your-workflow-does/workflow-commands-for-github-actions
"""

from __future__ import annotations

import os

from aprender.contracts.findings import Finding
from aprender.contracts.validate import Validation
from aprender.reports.excerpt import shown
from aprender.reports.hidden import Hidden
from aprender.reports.validation_text import file_name, summary


def validation_github(result: Validation, hidden: Hidden, *, strict: bool = False) -> str:
    """One command per finding, and the summary for the log."""
    return "\n".join([*map(_command, result.findings), summary(result, hidden=hidden, strict=strict)])


def _command(finding: Finding) -> str:
    values = {
        "file": _from_the_workspace(finding.file), "line": str(finding.line), "col": str(finding.column),
        "title": finding.rule,
    }  # fmt: skip
    properties = ",".join(f"{key}={_property(value)}" for key, value in values.items())
    return f"::{finding.severity} {properties}::{_data(finding.message)}"


def _from_the_workspace(file: str) -> str:
    """Annotations find their file by its path from the top of the checkout."""
    workspace = os.environ.get("GITHUB_WORKSPACE")
    if file == "-" or not workspace:
        return file_name(file)
    path = os.path.relpath(os.path.realpath(file), os.path.realpath(workspace))
    return file if path.startswith("..") else path.replace(os.sep, "/")


def _data(text: str) -> str:
    """The text of a command. A line break would end it, and what follows could be another command."""
    return shown(text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")

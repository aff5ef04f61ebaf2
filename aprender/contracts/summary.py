"""What rules across files need of a contract: plain data, small, kept in the cache."""

from __future__ import annotations

from typing import NamedTuple

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding


class Summary(NamedTuple):
    file: str
    falsifiers: int
    expectations: int
    version_2: bool


class Checked(NamedTuple):
    """What one file gave: findings by position, and what rules across files need of it (None if it can't be read)."""

    findings: list[Finding]
    summary: Summary | None


def summary_of(document: Document) -> Summary:
    tests = (
        [t for t in document.data.get("falsification_tests") or () if isinstance(t, dict)]
        if isinstance(document.data, dict)
        else []
    )
    return Summary(
        document.file,
        len(tests),
        sum(len(t.get("expect") or ()) for t in tests),
        isinstance(document.data, dict) and "schema_version" in document.data,
    )

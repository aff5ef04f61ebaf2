"""Validations made by hand: what the reports are given."""

from __future__ import annotations

from aprender.contracts.findings import Finding
from aprender.contracts.validate import Validation

ERROR = Finding("contracts/a.yaml", 3, 9, "SCHEMA-002", "error", "metadata.version is empty", 'version: ""')
WARNING = Finding("contracts/b.yaml", 1, 1, "SCHEMA-013", "warning", "no qa_gate block", "metadata:")


def validation(*findings: Finding, files: int = 2, passed_over: tuple[str, ...] = ()) -> Validation:
    """``contracts/a.yaml``, ``contracts/b.yaml``, ... with three falsifiers and twelve expectations."""
    names = tuple(f"contracts/{chr(ord('a') + index)}.yaml" for index in range(files))
    return Validation(names, findings, 3, 12, passed_over)

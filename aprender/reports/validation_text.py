from __future__ import annotations

from aprender.contracts.validate import Validation


def validation_text(result: Validation, *, colour: bool = False, quiet: bool = False) -> str:
    lines = []
    for f in result.findings:
        lines.append(
            f"{f.file}:{f.line}:{f.column}: {f.rule} {'warning: ' if f.severity == 'warning' else ''}{f.message}"
        )
    lines.append(f"{len(result.files)} contracts: {result.errors} errors, {result.warnings} warnings")
    return "\n".join(lines)

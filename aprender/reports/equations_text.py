"""The equations of a contract for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from aprender.contracts.equations import Equation
from aprender.contracts.files import stem
from aprender.reports.colour import coloured
from aprender.reports.excerpt import shown
from aprender.reports.validation_text import file_name, plural

FORMAT_VERSION = 1  # grows where a key changes its meaning or goes; new keys may come at any time
_LABEL = 16  # what stands before a value is this wide, so that values align


def equations_text(file: str, equations: Sequence[Equation]) -> str:
    """One block per equation; formulas keep their lines."""
    name = file_name(file)
    blocks = [f"{shown(stem(name))}: {plural(len(equations), 'equation')}"]
    for equation in equations:
        place = f"{shown(name)}:{equation.line}:{equation.column}"
        lines = [f"{coloured(shown(equation.name), 'cyan', bold=True)}  {place}"]
        for label, values in fields(equation):
            lines += _labelled(label, values)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def equations_json(file: str, equations: Sequence[Equation], exit_code: int) -> str:
    """``file``, ``equations`` and ``exit_code``; ASCII."""
    report = {
        "format_version": FORMAT_VERSION,
        "file": file_name(file),
        "equations": [equation._asdict() for equation in equations],
        "exit_code": exit_code,
    }
    return json.dumps(report, indent=2, allow_nan=False)


def fields(equation: Equation) -> list[tuple[str, tuple[str, ...]]]:
    """What the equation has, in the order in which it is read."""
    single = [(key, (getattr(equation, key),)) for key in ("formula", "domain", "codomain") if getattr(equation, key)]
    several = [(key, getattr(equation, key)) for key in ("invariants", "preconditions", "postconditions")]
    return [*single, *((key, values) for key, values in several if values)]


def _labelled(label: str, values: Sequence[str]) -> list[str]:
    """Each value below the one before; further lines of one are indented as they are in the file."""
    lines = [line for value in values for line in value.split("\n")]
    return [f"  {label if index == 0 else '':{_LABEL}}{_shown(line)}".rstrip() for index, line in enumerate(lines)]


def _shown(line: str) -> str:
    return shown(line.expandtabs(4))

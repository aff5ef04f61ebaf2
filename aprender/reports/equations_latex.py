"""The equations of a contract as a LaTeX document that compiles as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aprender.contracts.equations import Equation
from aprender.contracts.files import stem
from aprender.reports.equations_text import fields
from aprender.reports.latex import latex_text, latex_verbatim
from aprender.reports.latex_math import latex_formula
from aprender.reports.validation_text import file_name

_HEAD = r"""\documentclass{article}
\usepackage{amsmath,amssymb}
\begin{document}
\raggedright\frenchspacing"""
_FOOT = r"\end{document}"


def equations_latex(file: str, equations: Sequence[Equation]) -> str:
    """One section for the contract, one subsection per equation."""
    lines = [_HEAD, f"\\section*{{{latex_text(stem(file_name(file)))}}}"]
    for equation in equations:
        lines += _equation(equation)
    return "\n".join([*lines, _FOOT])


def _equation(equation: Equation) -> Iterator[str]:
    yield f"\\subsection*{{{latex_text(equation.name)}}}"
    each = [(label.removesuffix("s"), value) for label, values in fields(equation) for value in values]
    items = [f"\\item[{label}] {_value(value)}" for label, value in each]
    if items:
        yield from (r"\begin{description}", *items, r"\end{description}")


def _value(text: str) -> str:
    """In math mode where every line is surely a formula; else all of it verbatim, so that its lines stay aligned."""
    lines = [latex_formula(line.strip()) for line in text.split("\n") if line.strip()]
    formulas = [line for line in lines if line is not None]
    if not lines or len(formulas) < len(lines):
        return latex_verbatim(text)
    return "\\newline\n".join(f"$\\displaystyle {line}$" for line in formulas)

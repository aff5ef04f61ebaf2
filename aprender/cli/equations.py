"""``pv equations``: the equations of one contract, for people or as LaTeX."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from aprender.cli.console import say
from aprender.cli.looked_at import HAS_ERRORS, HOLDS, add_format, documents_at
from aprender.contracts.equations import Equation, equations_of
from aprender.contracts.files import NothingToDo

FORMATS = ("text", "latex", "json")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", help="a contract, - for standard input")
    add_format(parser, FORMATS)


def run(arguments: argparse.Namespace) -> int:
    """Print the equations; 1 where the contract has errors. Raises NothingToDo where it states none."""
    file: str = arguments.file
    if os.path.isdir(file):
        raise NothingToDo(f"{file} is a folder; name one contract")
    read = documents_at([file])
    status = HAS_ERRORS if read.errors else HOLDS
    equations = [equation for document in read.documents for equation in equations_of(document)]
    if equations:
        say(_report(file, equations, arguments.format, status))
    elif not read.errors:
        raise NothingToDo(f"{file} states no equation")
    return status


def _report(file: str, equations: Sequence[Equation], form: str, status: int) -> str:
    if form == "latex":
        from aprender.reports.equations_latex import equations_latex

        return equations_latex(file, equations)
    from aprender.reports.equations_text import equations_json, equations_text

    return equations_json(file, equations, status) if form == "json" else equations_text(file, equations)

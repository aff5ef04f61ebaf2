"""``pv coverage``: how much of what contracts state a falsifier names, with denominators and with what is left over."""

from __future__ import annotations

import argparse

from aprender.cli.console import say
from aprender.cli.looked_at import HAS_ERRORS, HOLDS, add_paths, documents_at
from aprender.contracts.coverage import coverage_of
from aprender.contracts.files import NothingToDo
from aprender.reports.coverage_text import coverage_json, coverage_text
from aprender.reports.validation_text import plural


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_paths(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print the report; gaps are no failure, a contract with errors is. Raises NothingToDo where nothing is stated."""
    read = documents_at(arguments.paths)
    each, total = coverage_of(read)
    if not read.errors and not (total.obligations.total or total.equations.total or total.falsifiers.total):
        raise NothingToDo(f"no obligation, equation or falsifier in {plural(len(each), 'contract')}: nothing to cover")
    status = HAS_ERRORS if read.errors else HOLDS
    say(coverage_json(each, total, status) if arguments.json else coverage_text(each, total))
    return status

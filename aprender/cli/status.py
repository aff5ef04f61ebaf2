"""``pv status``: the present verdict of every falsifier, from evidence alone, and the computed ship percentage."""

from __future__ import annotations

import argparse

from aprender.cli.console import say
from aprender.cli.selected import add_paths, contracts_at, errors_of, print_errors
from aprender.contracts.load import Loaded
from aprender.falsify.gate import Standing, standings
from aprender.falsify.verdict import Verdict, exit_code
from aprender.reports import json_report, text


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_paths(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print; only evidence that does not verify is an error."""
    loaded = contracts_at(arguments.paths)
    found = standings(loaded.contracts)
    tampered = [standing.verdict for standing in found if standing.verdict is Verdict.TAMPERED]
    status = exit_code(tampered or [Verdict.GREEN], skipped_may_pass=False)
    print_standings(loaded, found, status, as_json=arguments.json)
    return status


def print_standings(loaded: Loaded, found: list[Standing], status: int, *, as_json: bool, closing: str = "") -> None:
    """The table, or the JSON object; then the contracts that were left out."""
    errors = errors_of(loaded)
    if as_json:
        say(json_report.standings_json(found, errors, status))
    else:
        say("\n".join(filter(None, (text.standings_text(found), text.claims_text(found), closing))))
    print_errors(errors)

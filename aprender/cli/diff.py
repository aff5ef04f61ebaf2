"""``pv diff``: what changed between two versions of a contract, and whether what became weaker is explained."""

from __future__ import annotations

import argparse

from aprender.cli.console import say
from aprender.contracts.diff_sets import diff_of
from aprender.reports.diff_text import diff_json, diff_text

HOLDS, UNEXPLAINED = 0, 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "old", metavar="OLD", help="a contract or a folder, REV:path from git, or git:REV for NEW's path"
    )
    parser.add_argument("new", metavar="NEW", help="the same, as it is now: a path or REV:path")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print every change; 1 where something became weaker and no amendment says why."""
    diffs = diff_of(arguments.old, arguments.new)
    status = UNEXPLAINED if any(one.unexplained for one in diffs) else HOLDS
    say(diff_json(diffs, status) if arguments.json else diff_text(diffs))
    return status

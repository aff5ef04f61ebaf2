"""``pv prove``: what ``pv run`` does, told by defect: which class was planted where, and who caught it."""

from __future__ import annotations

import argparse

from aprender.cli import run as run_command
from aprender.cli.console import say
from aprender.falsify.verdict import Verdict
from aprender.reports.matrix import matrices_json
from aprender.reports.matrix_text import matrices_text

configure = run_command.configure


def run(arguments: argparse.Namespace) -> int:
    """Run, print, and return the exit code: a falsifier that could not run here is not proven."""
    ran = run_command.run_selected(arguments)
    nothing_ran = all(found.verdict is Verdict.SKIPPED for found in ran.runs)
    status = ran.exit_code(skipped_may_pass=nothing_ran)
    if arguments.json:
        say(matrices_json(ran.runs, ran.device, ran.errors, ran.unrecorded, status))
    else:
        say(matrices_text(ran.runs))
    run_command.print_problems(ran)
    return status

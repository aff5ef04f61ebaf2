"""``pv run``: run falsifiers, prove that each can go RED, record the evidence."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from aprender.cli import progress
from aprender.cli.console import complain, say
from aprender.cli.selected import add_paths, contracts_at, errors_of, only, print_errors
from aprender.contracts.findings import Finding
from aprender.errors import AprenderError
from aprender.falsify.evidence import Tampered
from aprender.falsify.probe import Options
from aprender.falsify.record import FalsifierRun
from aprender.falsify.run import Runner, resolve_device
from aprender.falsify.verdict import EXIT_HOLDS, EXIT_NOT_PROVEN, Verdict, exit_code
from aprender.reports import json_report, text


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_paths(parser)
    parser.add_argument("--only", metavar="ID", action="append", default=[], help="only this falsifier; repeatable")
    parser.add_argument("--device", choices=["cpu", "cuda", "auto"], default="auto", help="default: auto")
    parser.add_argument("--model", type=_existing, help="a safetensors folder or a GGUF file to run on")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


class Ran(NamedTuple):
    """What was selected, run and recorded; ``unrecorded`` says why evidence of a run could not be written."""

    runs: list[FalsifierRun]
    unrecorded: list[str]
    errors: list[Finding]
    device: str

    def exit_code(self, *, skipped_may_pass: bool) -> int:
        """As of the verdicts; where they hold, a contract left out or a run unrecorded is not proven."""
        status = exit_code([run.verdict for run in self.runs], skipped_may_pass=skipped_may_pass)
        return EXIT_NOT_PROVEN if status == EXIT_HOLDS and (self.errors or self.unrecorded) else status


def run(arguments: argparse.Namespace) -> int:
    """Run, print, and return the exit code."""
    ran = run_selected(arguments)
    status = ran.exit_code(skipped_may_pass=True)
    if arguments.json:
        say(json_report.runs_json(ran.runs, ran.errors, ran.unrecorded, status))
    else:
        say(text.runs_text(ran.runs))
    print_problems(ran)
    return status


def run_selected(arguments: argparse.Namespace) -> Ran:
    """Run and record the falsifiers that the command line names. Raises AprenderError, NothingToDo."""
    loaded = contracts_at(arguments.paths)
    selected = only(loaded, arguments.only)
    options = Options(resolve_device(arguments.device), arguments.model)
    ran = Ran([], [], errors_of(loaded), options.device)
    steps = sum(1 + len(falsifier.defect_classes) for _, falsifier in selected)
    with progress.shown(steps, quiet=arguments.json) as on_step:
        runner = Runner(options, on_step)
        for contract, falsifier in selected:
            found = runner.run(contract, falsifier)
            try:
                runner.record(found)
            except Tampered as error:
                ran.unrecorded.append(str(error))
                found = replace(found, verdict=Verdict.TAMPERED, reason=str(error))
            except AprenderError as error:
                ran.unrecorded.append(str(error))
            ran.runs.append(found)
    return ran


def print_problems(ran: Ran) -> None:
    """Name the contracts that were left out, and the evidence that was not written."""
    print_errors(ran.errors)
    for problem in ran.unrecorded:
        complain(f"error: {problem}")


def _existing(name: str) -> Path:
    if not Path(name).exists():
        raise argparse.ArgumentTypeError(f"'{name}' does not exist")
    return Path(name)

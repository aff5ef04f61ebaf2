"""``pv run``: run falsifiers, prove that each can go RED, record the evidence."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from aprender.cli import progress
from aprender.cli.console import complain, say
from aprender.cli.selected import add_paths, contracts_at, errors_of, only, print_errors
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


def run(arguments: argparse.Namespace) -> int:
    """Run, print, and return the exit code."""
    loaded = contracts_at(arguments.paths)
    selected = only(loaded, arguments.only)
    runs: list[FalsifierRun] = []
    unrecorded: list[str] = []
    options = Options(resolve_device(arguments.device), arguments.model)
    steps = sum(1 + len(falsifier.defect_classes) for _, falsifier in selected)
    with progress.shown(steps, quiet=arguments.json) as on_step:
        runner = Runner(options, on_step)
        for contract, falsifier in selected:
            runs.append(runner.run(contract, falsifier))
            try:
                runner.record(runs[-1])
            except Tampered as error:
                unrecorded.append(str(error))
                runs[-1] = replace(runs[-1], verdict=Verdict.TAMPERED, reason=str(error))
            except AprenderError as error:
                unrecorded.append(str(error))
    errors = errors_of(loaded)
    status = exit_code([run.verdict for run in runs], skipped_may_pass=True)
    if status == EXIT_HOLDS and (errors or unrecorded):
        status = EXIT_NOT_PROVEN
    say(json_report.runs_json(runs, errors, unrecorded, status) if arguments.json else text.runs_text(runs))
    print_errors(errors)
    for problem in unrecorded:
        complain(f"error: {problem}")
    return status


def _existing(name: str) -> Path:
    if not Path(name).exists():
        raise argparse.ArgumentTypeError(f"'{name}' does not exist")
    return Path(name)

"""``pv``: validate contracts, run their falsifiers, show what evidence says, gate a release."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from aprender import __version__
from aprender.cli import progress
from aprender.contracts.contract import Contract, Falsifier
from aprender.contracts.findings import Finding, did_you_mean
from aprender.contracts.validate import NothingToDo, Validation, validate
from aprender.errors import AprenderError
from aprender.falsify.verdict import (
    EXIT_HOLDS,
    EXIT_NOT_PROVEN,
    EXIT_NOTHING_TO_DO,
    EXIT_RED,
    Verdict,
    exit_code,
)
from aprender.reports import json_report, text

_PATHS = click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_ONLY = click.option("--only", metavar="ID", multiple=True, help="Only this falsifier; may be given several times.")


def _one_sentence(command: Callable[..., int]) -> Callable[..., None]:
    """Turn an exit status into the process's, and errors that a person can act on into one line."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            status = command(*args, **kwargs)
        except NothingToDo as error:
            click.echo(f"pv: {error}", err=True)
            status = EXIT_NOTHING_TO_DO
        except AprenderError as error:
            click.echo(f"pv: error: {error}", err=True)
            status = EXIT_NOTHING_TO_DO
        except KeyboardInterrupt:
            click.echo("pv: interrupted; finished observations are kept and will be reused", err=True)
            status = 130
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            click.echo(f"pv: error: {where}{error.strerror}", err=True)
            status = EXIT_NOT_PROVEN
        except Exception as error:  # noqa: BLE001 - a fault of ours must not exit with the code of RED
            frame = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
            click.echo(f"pv: internal error, please report it: {what}", err=True)
            status = EXIT_NOT_PROVEN
        sys.exit(status)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pv")
@click.pass_context
def main(context: click.Context) -> None:
    """Contracts that state how they could be shown false, and the runner that tries.

    Exit codes: 0 all that was asked for holds; 1 RED, or a contract has errors; 2 usage, or nothing to do;
    3 not proven; 4 evidence does not verify.
    """
    if os.environ.get("NO_COLOR"):
        context.color = False


@main.command("validate")
@_PATHS
@_JSON
@_one_sentence
def validate_command(paths: tuple[Path, ...], as_json: bool) -> int:
    """Check contracts (default: contracts/) and print every finding with its line and column."""
    result = validate(paths or (Path("contracts"),))
    status = EXIT_RED if result.errors else EXIT_HOLDS
    click.echo(json_report.validation_json(result, status) if as_json else text.validation_text(result))
    return status


@main.command("run")
@_PATHS
@_ONLY
@click.option("--device", type=click.Choice(["cpu", "cuda", "auto"]), default="auto", show_default=True)
@click.option(
    "--model",
    type=click.Path(exists=True, path_type=Path),
    help="A safetensors folder or a GGUF file to run on.",
)
@_JSON
@_one_sentence
def run_command(paths: tuple[Path, ...], only: tuple[str, ...], device: str, model: Path | None, as_json: bool) -> int:
    """Run falsifiers, prove that each can go RED, record the evidence."""
    from aprender.falsify.evidence import Tampered
    from aprender.falsify.probe import Options
    from aprender.falsify.record import FalsifierRun
    from aprender.falsify.run import Runner, resolve_device

    result, selected = _select(paths, only)
    options = Options(resolve_device(device), model)
    runs: list[FalsifierRun] = []
    unrecorded: list[str] = []
    steps = sum(1 + len(falsifier.defect_classes) for _, falsifier in selected)
    with progress.shown(steps, quiet=as_json) as on_step:
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
    status = exit_code([run.verdict for run in runs], skipped_may_pass=True)
    if status == EXIT_HOLDS and (result.errors or unrecorded):
        status = EXIT_NOT_PROVEN
    findings = [finding for finding in result.findings if finding.severity == "error"]
    if as_json:
        click.echo(json_report.runs_json(runs, findings, unrecorded, status))
    else:
        click.echo(text.runs_text(runs))
    _print_problems(findings, unrecorded)
    return status


@main.command("status")
@_PATHS
@_JSON
@_one_sentence
def status_command(paths: tuple[Path, ...], as_json: bool) -> int:
    """Print the present verdict of every falsifier, from evidence alone, and the computed ship percentage."""
    return _report_standings(paths, as_json, gate=False)


@main.command("gate")
@_PATHS
@_JSON
@_one_sentence
def gate_command(paths: tuple[Path, ...], as_json: bool) -> int:
    """Exit 0 only if every ship-blocking falsifier has fresh GREEN evidence. Needs no GPU and runs no probe."""
    return _report_standings(paths, as_json, gate=True)


def _report_standings(paths: tuple[Path, ...], as_json: bool, *, gate: bool) -> int:
    from aprender.falsify.gate import standings

    result, _ = _select(paths, ())
    found = standings(result.contracts)
    blocking = [standing.verdict for standing in found if standing.falsifier.ship_blocking]
    tampered = [v for v in (standing.verdict for standing in found) if v is Verdict.TAMPERED]
    status = exit_code([*blocking, *tampered] if gate else tampered or [Verdict.GREEN], skipped_may_pass=False)
    if gate and status == EXIT_HOLDS and result.errors:
        status = EXIT_NOT_PROVEN
    findings = [finding for finding in result.findings if finding.severity == "error"]
    if as_json:
        click.echo(json_report.standings_json(found, findings, status))
    else:
        click.echo(text.standings_text(found))
        if claims := text.claims_text(found):
            click.echo(claims)
        if gate:
            click.echo("gate: ship" if status == EXIT_HOLDS else f"gate: do not ship (exit {status})")
    _print_problems(findings, [])
    return status


def _select(paths: tuple[Path, ...], only: tuple[str, ...]) -> tuple[Validation, list[tuple[Contract, Falsifier]]]:
    """The valid contracts in ``paths`` and their falsifiers; with ``only``, exactly those ids or NothingToDo."""
    result = validate(paths or (Path("contracts"),))
    everything = [(contract, falsifier) for contract in result.contracts for falsifier in contract.falsifiers]
    known = [falsifier.id for _, falsifier in everything]
    for name in only:
        if name not in known:
            hint = did_you_mean(name, known) or f" Known: {', '.join(known) or 'none'}"
            raise NothingToDo(f"--only {name}: no such falsifier.{hint}")
    selected = [(contract, falsifier) for contract, falsifier in everything if not only or falsifier.id in only]
    if not selected:
        _print_problems([finding for finding in result.findings if finding.severity == "error"], [])
        reason = "contracts with errors are not run" if result.errors else "none has schema_version: 2"
        raise NothingToDo(f"no falsifier to run in {len(result.files)} contract(s): {reason}")
    return result, selected


def _print_problems(findings: list[Finding], unrecorded: list[str]) -> None:
    for finding in findings:
        message = f"{finding.file}:{finding.line}:{finding.column}: {finding.rule} {finding.message}"
        click.echo(f"pv: contract not run: {message}", err=True)
    for problem in unrecorded:
        click.echo(f"pv: error: {problem}", err=True)

"""Which contracts and falsifiers a command is about."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aprender.cli.console import complain
from aprender.contracts.config import read_config
from aprender.contracts.contract import Contract, Falsifier
from aprender.contracts.files import NothingToDo
from aprender.contracts.findings import Finding, did_you_mean
from aprender.contracts.load import Loaded, load


def add_paths(parser: argparse.ArgumentParser) -> None:
    """The argument that most commands take."""
    parser.add_argument("paths", nargs="*", metavar="PATH", help="contracts or folders of them (default: contracts)")


def contracts_at(paths: Sequence[str]) -> Loaded:
    """The contracts in ``paths``, or in the project's own folders. Raises NothingToDo where none can be run."""
    loaded = load(paths or read_config().paths)
    if not any(contract.falsifiers for contract in loaded.contracts):
        print_errors(errors_of(loaded))
        reason = "contracts with errors are not run" if loaded.validation.errors else "none has schema_version: 2"
        raise NothingToDo(f"no falsifier to run in {len(loaded.validation.files)} contract(s): {reason}")
    return loaded


def only(loaded: Loaded, names: Sequence[str]) -> list[tuple[Contract, Falsifier]]:
    """The falsifiers that ``names`` name, all of them where it is empty. Raises NothingToDo for an unknown name."""
    everything = [(contract, falsifier) for contract in loaded.contracts for falsifier in contract.falsifiers]
    known = [falsifier.id for _, falsifier in everything]
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f" Known: {', '.join(known)}"
            raise NothingToDo(f"--only {name}: no such falsifier.{hint}")
    return [(contract, falsifier) for contract, falsifier in everything if not names or falsifier.id in names]


def errors_of(loaded: Loaded) -> list[Finding]:
    """Why some contracts were left out."""
    return [finding for finding in loaded.validation.findings if finding.severity == "error"]


def print_errors(errors: Sequence[Finding]) -> None:
    """Name each contract that was not run, and why."""
    for finding in errors:
        message = f"{finding.file}:{finding.line}:{finding.column}: {finding.rule} {finding.message}"
        complain(f"contract not run: {message}")

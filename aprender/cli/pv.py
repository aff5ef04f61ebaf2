"""``pv``: the table of commands. Each is a module beside this one that is imported only when it is asked for."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from aprender import __version__
from aprender.cli.console import NOTHING_TO_DO, complain, exit_status

COMMANDS = {
    "validate": "check contracts and print every finding with its line and column",
    "run": "run falsifiers, prove that each can go RED, record the evidence",
    "status": "print the present verdict of every falsifier, from evidence alone",
    "gate": "exit 0 only if every ship-blocking falsifier has fresh GREEN evidence",
    "init": "make a repository's first contract, its falsifier and its CI file",
    "explain": "say what a rule is about, why, and show a wrong and a right example",
    "show": "print one contract, or one of its falsifiers, for people",
    "graph": "draw what contracts rest on, what covers their obligations, and which defects that must catch",
    "equations": "print the equations of one contract, for people or as LaTeX",
    "coverage": "count the obligations and equations that falsifiers name, and list the others",
    "diff": "compare two versions: what was tightened, what was weakened, and was it explained",
    "migrate": "turn contracts of the published dialect into version 2, comments and order preserved",
    "schema": "print the JSON Schema of contracts, for editors and other tools",
}

HELP = """Usage: pv COMMAND [ARGUMENTS]

Contracts that state how they could be shown false, and the runner that tries.

Commands (pv COMMAND --help says more):
{commands}

Options: -h, --help; --version

Exit codes: 0 all that was asked for holds; 1 RED, or a contract has errors; 2 usage, or nothing to do; 3 not proven;
4 evidence does not verify.
"""


class _Help(argparse.HelpFormatter):
    """A fixed width: asking the terminal for its own imports more than a small contract takes to check."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


class _Parser(argparse.ArgumentParser):
    """One sentence instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see {self.prog} --help")
        sys.exit(NOTHING_TO_DO)


def script() -> NoReturn:
    """What an installed ``pv`` calls: ``main``, but a validation ends without ceremony.

    Collecting garbage, and tidying up a process that is about to end, take as long as checking a contract.
    """
    words = sys.argv[1:]
    if words[:1] != ["validate"] or "--bind" in words:
        main(words)
    gc.disable()
    try:
        main(words)
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(end.code if isinstance(end.code, int) else NOTHING_TO_DO)


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run one command; ``words`` are the process's arguments unless given."""
    sys.exit(exit_status(lambda: _main(sys.argv[1:] if words is None else list(words))))


def _main(words: list[str]) -> int:
    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        commands = "\n".join(f"  {command:{width}}  {summary}" for command, summary in COMMANDS.items())
        sys.stdout.write(HELP.format(commands=commands))
        return 0 if words else NOTHING_TO_DO
    if name == "--version":
        sys.stdout.write(f"pv, version {__version__}\n")
        return 0
    if name not in COMMANDS:
        from aprender.contracts.findings import did_you_mean

        complain(f"no command '{name}'.{did_you_mean(name, COMMANDS)} Commands: {', '.join(COMMANDS)}")
        return NOTHING_TO_DO
    command = import_module(f"aprender.cli.{name}")
    summary = COMMANDS[name]
    parser = _Parser(
        prog=f"pv {name}", description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False, formatter_class=_Help
    )
    command.configure(parser)
    status: int = command.run(parser.parse_args(words[1:]))
    return status

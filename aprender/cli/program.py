"""What the programs ``pv`` and ``apr`` have in common: a table of commands, each a module imported when asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple, NoReturn

from aprender import __version__
from aprender.cli.console import NOTHING_TO_DO, complain, exit_status


class Program(NamedTuple):
    """``commands`` gives each command's summary; ``module`` the module of a command, with ``{}`` for its name."""

    name: str
    commands: Mapping[str, str]
    help: str
    module: str
    refused: int  # exit codes, as console.exit_status has them
    failed: int

    def main(self, words: list[str]) -> NoReturn:
        """Run one command and end the process."""
        sys.exit(exit_status(lambda: self._main(words), self.name, self.refused, self.failed))

    def _main(self, words: list[str]) -> int:
        name = words[0] if words else "--help"
        if name in ("-h", "--help"):
            width = max(map(len, self.commands))
            commands = "\n".join(f"  {command:{width}}  {summary}" for command, summary in self.commands.items())
            sys.stdout.write(self.help.format(commands=commands))
            return 0 if words else NOTHING_TO_DO
        if name == "--version":
            sys.stdout.write(f"{self.name}, version {__version__}\n")
            return 0
        if name not in self.commands:
            from aprender.contracts.findings import did_you_mean

            hint = did_you_mean(name, self.commands)
            complain(f"no command '{name}'.{hint} Commands: {', '.join(self.commands)}", self.name)
            return NOTHING_TO_DO
        command = import_module(self.module.format(name))
        summary = self.commands[name]
        parser = _Parser(
            prog=f"{self.name} {name}",
            description=f"{summary[0].upper()}{summary[1:]}.",
            allow_abbrev=False,
            formatter_class=_Help,
        )
        command.configure(parser)
        status: int = command.run(parser.parse_args(words[1:]))
        return status


class _Help(argparse.HelpFormatter):
    """A fixed width: asking the terminal for its own imports more than a small contract takes to check."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


class _Parser(argparse.ArgumentParser):
    """One sentence instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see {self.prog} --help", self.prog.partition(" ")[0])
        sys.exit(NOTHING_TO_DO)

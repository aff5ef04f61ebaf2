"""``apr``: the table of commands. Each is a module beside this one that is imported only when it is asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

COMMANDS = {"parity": "compare two torch modules operator by operator, forward and backward"}
USAGE = 2


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run one command; ``words`` are the process's arguments unless given."""
    given = list(sys.argv[1:] if words is None else words)
    if not given or given[0] not in COMMANDS:
        table = "\n".join(f"  {name}  {summary}" for name, summary in COMMANDS.items())
        sys.stderr.write(f"Usage: apr COMMAND [ARGUMENTS]\n\n{table}\n")
        sys.exit(0 if given in (["-h"], ["--help"]) else USAGE)
    command = import_module(f"aprender.cli.apr_{given[0]}")
    parser = argparse.ArgumentParser(prog=f"apr {given[0]}", description=COMMANDS[given[0]], allow_abbrev=False)
    command.configure(parser)
    sys.exit(command.run(parser.parse_args(given[1:])))

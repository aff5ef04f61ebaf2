"""``apr``: looks into models, converts and compares them. Each command is a module imported only when asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from aprender.cli.program import Program

COMMANDS = {
    "inspect": "print a model's configuration, tensors and tokenizer, and what keeps it from being loaded",
    "convert": "write a model in another format, and read it back",
    "parity": "compare two torch modules operator by operator, forward and backward",
}

HELP = """Usage: apr COMMAND [ARGUMENTS]

Models in safetensors folders, GGUF files and .apr files.

Commands (apr COMMAND --help says more):
{commands}

Options: -h, --help; --version

Exit codes: 0 done, and the model can be loaded; 1 it can't be, or nothing was converted; 2 usage.
"""

APR = Program("apr", COMMANDS, HELP, "aprender.cli.apr_{}", 1, 1)


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run one command; ``words`` are the process's arguments unless given."""
    APR.main(sys.argv[1:] if words is None else list(words))

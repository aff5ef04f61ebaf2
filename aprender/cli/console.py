"""What the commands print: reports to standard output, one sentence per problem to standard error."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Print to standard output."""
    sys.stdout.write(f"{text}\n")


def complain(text: str) -> None:
    """Print one problem to standard error."""
    sys.stderr.write(f"pv: {text}\n")

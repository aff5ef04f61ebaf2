"""What commands print: results to standard output, complaints to standard error."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Print a result."""
    sys.stdout.write(f"{text}\n")


def complain(text: str) -> None:
    """Print what went wrong."""
    sys.stderr.write(f"pv: {text}\n")

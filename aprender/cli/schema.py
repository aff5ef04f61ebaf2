"""``pv schema``: the JSON Schema of contracts, for editors and other validators."""

from __future__ import annotations

import argparse
from importlib import resources

from aprender.cli.console import say


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the command is for; it takes no arguments."""
    parser.description = (
        "Print the JSON Schema (draft 2020-12) of both dialects of contracts. Save it where your editor finds it: "
        "pv schema > contracts/contract.schema.json"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the schema as it is packaged."""
    schema = resources.files("aprender.contracts").joinpath("schema/contract.schema.json")
    say(schema.read_text("utf-8").rstrip("\n"))
    return 0

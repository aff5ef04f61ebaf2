"""``pv gate``: exit 0 only if every ship-blocking falsifier has fresh GREEN evidence. Runs no probe, needs no GPU."""

from __future__ import annotations

import argparse

from aprender.cli import status
from aprender.cli.selected import contracts_at
from aprender.falsify.gate import standings
from aprender.falsify.verdict import EXIT_HOLDS, EXIT_NOT_PROVEN, Verdict, exit_code

configure = status.configure


def run(arguments: argparse.Namespace) -> int:
    """Print, decide."""
    loaded = contracts_at(arguments.paths)
    found = standings(loaded.contracts)
    decisive = [s.verdict for s in found if s.falsifier.ship_blocking or s.verdict is Verdict.TAMPERED]
    code = exit_code(decisive, skipped_may_pass=False)
    if code == EXIT_HOLDS and loaded.validation.errors:
        code = EXIT_NOT_PROVEN
    closing = "gate: ship" if code == EXIT_HOLDS else f"gate: do not ship (exit {code})"
    status.print_standings(loaded, found, code, as_json=arguments.json, closing=closing)
    return code

"""``apr inspect``: what a model's headers say, and with --stats what its data are."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from aprender.cli.apr_progress import progress_bar
from aprender.cli.console import say
from aprender.errors import AprenderError
from aprender.formats.digest import sha256_of
from aprender.formats.inspection import Inspection, inspect_model
from aprender.formats.inspection_text import Numbers, inspection_data, inspection_text


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a model folder, a .gguf, .apr or .safetensors file, or hf:ORG/NAME"
    )
    parser.add_argument("--stats", action="store_true", help="read all data: min, mean, max, std, not finite")
    parser.add_argument("--digest", action="store_true", help="read all files: their SHA-256")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print; 1 where the model can't be loaded as it stands."""
    inspection = inspect_model(arguments.model)
    numbers = _statistics(inspection) if arguments.stats else None
    digests = {file.name: sha256_of(file) for file in inspection.files} if arguments.digest else None
    status = 1 if inspection.problems else 0
    if arguments.json:
        say(json.dumps(inspection_data(inspection, numbers, digests) | {"exit_code": status}, indent=2))
    else:
        say(inspection_text(inspection, numbers, digests))
    return status


def _statistics(inspection: Inspection) -> Numbers:
    try:
        from aprender.formats.statistics import statistics  # with torch: only where it is needed
    except ModuleNotFoundError as error:
        raise AprenderError(f"--stats needs the package {error.name}; install aprender[torch]") from error
    size = sum(entry.size for entry in inspection.entries)
    with progress_bar("reading", size) as advance:
        return {entry.name: found for entry, found in statistics(inspection.entries, advance)}

"""``apr convert``: a model from one format to another, verified."""

from __future__ import annotations

import argparse
from math import prod
from pathlib import Path

from aprender.cli.apr_progress import progress_bar
from aprender.cli.console import complain, say
from aprender.errors import AprenderError
from aprender.formats.inspection import inspect_model


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", type=Path, metavar="A", help="a model folder, a .gguf or .apr file, or hf:ORG/NAME")
    parser.add_argument("target", type=Path, metavar="B", help="NAME.gguf, NAME.apr, or a folder for safetensors")
    parser.add_argument("--force", action="store_true", help="replace B")


def run(arguments: argparse.Namespace) -> int:
    """Convert, and print what was written and what the format changed."""
    elements = sum(prod(entry.shape) for entry in inspect_model(arguments.source).entries)
    try:
        from aprender.formats.convert import convert  # with torch: a source that isn't there is known without
    except ModuleNotFoundError as error:
        raise AprenderError(f"converting needs the package {error.name}; install aprender[torch]") from error

    with progress_bar("writing, reading back", 2 * elements) as advance:
        done = convert(arguments.source, arguments.target, force=arguments.force, progress=advance)
    for note in done.notes:
        complain(note, "apr")
    say(f"{done.target}: {done.kind}, {done.tensors} tensors, {done.size:,} bytes; read back, every bit as it was")
    return 0

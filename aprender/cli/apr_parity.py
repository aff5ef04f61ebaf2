"""``apr parity``: is one torch module the same as another, but for rounding? Operator by operator."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from aprender.cli.console import say
from aprender.errors import AprenderError

EXIT_CODES = {"GREEN": 0, "RED": 1, "ERROR": 3}
USAGE = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    build = "PACKAGE.MODULE:FUNCTION, which takes nothing and returns a torch.nn.Module"
    parser.add_argument("--reference", required=True, metavar="BUILD", help=f"the module that is right: {build}")
    parser.add_argument("--candidate", required=True, metavar="BUILD", help="the module in question")
    parser.add_argument("--map", type=Path, metavar="FILE", help="YAML: reference names to candidate names, or null")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32", help="of the candidate; default: f32")
    parser.add_argument("--rows", type=_positive, default=2, metavar="N", help="rows of random tokens; default: 2")
    parser.add_argument("--positions", type=_positive, default=131, metavar="N", help="tokens a row; default: 131")
    parser.add_argument("--seed", type=int, default=0, help="of tokens and of what backward is fed; default: 0")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Compare and print. 0 all is explained by rounding; 1 something is not; 2 usage; 3 too little was seen."""
    try:
        from aprender.parity.from_names import compare_named  # with torch: only where it is needed
        from aprender.parity.modules_text import modules_text

        report = compare_named(
            arguments.reference,
            arguments.candidate,
            arguments.map,
            arguments.dtype,
            arguments.rows,
            arguments.positions,
            arguments.seed,
        )
    except AprenderError as error:
        sys.stderr.write(f"apr: error: {error}\n")
        return USAGE
    except ImportError as error:
        sys.stderr.write(f"apr: error: {error}; pip install 'aprender[torch]'\n")
        return USAGE
    status = EXIT_CODES[report.verdict]
    say(json.dumps(report.to_json() | {"exit_code": status}, indent=2) if arguments.json else modules_text(report))
    return status


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of at least 1")
    return int(text)

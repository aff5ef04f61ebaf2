"""What the commands share that look at contracts of either dialect: paths, formats, and errors said on the way."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aprender.cli.console import complain
from aprender.contracts.config import read_config
from aprender.contracts.documents import Documents, read_documents
from aprender.reports.finding_text import finding_line
from aprender.reports.validation_text import file_name

HOLDS, HAS_ERRORS = 0, 1  # as aprender.falsify.verdict, which is not imported for this


def add_paths(parser: argparse.ArgumentParser) -> None:
    """Contracts, folders, standard input; none means the project's own."""
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="contracts, folders of them, - for standard input (default: contracts)"
    )


def add_format(parser: argparse.ArgumentParser, formats: Sequence[str]) -> None:
    """``--format``, the first of ``formats`` unless given, and ``--json``."""
    parser.add_argument("--format", choices=formats, default=formats[0], help=f"default: {formats[0]}")
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")


def documents_at(paths: Sequence[str]) -> Documents:
    """The contracts in ``paths``, or in the project's own folders; every error is said, one line each.

    Raises NothingToDo where there is no contract.
    """
    read = read_documents(paths or read_config().paths)
    for finding in read.errors:
        complain(finding_line(finding, file_name(finding.file)))
    return read

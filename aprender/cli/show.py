"""``pv show``: a readable page of one contract, or of one of its falsifiers."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys

from aprender.cli.console import say
from aprender.contracts.document import Document
from aprender.contracts.findings import did_you_mean
from aprender.contracts.revisions import document_of, side_of
from aprender.contracts.validate import NothingToDo
from aprender.errors import AprenderError
from aprender.reports.contract_page import contract_page, falsifier_id, falsifiers_of, page_data

FOLDER = "contracts"
WIDTH = 80


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "contract", metavar="CONTRACT", help="a file, the name of one in contracts/, or a falsifier's id"
    )
    parser.add_argument("falsifier", nargs="?", metavar="FALSIFIER", help="only this falsifier")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print the page. Raises NothingToDo where there is no such contract or falsifier."""
    document, falsifier = _find(arguments.contract, arguments.falsifier)
    data = page_data(document, falsifier)
    say(json.dumps(data | {"exit_code": 0}, indent=2) if arguments.json else contract_page(data, _width()))
    return 0


def _find(name: str, falsifier: str | None) -> tuple[Document, str | None]:
    if os.path.isfile(name):
        document = _read(name)
    elif os.path.isdir(name):
        raise NothingToDo(f"{name} is a folder; name one contract")
    else:
        files = (
            {stem: path for stem, (path, _) in side_of(FOLDER, FOLDER).files.items()} if os.path.isdir(FOLDER) else {}
        )
        if name not in files:
            if falsifier is not None:
                raise NothingToDo(f"no contract '{name}' in {FOLDER}/.{did_you_mean(name, files)}")
            return _by_falsifier(name, files)
        document = _read(files[name])
    known = [falsifier_id(entry) for entry in falsifiers_of(document.data)]
    if falsifier is not None and falsifier not in known:
        hint = did_you_mean(falsifier, known) or f" Known: {', '.join(known) or 'none'}"
        raise NothingToDo(f"{document.file} has no falsifier '{falsifier}'.{hint}")
    return document, falsifier


def _by_falsifier(name: str, files: dict[str, str]) -> tuple[Document, str]:
    """The contract that has the falsifier ``name``; a file that can't be read does not hide the others."""
    known = list(files)
    for path in files.values():
        try:
            document = _read(path)
        except AprenderError:
            continue
        ids = [falsifier_id(entry) for entry in falsifiers_of(document.data)]
        if name in ids:
            return document, name
        known += ids
    raise NothingToDo(f"no contract and no falsifier '{name}' in {FOLDER}/.{did_you_mean(name, known)}")


def _read(path: str) -> Document:
    (label, raw), *_ = side_of(path, path).files.values()
    return document_of(label, raw)


def _width() -> int:
    return shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH

"""``pv validate --bind``: what does not fit between contracts and code. Imports the probes that they name."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from aprender.contracts.contract import Contract, contract_of
from aprender.contracts.document import Document, KeyPath
from aprender.contracts.files import STANDARD_INPUT, read_content
from aprender.contracts.findings import Finding
from aprender.contracts.reader import read_bytes
from aprender.contracts.rules.common import added, items, key_of
from aprender.contracts.scalars import position_within
from aprender.contracts.schema_check import is_version_2
from aprender.contracts.validate import Validation
from aprender.errors import AprenderError
from aprender.falsify.bind import Mismatch, mismatches, project_root
from aprender.falsify.node_ids import Collection, Named, Selection, collect, named_tests, selection
from aprender.falsify.probe import PlantedDefect, Probe


class _Use(NamedTuple):
    """One falsifier's use of a collection of planted defects."""

    document: Document
    path: KeyPath
    planted: dict[str, PlantedDefect]
    listed: frozenset[str]


class _Command(NamedTuple):
    """What a falsifier says is executed, and the tests that it gives to pytest."""

    document: Document
    path: KeyPath
    text: str
    tests: list[Named]
    selection: Selection | None


def check_binding(validation: Validation) -> list[Finding]:
    """What does not fit between the contracts that were validated and the code and tests that they name."""
    documents = documents_of(validation, "--bind")
    wrong = {finding.file for finding in validation.findings if finding.severity == "error"}
    findings: list[Finding] = []
    uses: list[_Use] = []
    for document in documents:
        if is_version_2(document.data) and document.file not in wrong:
            findings += _of_contract(document, contract_of(document), uses)
    return [*findings, *_never_listed(uses), *_tests(documents)]


def documents_of(validation: Validation, option: str) -> list[Document]:
    """The files of a validation that can be read. Raises AprenderError for standard input."""
    if STANDARD_INPUT in validation.files:
        raise AprenderError(f"{option} needs files: standard input lies in no project")
    contents = ((file, read_content(file)) for file in validation.files)
    read = (read_bytes(content, file)[0] for file, content in contents if isinstance(content, bytes))
    return [document for document in read if document is not None and isinstance(document.data, dict)]


def _of_contract(document: Document, contract: Contract, uses: list[_Use]) -> Iterator[Finding]:
    for index, falsifier in enumerate(contract.falsifiers):
        path: KeyPath = ("falsification_tests", index)
        probe, found = mismatches(contract, falsifier)
        for mismatch in found:
            yield _finding(document, path, mismatch)
        if isinstance(probe, Probe):
            listed = frozenset(defect.name for defect in falsifier.defect_classes)
            uses.append(_Use(document, path, dict(probe.defects), listed))


def _finding(document: Document, path: KeyPath, mismatch: Mismatch) -> Finding:
    at = (*path, *mismatch.path)
    finding = document.finding(at, mismatch.rule, mismatch.message, key=mismatch.key)
    if mismatch.column:
        text = document.data["falsification_tests"][path[1]][mismatch.path[0]][mismatch.path[1]]
        if place := position_within(document, at, text, mismatch.column):
            return finding._replace(line=place.line, column=place.column)
    return finding


def _never_listed(uses: list[_Use]) -> Iterator[Finding]:
    """BIND-004 the other way round: a planted defect that no falsifier lists shows nothing."""
    listed = {(name, id(defect)) for use in uses for name, defect in use.planted.items() if name in use.listed}
    said: set[tuple[str, int]] = set()
    for use in uses:
        idle = {name: id(defect) for name, defect in use.planted.items() if (name, id(defect)) not in listed | said}
        said |= set(idle.items())
        if idle:
            names = ", ".join(sorted(idle))
            message = f"planted, but no falsifier lists it among its counter_example_classes: {names}"
            yield use.document.finding((*use.path, "probe"), "BIND-004", message, warning=True)


def _tests(documents: Iterable[Document]) -> Iterator[Finding]:
    """BIND-006: the tests that pytest would be given are tests that it collects."""
    by_root: dict[Path, list[_Command]] = {}
    for document in documents:
        root = project_root(Path(document.file))
        for path, item in items(document, "falsification_tests"):
            key = key_of(item, "test", "command")
            if isinstance(text := item.get(key), str):
                command = _Command(document, (*path, key), text, named_tests(text), selection(text))
                by_root.setdefault(root, []).append(command)
    for root, commands in by_root.items():
        selections = [command.selection for command in commands if command.selection]
        collection = collect(root, [named for command in commands for named in command.tests], selections)
        for command in commands:
            yield from _wrong_tests(command, collection)


def _wrong_tests(command: _Command, collection: Collection) -> Iterator[Finding]:
    """The tests of one command that are none; or, where all are, that it chooses none of them."""
    wrong = [(problem, named.column) for named in command.tests if (problem := collection.problem(named))]
    if not wrong and command.selection in collection.idle:
        words = shlex.join(command.selection.words)
        wrong = [(f"{words} selects no test of those that pytest collects", command.selection.column)]
    for problem, column in wrong:
        finding = added(command.document, command.path, "BIND-006", problem)
        place = position_within(command.document, command.path, command.text, column)
        yield finding._replace(line=place.line, column=place.column) if place else finding

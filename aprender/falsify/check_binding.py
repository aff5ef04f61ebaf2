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
from aprender.falsify.node_ids import Named, Selection, collect, named_tests, selection_of
from aprender.falsify.probe import PlantedDefect, Probe


class _Use(NamedTuple):
    """One falsifier's use of a collection of planted defects."""

    document: Document
    path: KeyPath
    planted: dict[str, PlantedDefect]
    listed: frozenset[str]


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
    by_root: dict[Path, list[tuple[Document, KeyPath, str, list[Named], Selection | None]]] = {}
    for document in documents:
        root = project_root(Path(document.file))
        for path, item in items(document, "falsification_tests"):
            key = key_of(item, "test", "command")
            command = item.get(key)
            if isinstance(command, str) and (named := named_tests(command)):
                use = (document, (*path, key), command, named, selection_of(command))
                by_root.setdefault(root, []).append(use)
    for root, found in by_root.items():
        selections = [selection for *_, selection in found if selection]
        collection = collect(root, [one for *_, named, _ in found for one in named], selections)
        for document, at, command, named, selection in found:
            problems = [(one.column, problem) for one in named if (problem := collection.problem(one))]
            if not problems and selection and collection.selects_nothing(selection):
                problems = [(selection.column, f"-k {shlex.quote(selection.keywords)} leaves no test to run")]
            for column, problem in problems:
                finding = added(document, at, "BIND-006", problem)
                place = position_within(document, at, command, column)
                yield finding._replace(line=place.line, column=place.column) if place else finding

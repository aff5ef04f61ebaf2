"""The first stretch of the road: files and folders to contracts and findings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aprender.contracts.contract import Contract, contract_of
from aprender.contracts.findings import Finding, Position
from aprender.contracts.reader import Document, read_file
from aprender.contracts.rules import check_rules
from aprender.contracts.schema_check import check_schema, is_version_2
from aprender.errors import AprenderError

SUFFIXES = (".yaml", ".yml")


class NothingToDo(AprenderError):
    """No contract was found, or nothing was selected."""


@dataclass(frozen=True)
class Validation:
    """What ``pv validate`` found: every file looked at, all findings by position, the contracts without errors."""

    files: tuple[Path, ...]
    findings: tuple[Finding, ...]
    contracts: tuple[Contract, ...]
    falsifiers: int
    expectations: int

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """How many findings are warnings."""
        return len(self.findings) - self.errors

    def to_json(self) -> dict[str, Any]:
        """The whole result as plain data."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "counts": {
                "contracts": len(self.files),
                "falsifiers": self.falsifiers,
                "expectations": self.expectations,
                "errors": self.errors,
                "warnings": self.warnings,
            },
        }


def contract_files(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The contract files in ``paths``: files as given, folders searched. Raises NothingToDo where there is none."""
    paths = tuple(paths)
    files: dict[Path, Path] = {}  # by what they really are: a file named twice is one contract
    for path in paths:
        if path.is_dir():
            found = sorted(_files_below(path))
        elif path.exists():
            found = [path]
        else:
            raise NothingToDo(f"{path}: no such file or folder; name a contract or a folder of contracts")
        for file in found:
            files.setdefault(file.resolve(), file)
    if not files:
        where = ", ".join(map(str, paths))
        raise NothingToDo(f"{where}: no contract found (looked for *.yaml and *.yml); is this the right folder?")
    return tuple(files.values())


def _files_below(folder: Path) -> Iterator[Path]:
    """Contract files in ``folder`` and below, links followed, hidden folders passed over."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        seen.add(real)
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and path.is_file():
                yield path


def validate(paths: Iterable[Path]) -> Validation:
    """Validate all contracts in ``paths``. Raises NothingToDo where there is none."""
    files = contract_files(paths)
    findings: list[Finding] = []
    contracts: list[Contract] = []
    falsifiers = expectations = 0
    for file in files:
        document, found = check_file(file)
        findings += sorted(found, key=lambda f: (f.line, f.column, f.rule))
        if document is None:
            continue
        tests = _falsifiers(document)
        falsifiers += len(tests)
        expectations += sum(len(test["expect"]) for test in tests if isinstance(test.get("expect"), list))
        if is_version_2(document.data) and all(finding.severity != "error" for finding in found):
            contracts.append(contract_of(document))
    twice = _taken_twice(contracts)
    valid = tuple(contract for contract in contracts if str(contract.path) not in {finding.file for finding in twice})
    return Validation(files, (*findings, *twice), valid, falsifiers, expectations)


def _taken_twice(contracts: Iterable[Contract]) -> list[Finding]:
    """REF-004: evidence goes by the contract's stem and the falsifier's id, so neither may be taken twice."""
    findings: list[Finding] = []
    taken: dict[str, str] = {}
    for contract in contracts:
        names = {f"contract '{contract.id}'": Position(1, 1)}
        names |= {f"falsifier '{falsifier.id}'": falsifier.at("id") for falsifier in contract.falsifiers}
        for name, at in names.items():
            if name in taken:
                message = f"{name} stands in {taken[name]} already; rename one"
                findings.append(Finding(str(contract.path), at.line, at.column, "REF-004", "error", message))
            taken.setdefault(name, str(contract.path))
    return findings


def check_file(file: Path) -> tuple[Document | None, list[Finding]]:
    """One file: reading, then the schema, then the rules; later steps need what earlier ones establish."""
    document, findings = read_file(file)
    if document is None:
        return None, findings
    shape, sound = check_schema(document)
    return document, [*findings, *shape, *check_rules(sound)]


def _falsifiers(document: Document) -> list[dict[str, Any]]:
    tests = document.data.get("falsification_tests") if isinstance(document.data, dict) else None
    return [test for test in tests if isinstance(test, dict)] if isinstance(tests, list) else []

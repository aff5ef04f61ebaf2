"""A ship-blocking falsifier of a version 2 contract has what it needs to go RED, and names the code it is about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aprender.contracts.document import Document, KeyPath
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import Rule, entries, items, name_of, stands

_NEEDED = ("probe", "expect", "guards", "counter_example_classes")


def _teeth(document: Document) -> Iterator[Finding]:
    """TEETH-001: ship-blocking means executable. TEETH-002: ``violates`` resolves. TEETH-003: classes are unique."""
    for path, item in items(document, "falsification_tests"):
        yield from _executable(document, path, item)
        yield from _classes(document, path, item)


def _executable(document: Document, path: KeyPath, item: dict[str, Any]) -> Iterator[Finding]:
    # What stands there with a wrong type is the schema's to report.
    missing = [key for key in _NEEDED if not item.get(key) and not (key not in item and stands(document, (*path, key)))]
    if item.get("ship_blocking") and missing:
        message = f"{name_of(item)} is ship-blocking but has no {', '.join(missing)}"
        yield document.finding(path, "TEETH-001", message)
    elif item.get("probe") and "expect" in missing:
        yield document.finding(path, "TEETH-001", f"{name_of(item)} has a probe but expects nothing of it")


def _classes(document: Document, path: KeyPath, item: dict[str, Any]) -> Iterator[Finding]:
    expected = [text for _, text in entries(item, "expect")]
    seen: dict[str, KeyPath] = {}
    for index, entry in entries(item, "counter_example_classes"):
        at = (*path, "counter_example_classes", index)
        name = entry if isinstance(entry, str) else entry.get("class")
        if name in seen:
            first = document.position(seen[name])
            message = f"defect class '{name}' is listed twice, first at {first.line}:{first.column}"
            yield document.finding(at, "TEETH-003", message)
        elif name is not None:
            seen[name] = at
        for number, text in entries({} if isinstance(entry, str) else entry, "violates"):
            if text not in expected:
                hint = document.hints.did_you_mean(text, expected)
                message = f"'{text}' is no entry of expect.{hint} Copy one to the letter"
                yield document.finding((*at, "violates", number), "TEETH-002", message)


def _code_under_contract(document: Document) -> Iterator[Finding]:
    """CODE-001: a contract with probes says which code its evidence is for."""
    if stands(document, ("code_under_contract",)):
        return
    if any(item.get("probe") for _, item in items(document, "falsification_tests")):
        yield document.finding((), "CODE-001", "no code_under_contract: name the files that evidence is bound to")


OF_VERSION_2: tuple[Rule, ...] = (_teeth, _code_under_contract)

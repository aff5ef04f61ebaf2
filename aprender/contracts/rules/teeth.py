"""A ship-blocking falsifier of a version 2 contract has what it needs to go RED, and names the code it is about."""

from __future__ import annotations

from collections.abc import Iterator

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding, did_you_mean
from aprender.contracts.rules.common import Rule, entries, items, name_of
from aprender.contracts.schema_check import is_version_2


def _teeth(document: Document) -> Iterator[Finding]:
    """TEETH-001: ship-blocking means executable. TEETH-002: ``violates`` resolves. TEETH-003: classes are unique."""
    if not is_version_2(document.data):
        return
    for path, item in items(document, "falsification_tests"):
        needed = ("probe", "expect", "guards", "counter_example_classes")
        missing = [key for key in needed if key not in item]
        if item.get("ship_blocking") and missing:
            yield document.finding(
                path, "TEETH-001", f"{name_of(item)} is ship-blocking but has no {', '.join(missing)}"
            )
        elif "probe" in item and "expect" not in item:
            yield document.finding(path, "TEETH-001", f"{name_of(item)} has a probe but expects nothing of it")
        seen: set[str] = set()
        for index, entry in entries(item, "counter_example_classes"):
            at = (*path, "counter_example_classes", index)
            name = entry if isinstance(entry, str) else entry.get("class")
            if name is not None and name in seen:
                yield document.finding(at, "TEETH-003", f"defect class '{name}' is listed twice")
            seen.add(name or "")
            for text in [] if isinstance(entry, str) else entry.get("violates", ()):
                if text not in item.get("expect", ()):
                    hint = did_you_mean(text, item.get("expect", ()))
                    message = f"'{text}' is no entry of expect.{hint} Copy one to the letter"
                    yield document.finding(at, "TEETH-002", message)


def _code_under_contract(document: Document) -> Iterator[Finding]:
    """CODE-001: a contract with probes says which code its evidence is for."""
    if not is_version_2(document.data):
        return
    probes = any("probe" in item for _, item in items(document, "falsification_tests"))
    if probes and "code_under_contract" not in document.data:
        yield document.finding((), "CODE-001", "no code_under_contract: name the files that evidence is bound to")


RULES: tuple[Rule, ...] = (_teeth, _code_under_contract)

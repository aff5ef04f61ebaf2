"""References inside a contract resolve, by id and never by count.

The old dialect names things in free text; there only what is plainly meant as a reference is looked at. In version 2
what an obligation applies to, a gate checks and a harness proves are ids; ``pv migrate`` puts words aside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.files import STANDARD_INPUT, stem
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import KeyPath, Rule, added, entries, items, metadata_of, name_of, unique_ids
from aprender.contracts.rules.mentions import NOT_APPLICABLE, applicable, covers, equations, obligations_by_name
from aprender.contracts.schema_check import is_version_2

APPLIES_TO = ("all", "scalar", "simd", "converter", *NOT_APPLICABLE)
_LONGEST_NAME = 80  # of what may be a misspelt word: longer ones take long to compare


def _own_name(document: Document) -> Iterator[Finding]:
    """REF-007: a contract goes by the name of its file; ids of the old dialect are names of another kind."""
    name = metadata_of(document).get("id")
    if isinstance(name, str) and document.file != STANDARD_INPUT and name != stem(document.file):
        message = f"metadata.id is '{name}', but contracts go by their file's name: '{stem(document.file)}'"
        yield document.finding(("metadata", "id"), "REF-007", message)


def _coverage(document: Document) -> Iterator[Finding]:
    """REF-001: ``covers`` resolves. REF-002: every obligation is covered by a named falsifier. REF-003: ids differ."""
    yield from unique_ids(document, "proof_obligations", "REF-003")
    obligations = _ids(document, "proof_obligations")
    covered: set[str] = set()
    for path, item in items(document, "falsification_tests"):
        for index, named in covers(item):
            covered.add(named)
            if named not in obligations:
                yield _unknown(document, (*path, "covers", index), "REF-001", "proof obligation", named, obligations)
    for path, item in items(document, "proof_obligations"):
        name = item.get("id")
        if isinstance(name, str) and name not in covered and applicable(item):
            yield document.finding(path, "REF-002", f"no falsifier covers obligation '{name}'", warning=True)


def _applies_to(document: Document) -> Iterator[Finding]:
    """REF-008: what an obligation applies to is a known word or an equation; in the old dialect also a function."""
    strict = is_version_2(document.data)
    known = applicable_names(document)
    for path, item in items(document, "proof_obligations"):
        name = item.get("applies_to")
        if not isinstance(name, str) or name in known:
            continue
        hint = document.hints.did_you_mean(name, known) if len(name) < _LONGEST_NAME else ""
        if hint or strict:
            message = f"'{name}' is neither all, scalar, simd, converter, not_applicable nor an equation.{hint}"
            yield added(document, (*path, "applies_to"), "REF-008", message)


def applicable_names(document: Document) -> dict[str, None]:
    """What an obligation may apply to."""
    return dict.fromkeys((*APPLIES_TO, *(name for _, name, _ in equations(document))))


def _checks(document: Document) -> Iterator[Finding]:
    """REF-009: what the gate checks is a falsifier, an obligation, a harness or an equation of this contract."""
    known = checkable_names(document)
    gate = document.data.get("qa_gate") or {}
    for index, name in entries(gate, "checks"):
        if name not in known:
            what = "falsifier, obligation, harness or equation"
            yield _unknown(document, ("qa_gate", "checks", index), "REF-009", what, name, known)


def checkable_names(document: Document) -> dict[str, None]:
    """What a gate may check."""
    blocks = ("falsification_tests", "proof_obligations", "kani_harnesses")
    ids = (name for key in blocks for name in _ids(document, key))
    return dict.fromkeys((*ids, *(name for _, name, _ in equations(document))))


def _harnesses(document: Document) -> Iterator[Finding]:
    """REF-010: a harness names its obligation; in the old dialect it may also quote it, where ids are not used."""
    obligations = _ids(document, "proof_obligations")
    strict = is_version_2(document.data)
    if not obligations and not strict:
        return
    named = obligations_by_name(document, quoted=not strict)
    for path, item in items(document, "kani_harnesses"):
        name = item.get("obligation")
        if isinstance(name, str) and name and name not in named:
            yield _unknown(document, (*path, "obligation"), "REF-010", "proof obligation", name, obligations)
        elif strict and "obligation" not in item and "x-obligation" in item:
            message = f"{name_of(item)} proves no obligation: what stands under x-obligation is not the id of one"
            yield document.finding((*path, "x-obligation"), "REF-010", message, warning=True, key=True)


def _preconditions(document: Document) -> Iterator[Finding]:
    """REF-012: what a postcondition requires is a precondition of this contract."""
    types = {item.get("id"): item.get("type") for _, item in items(document, "proof_obligations")}
    conditions = [name for name, type_ in types.items() if type_ == "precondition" and name]
    for path, item in items(document, "proof_obligations"):
        name = item.get("requires")
        if item.get("type") != "postcondition" or not isinstance(name, str) or name in conditions:
            continue
        if name in types:
            message = f"'{name}' is an obligation of type {types[name]}; a postcondition requires a precondition"
            yield added(document, (*path, "requires"), "REF-012", message)
        elif conditions or is_version_2(document.data):
            yield _unknown(document, (*path, "requires"), "REF-012", "precondition", name, conditions)


def _ids(document: Document, key: str) -> dict[str, KeyPath]:
    return {item["id"]: path for path, item in items(document, key) if isinstance(item.get("id"), str)}


def _unknown(document: Document, path: KeyPath, rule: str, what: str, name: str, known: Any) -> Finding:
    some = ", ".join(list(known)[:20]) or "none"
    message = f"no {what} '{name}'.{document.hints.did_you_mean(name, known)} Known: {some}"
    return added(document, path, rule, message)


RULES: tuple[Rule, ...] = (_applies_to, _harnesses, _preconditions)
OF_VERSION_2: tuple[Rule, ...] = (_own_name, _coverage, _checks)

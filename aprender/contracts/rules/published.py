"""The published rules on metadata, equations, falsifiers and kani harnesses, and what a kernel contract owes."""

from __future__ import annotations

from collections.abc import Iterator

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import (
    Rule,
    empty,
    is_kernel,
    items,
    key_of,
    kind_of,
    metadata_of,
    name_of,
    nothing_said,
    said_by_schema,
    unique_ids,
)
from aprender.contracts.schema_check import is_version_2

_OWED = {  # what the claim of each kind must come with
    "kernel": ("proof_obligations", "falsification_tests", "kani_harnesses"),
    "competitive-parity": ("proof_obligations", "falsification_tests"),
}


def _metadata(document: Document) -> Iterator[Finding]:
    """SCHEMA-001: a contract names its sources. SCHEMA-002: and its version."""
    if "metadata" not in document.data:
        return  # the schema says so
    metadata, path = metadata_of(document), ("metadata", "references")
    absent = "references" not in metadata
    if not metadata.get("references") and not (absent and said_by_schema(document, path, mandatory=True)):
        yield document.finding(path, "SCHEMA-001", "metadata.references is empty: name a source")
    version = metadata.get("version")
    if version is not None and nothing_said(document)(version):
        yield document.finding(("metadata", "version"), "SCHEMA-002", "metadata.version is empty")


def _kind(document: Document) -> Iterator[Finding]:
    """What only some kinds owe; where the kind was assumed, the first error among these says so."""
    found = sorted([*_equations(document), *_provability(document)], key=lambda finding: finding[1:4])
    if found and "kind" not in metadata_of(document):
        found[0] = found[0]._replace(message=f"{found[0].message} (metadata.kind is absent: kernel is assumed)")
    yield from found
    gate_is_known = "qa_gate" in document.data or not said_by_schema(document, ("qa_gate",))
    if is_kernel(document) and not document.data.get("qa_gate") and gate_is_known:
        yield document.finding((), "SCHEMA-013", "no qa_gate block", warning=True)


def _equations(document: Document) -> Iterator[Finding]:
    """SCHEMA-003: a kernel states an equation. SCHEMA-004: each equation has a formula."""
    if not is_kernel(document):
        return
    equations = document.data.get("equations")
    if not equations and ("equations" in document.data or not said_by_schema(document, ("equations",))):
        message = "no equations: a contract of kind kernel states at least one"
        yield document.finding(("equations",), "SCHEMA-003", message)
    for name, equation in equations.items() if isinstance(equations, dict) else enumerate(equations or ()):
        path = ("equations", name, "formula")
        if not isinstance(equation, dict) or not empty(equation.get("formula")):
            continue
        if "formula" in equation or not said_by_schema(document, path):
            yield document.finding(path, "SCHEMA-004", f"equation '{equation.get('id', name)}' has no formula")


def _provability(document: Document) -> Iterator[Finding]:
    """PROVABILITY-001: a claim comes with obligations, falsifiers, harnesses; at least a falsifier per obligation."""
    kind = kind_of(document)
    owed = _OWED.get(kind, ()) if isinstance(kind, str) else ()
    for key in owed:
        if not document.data.get(key) and not (key not in document.data and said_by_schema(document, (key,))):
            yield document.finding((key,), "PROVABILITY-001", f"a {kind} contract needs {key}")
    tests, obligations = (len(document.data.get(key) or ()) for key in ("falsification_tests", "proof_obligations"))
    if owed and tests < obligations:
        message = f"{tests} falsification_tests for {obligations} proof_obligations: at least as many are needed"
        yield document.finding(("falsification_tests",), "PROVABILITY-001", message)


def _falsifiers(document: Document) -> Iterator[Finding]:
    """SCHEMA-007: ids are unique. SCHEMA-008: each predicts something. SCHEMA-009: and says where to look."""
    yield from unique_ids(document, "falsification_tests", "SCHEMA-007")
    says_nothing, strict = nothing_said(document), is_version_2(document.data)
    for path, item in items(document, "falsification_tests"):
        key = key_of(item, "prediction", "expected")
        if says_nothing(item.get(key)) and not _said(document, path, item, key):
            yield document.finding((*path, key), "SCHEMA-008", f"{name_of(item)} predicts nothing")
        key = key_of(item, "if_fails", "fails_if")
        if says_nothing(item.get(key)) and not _said(document, path, item, key):
            message = f"{name_of(item)} does not say where to look if it fails"
            yield document.finding((*path, key), "SCHEMA-009", message, warning=not strict)


def _said(document: Document, path: tuple[str | int, ...], item: dict[str, object], key: str) -> bool:
    return key not in item and said_by_schema(document, (*path, key), mandatory=True)


def _kani(document: Document) -> Iterator[Finding]:
    """SCHEMA-010: ids are unique. SCHEMA-011: each names its obligation. SCHEMA-012: and its bound."""
    yield from unique_ids(document, "kani_harnesses", "SCHEMA-010")
    says_nothing = nothing_said(document)
    for path, item in items(document, "kani_harnesses"):
        if says_nothing(item.get("obligation")) and not _said(document, path, item, "obligation"):
            message = f"kani harness {name_of(item)} names no obligation"
            yield document.finding((*path, "obligation"), "SCHEMA-011", message)
        if item.get("bound") is None and not said_by_schema(document, (*path, "bound")):
            yield document.finding(path, "SCHEMA-012", f"kani harness {name_of(item)} has no bound", warning=True)


RULES: tuple[Rule, ...] = (_metadata, _kind, _falsifiers, _kani)

"""The published rules on metadata, equations, falsifiers and kani harnesses, and what a kernel contract owes."""

from __future__ import annotations

from collections.abc import Iterator

from aprender.contracts.findings import Finding
from aprender.contracts.reader import Document
from aprender.contracts.rules.common import (
    Rule,
    empty,
    is_kernel,
    items,
    key_of,
    kind_of,
    metadata_of,
    name_of,
    said_by_schema,
    stands,
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
    if metadata.get("version") == "":
        yield document.finding(("metadata", "version"), "SCHEMA-002", "metadata.version is empty")


def _kernel(document: Document) -> Iterator[Finding]:
    """What only some kinds owe; where the kind was assumed, the first finding of these says so."""
    found = sorted([*_equations(document), *_provability(document)], key=lambda finding: finding[1:4])
    if found and "kind" not in metadata_of(document):
        message = f"{found[0].message} (metadata.kind is absent: kernel is assumed)"
        found[0] = found[0]._replace(message=message)
    yield from found


def _equations(document: Document) -> Iterator[Finding]:
    """SCHEMA-003: a kernel states an equation. SCHEMA-004: each equation has a formula."""
    if not is_kernel(document):
        return
    equations = document.data.get("equations")
    if not equations and not (equations is None and stands(document, ("equations",)) and not _is_null(document)):
        message = "no equations: a contract of kind kernel states at least one"
        yield document.finding(("equations",), "SCHEMA-003", message)

"""The published rules on proof obligations: what each type may say, and who answers for what does not apply."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import (
    KeyPath,
    Rule,
    blank,
    items,
    key_of,
    metadata_of,
    nothing_said,
    said_by_schema,
)
from aprender.contracts.rules.mentions import applicable

_ONLY_OF = {  # rule, and the types of obligation that a field belongs to
    "requires": ("SCHEMA-014", ("postcondition",)),
    "applies_to_phase": ("SCHEMA-015", ("loop_invariant", "loop_variant")),
    "parent_contract": ("SCHEMA-016", ("subcontract",)),
}


def _claims(document: Document) -> Iterator[Finding]:
    """SCHEMA-005: an obligation claims something. SCHEMA-006: and not what another one claims."""
    formals: dict[str, KeyPath] = {}
    says_nothing = nothing_said(document)
    for path, item in items(document, "proof_obligations"):
        key = key_of(item, "property", "statement")
        if says_nothing(item.get(key)) and not (
            key not in item and said_by_schema(document, (*path, key), mandatory=True)
        ):
            yield document.finding((*path, key), "SCHEMA-005", "proof obligation has an empty property")
        key = key_of(item, "formal", "verification")
        formal = item.get(key)
        if isinstance(formal, str) and formal in formals:
            first = document.position(formals[formal])
            message = f"the same formal text as the obligation at {first.line}:{first.column}"
            yield document.finding((*path, key), "SCHEMA-006", message, warning=True)
        elif isinstance(formal, str):
            formals[formal] = (*path, key)


def _fields_of_types(document: Document) -> Iterator[Finding]:
    """SCHEMA-014 to 016: a field stands only at the types that it has a meaning for. SCHEMA-017: parents are named."""
    named = metadata_of(document).get("depends_on") or ()
    for path, item in items(document, "proof_obligations"):
        type_ = item.get("type", "invariant")
        for key, (rule, types) in _ONLY_OF.items():
            if item.get(key) is not None and type_ not in types:
                message = f"'{key}' has a meaning only for obligations of type {' or '.join(types)}, not {type_}"
                yield document.finding((*path, key), rule, message, key=True)
        parent = item.get("parent_contract")
        if type_ == "subcontract" and parent is not None and parent not in named:
            hint = document.hints.did_you_mean(parent, [*filter(None, named)])
            message = f"parent contract '{parent}' is not listed in metadata.depends_on.{hint}"
            yield document.finding((*path, "parent_contract"), "SCHEMA-017", message)


def _not_applicable(document: Document) -> Iterator[Finding]:
    """SCHEMA-021, 022: not applicable needs a reason and an owner. SCHEMA-023: and only that has them."""
    for path, item in items(document, "proof_obligations"):
        if not applicable(item):
            yield from _missing_reasons(document, path, item)
            continue
        for key in ("na_reason", "na_owner"):
            if item.get(key) is not None:
                message = f"'{key}' stands only with 'applies_to: not_applicable'; this obligation applies"
                yield document.finding((*path, key), "SCHEMA-023", message, key=True)


def _missing_reasons(document: Document, path: KeyPath, item: dict[str, Any]) -> Iterator[Finding]:
    for key, rule, what in (("na_reason", "SCHEMA-021", "why"), ("na_owner", "SCHEMA-022", "who answers for that")):
        if blank(item.get(key)) and not (key not in item and said_by_schema(document, (*path, key))):
            message = f"the obligation is not applicable, but '{key}' does not say {what}"
            yield document.finding((*path, key) if key in item else (*path, "applies_to"), rule, message)


RULES: tuple[Rule, ...] = (_claims, _fields_of_types, _not_applicable)

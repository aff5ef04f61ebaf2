"""References inside a version 2 contract resolve."""

from __future__ import annotations

from collections.abc import Iterator

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding, did_you_mean
from aprender.contracts.rules.common import Rule, entries, items, unique_ids
from aprender.contracts.schema_check import is_version_2


def _references(document: Document) -> Iterator[Finding]:
    """REF-001: ``covers`` resolves. REF-002: every obligation is covered by a named falsifier."""
    if not is_version_2(document.data):
        return
    yield from unique_ids(document, "proof_obligations", "REF-003")
    obligations = {item["id"]: path for path, item in items(document, "proof_obligations") if "id" in item}
    covered: set[str] = set()
    for path, item in items(document, "falsification_tests"):
        for index, name in entries(item, "covers"):
            covered.add(name)
            if name not in obligations:
                known = ", ".join(obligations) or "none"
                message = f"no proof obligation '{name}'.{did_you_mean(name, obligations)} Known: {known}"
                yield document.finding((*path, "covers", index), "REF-001", message)
    for name in (name for name in obligations if name not in covered):
        message = f"no falsifier covers obligation '{name}'"
        yield document.finding(obligations[name], "REF-002", message, warning=True)


RULES: tuple[Rule, ...] = (_references,)

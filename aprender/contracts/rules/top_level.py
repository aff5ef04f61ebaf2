"""Top-level keys that look like something and are nothing: the published rules, and a forgotten schema_version."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding, did_you_mean
from aprender.contracts.rules.common import Rule, items
from aprender.contracts.schema_check import is_version_2, near_block

_ONLY_OF_VERSION_2 = ("probe", "expect", "guards", "gate_requires")
_KEYS_LOOKED_AT = 200  # for a mistyped schema_version: it stands near the top or nowhere


def _misplaced(document: Document) -> Iterator[Finding]:
    """SCHEMA-018: ``kind`` belongs into metadata. SCHEMA-019: a key that is nearly the name of a block."""
    for key in document.data:
        if key == "kind":
            message = "'kind' at the top level has no effect; it belongs into metadata"
            yield document.finding((key,), "SCHEMA-018", message, key=True)
        elif block := near_block(key):
            message = f"'{key}' has no effect: the block is called '{block}'"
            yield document.finding((key,), "SCHEMA-019", message, key=True)


def _forgotten_version(document: Document) -> Iterator[Finding]:
    """SCHEMA-103: a contract that means to be executable is never passed over for a missing or mistyped key."""
    if is_version_2(document.data):
        return
    keys = islice(document.data, _KEYS_LOOKED_AT)
    near = next((key for key in keys if "s" in key and "v" in key and did_you_mean(key, ["schema_version"])), None)
    used = {key for key in ("code_under_contract", "valid_for") if key in document.data}
    for _, item in items(document, "falsification_tests"):
        used.update(key for key in _ONLY_OF_VERSION_2 if key in item)
    if near or used:
        what = f"'{near}' looks like schema_version" if near else f"version 2 keys ({', '.join(sorted(used))})"
        message = f"{what}, but there is no 'schema_version: 2': it would never be run"
        yield document.finding((near,) if near else (), "SCHEMA-103", message, key=True)


RULES: tuple[Rule, ...] = (_misplaced, _forgotten_version)

"""Top-level keys that look like something and are nothing: the published rules, and a forgotten schema_version."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import Rule, items
from aprender.contracts.schema_check import is_version_2, near_block

_ONLY_OF_VERSION_2 = frozenset(("probe", "expect", "guards", "gate_requires"))
_SQUASHED, _NEAR = "schemaversion", 0.9  # two mistyped letters of thirteen are too many
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
    near = next(filter(_is_nearly_schema_version, islice(document.data, _KEYS_LOOKED_AT)), None)
    used = {"code_under_contract", "valid_for"} & document.data.keys()
    for _, item in items(document, "falsification_tests"):
        if not _ONLY_OF_VERSION_2.isdisjoint(item):
            used |= _ONLY_OF_VERSION_2 & item.keys()
    if near or used:
        what = f"'{near}' looks like schema_version" if near else f"version 2 keys ({', '.join(sorted(used))})"
        message = f"{what}, but there is no 'schema_version: 2': it would never be run"
        only_hints = not near and "probe" not in used  # keys that contracts of the old dialect may have for themselves
        yield document.finding((near,) if near else (), "SCHEMA-103", message, key=True, warning=only_hints)


def _is_nearly_schema_version(key: str) -> bool:
    """Whether ``key`` is ``schema_version`` but for case, separators and a typing error; ``version`` is not."""
    lowered = key.lower()
    if "v" not in lowered or "s" not in lowered:
        return False
    squashed = "".join(filter(str.isalnum, lowered))
    if abs(len(squashed) - len(_SQUASHED)) > 1:
        return False
    import difflib  # only for a key that may well be it

    return difflib.SequenceMatcher(None, squashed, _SQUASHED).ratio() >= _NEAR


RULES: tuple[Rule, ...] = (_misplaced, _forgotten_version)

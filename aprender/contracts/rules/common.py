"""What rules share: which contract they look at, its entries, and what the schema has said already.

Rules see a sound document: a value of the wrong type is gone (None stands in its place in a list), a value of the right
type that the schema refuses for its content (an unknown word) is still there, and anything may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding
from aprender.contracts.schema_check import is_version_2

KeyPath = tuple[str | int, ...]
Rule = Callable[[Document], Iterator[Finding]]


def metadata_of(document: Document) -> dict[str, Any]:
    """The ``metadata`` block, empty where there is none."""
    metadata: dict[str, Any] = document.data.get("metadata") or {}
    return metadata


def kind_of(document: Document) -> Any:
    """The kind that decides which rules hold: absent is kernel, and ``registry: true`` makes a kernel a registry."""
    metadata = metadata_of(document)
    kind = metadata.get("kind", "kernel")
    return "registry" if kind == "kernel" and metadata.get("registry") is True else kind


def is_kernel(document: Document) -> bool:
    """Whether the contract owes equations, obligations, tests and harnesses."""
    return bool(kind_of(document) == "kernel")


def items(document: Document, *path: str) -> list[tuple[KeyPath, dict[str, Any]]]:
    """The mappings in the list at ``path``, each with its own path: found once, since most rules ask for the same."""
    found: list[tuple[KeyPath, dict[str, Any]]] | None = document.lists.get(path)
    if found is None:
        found = document.lists[path] = _items(document.data, path)
    return found


def _items(value: Any, path: tuple[str, ...]) -> list[tuple[KeyPath, dict[str, Any]]]:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    entries = value if isinstance(value, list) else ()
    return [((*path, index), item) for index, item in enumerate(entries) if isinstance(item, dict)]


def entries(item: dict[str, Any], key: str) -> Iterator[tuple[int, Any]]:
    """The entries of a list in ``item`` that have the right shape, with their indices.

    The old dialect does not look at keys of version 2: there anything may stand for the list.
    """
    value = item.get(key)
    return ((index, entry) for index, entry in enumerate(value if isinstance(value, list) else ()) if entry is not None)


def name_of(item: dict[str, Any]) -> str:
    """The id of an entry, for a sentence about it."""
    name = item.get("id")
    return name if isinstance(name, str) and name.strip() else "this entry"


def key_of(item: dict[str, Any], *names: str) -> str:
    """The first of a field's ``names`` (its aliases come last) that ``item`` has; the first one where it has none."""
    for name in names:
        if item.get(name) is not None:
            return name
    return names[0]


def empty(value: Any) -> bool:
    """Absent or exactly empty: text of blanks is something to the published rules."""
    return value is None or value == ""


def blank(value: Any) -> bool:
    """Absent, empty or only white space."""
    return value is None or (isinstance(value, str) and not value.strip())


def nothing_said(document: Document) -> Callable[[Any], bool]:
    """What counts as no text: in version 2 blanks do, too."""
    return blank if is_version_2(document.data) else empty


def stands(document: Document, path: KeyPath) -> bool:
    """Whether the file has something at ``path``, even where the schema refused it and the rules don't see it."""
    return document.position(path) != document.position(path[:-1])


def said_by_schema(document: Document, path: KeyPath, *, mandatory: bool = False) -> bool:
    """Whether the schema check reports the absence of the value at ``path``, which the rules do not see.

    That is so where a value of the wrong type stands there, and for a key that is ``mandatory`` in version 2.
    """
    return (mandatory and is_version_2(document.data)) or stands(document, path)


def added(
    document: Document, path: KeyPath, rule: str, message: str, *, warning: bool = False, key: bool = False
) -> Finding:
    """A finding of a rule that the published validator lacks: never more than a warning on the old dialect."""
    warning = warning or not is_version_2(document.data)
    return document.finding(path, rule, message, warning=warning, key=key)


def unique_ids(document: Document, key: str, rule: str) -> Iterator[Finding]:
    """One error for each entry of the list ``key`` whose id an earlier entry has."""
    seen: dict[str, KeyPath] = {}
    for path, item in items(document, key):
        name = item.get("id")
        if not isinstance(name, str):
            continue
        if name in seen:
            first = document.position((*seen[name], "id"))
            message = f"id '{name}' is taken by the entry at {first.line}:{first.column}"
            yield document.finding((*path, "id"), rule, message)
        seen.setdefault(name, path)

"""From a document to its summary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aprender.contracts.document import Document, KeyPath
from aprender.contracts.rules.common import items, metadata_of
from aprender.contracts.schema_check import is_version_2
from aprender.contracts.summary import Named, Summary


def summary_of(document: Document) -> Summary:
    """What the rest of the set may ask of ``document``, which holds no value of the wrong shape."""
    if not isinstance(document.data, dict):
        return Summary(document.file, False, 0, 0, None, [], [], [], [])
    tests = list(items(document, "falsification_tests"))
    return Summary(
        document.file,
        is_version_2(document.data),
        len(tests),
        sum(len(item.get("expect") or ()) for _, item in tests),
        next(_named(document, ("metadata",), metadata_of(document), "id"), None),
        [found for path, item in tests for found in _named(document, path, item, "id")],
        _equations(document.data),
        [*_needs(document)],
        [*_takes(document)],
    )


def _named(document: Document, path: KeyPath, holder: Any, step: str | int) -> Iterator[Named]:
    """The name that stands in ``holder``, the value at ``path``, if one does."""
    name = holder.get(step) if isinstance(holder, dict) else holder[step]
    if isinstance(name, str) and name:
        yield (name, *document.entry_position(holder, (*path, step)))


def _equations(data: dict[str, Any]) -> list[str]:
    equations = data.get("equations") or {}
    if isinstance(equations, dict):
        return list(equations)
    return [str(entry["id"]) for entry in equations if isinstance(entry, dict) and entry.get("id")]


def _needs(document: Document) -> Iterator[Named]:
    """Every contract that this one names."""
    for key in ("depends_on", "parent_contracts"):
        names = metadata_of(document).get(key)
        for index in range(len(names) if isinstance(names, list) else 0):
            yield from _named(document, ("metadata", key), names, index)
    for path, item in items(document, "proof_obligations"):
        yield from _named(document, path, item, "parent_contract")


def _takes(document: Document) -> Iterator[tuple[str, str, int, int]]:
    """Every shape that an equation takes from, or gives to, an equation of another contract."""
    equations = document.data.get("equations")
    for name, equation in equations.items() if isinstance(equations, dict) else ():
        for key in ("assumes", "guarantees") if isinstance(equation, dict) else ():
            shapes = equation.get(key)
            if isinstance(shapes, dict) and isinstance(shapes.get("from_equation"), str):
                path = ("equations", name, key, "from_equation")
                contract = shapes.get("from_contract")
                yield (contract if isinstance(contract, str) else "", shapes["from_equation"], *document.position(path))

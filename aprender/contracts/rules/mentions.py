"""What the parts of a contract name: equations, obligations that are covered, contracts that are needed.

The rules, ``pv graph`` and ``pv coverage`` read these in one way. In the old dialect anything may stand under a key
that its parser dropped, so every shape is looked at before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.rules.common import KeyPath, items, metadata_of
from aprender.contracts.summary import Named

NOT_APPLICABLE = ("not_applicable", "N/A")


def equations(document: Document) -> Iterator[tuple[KeyPath, str, Any]]:
    """(path, name, equation): keys are names; in a list ids are, and ``equation_N`` where there is none."""
    value = document.data.get("equations")
    if isinstance(value, dict):
        for name, equation in value.items():
            yield ("equations", name), str(name), equation
    for path, equation in items(document, "equations"):
        name = equation.get("id")
        yield path, name if isinstance(name, str) and name else f"equation_{path[-1]}", equation


def applicable(obligation: dict[str, Any]) -> bool:
    """Whether an obligation asks for anything here: ``applies_to: not_applicable`` takes it back, with a reason."""
    return obligation.get("applies_to") not in NOT_APPLICABLE


def covers(falsifier: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """The obligations that a falsifier covers, by id, with their indices."""
    names = falsifier.get("covers")
    for index, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str):
            yield index, name


def obligations_by_name(document: Document, *, quoted: bool = False) -> dict[str, list[int]]:
    """Indices of the proof obligations by id and, with ``quoted`` (harnesses of the old dialect), by their property."""
    found: dict[str, list[int]] = {}
    for path, item in items(document, "proof_obligations"):
        names = {item.get(key) for key in (("id", "property") if quoted else ("id",))}
        for name in names:
            if isinstance(name, str) and name:
                found.setdefault(name, []).append(int(path[-1]))
    return found


def class_names(falsifier: dict[str, Any]) -> list[str]:
    """The defect classes of a falsifier without their stories: a slug, ``slug: story``, or a mapping of either form."""
    value = falsifier.get("counter_example_classes")
    entries = value if isinstance(value, list) else []
    names = (entry.get("class", next(iter(entry), "")) if isinstance(entry, dict) else entry for entry in entries)
    return [name for name in (str(name).partition(":")[0].strip() for name in names if name is not None) if name]


def dependencies(document: Document) -> Iterator[tuple[str, Named]]:
    """Every contract that this one rests on, with the key that says so."""
    for key in ("depends_on", "parent_contracts"):
        names = metadata_of(document).get(key)
        for index in range(len(names) if isinstance(names, list) else 0):
            if found := named(document, ("metadata", key), names, index):
                yield key, found
    for path, item in items(document, "proof_obligations"):
        if "parent_contract" in item and (found := named(document, path, item, "parent_contract")):
            yield "parent_contract", found


def named(document: Document, path: KeyPath, holder: Any, step: str | int) -> Named | None:
    """The name that stands in ``holder``, the value at ``path``, if one does."""
    name = holder.get(step) if isinstance(holder, dict) else holder[step]
    if not isinstance(name, str) or not name:
        return None
    return (name, *document.entry_position(holder, (*path, step)))


def shapes(document: Document) -> Iterator[tuple[KeyPath, str, dict[str, Any]]]:
    """(path, ``assumes`` or ``guarantees``, block) of the shapes that equations share with other equations."""
    for path, _, equation in equations(document):
        for key in ("assumes", "guarantees") if isinstance(equation, dict) else ():
            if isinstance(equation.get(key), dict):
                yield (*path, key), key, equation[key]

"""One contract as a page: plain data for programs, wrapped text for people."""

from __future__ import annotations

import os
import textwrap
from typing import Any

from aprender.contracts.change import texts_of
from aprender.contracts.document import Document
from aprender.contracts.links import one_line
from aprender.contracts.rules.mentions import class_names
from aprender.reports.excerpt import shown

_LABEL = 12  # what stands before a value is this wide, so that values align


def falsifiers_of(data: Any) -> list[dict[str, Any]]:
    """The falsifiers that are mappings; anything else is for ``pv validate`` to complain about."""
    return _mappings(data.get("falsification_tests"))


def falsifier_id(entry: dict[str, Any]) -> str:
    """The id, or what stands in for it."""
    return str(entry.get("id", "(no id)"))


def page_data(document: Document, only: str | None) -> dict[str, Any]:
    """All that the page says, as plain data; ``only`` this falsifier where one is given."""
    data = document.data
    raw = data.get("metadata")
    metadata = raw if isinstance(raw, dict) else {}
    tests = data.get("falsification_tests")
    falsifiers = [
        _falsifier(document, entry, index)
        for index, entry in enumerate(tests if isinstance(tests, list) else [])
        if isinstance(entry, dict) and only in (None, falsifier_id(entry))
    ]
    head = {key: one_line(metadata.get(key)) for key in ("version", "kind", "status", "description")}
    stem = os.path.splitext(os.path.basename(document.file))[0]
    obligations = [
        {
            "id": one_line(entry.get("id")),
            "property": one_line(entry.get("property", entry.get("statement"))),
            "covered_by": [f["id"] for f in falsifiers if entry.get("id") in f["covers"]],
        }
        for entry in _mappings(data.get("proof_obligations"))
    ]
    wanted = obligations if only is None else [o for o in obligations if o["covered_by"]]
    return {
        "id": one_line(metadata.get("id")) or stem,
        "file": document.file,
        **head,
        "obligations": wanted,
        "falsifiers": falsifiers,
    }


def contract_page(data: dict[str, Any], width: int) -> str:
    """The page, wrapped at ``width``."""
    version = data["version"] or "no version"
    lines = [" ".join([data["id"], version, *([f"({data['kind']})"] if data["kind"] else [])])]
    lines += _labelled("file", data["file"], width) + _labelled("status", data["status"], width)
    if data["description"]:
        lines += ["", *textwrap.wrap(data["description"], width)]
    if data["obligations"]:
        lines += ["", "Obligations"]
    for obligation in data["obligations"]:
        lines += _hanging(f"  {obligation['id'] or '(no id)'}  ", obligation["property"], width)
        lines += _labelled("covered by", ", ".join(obligation["covered_by"]) or "no falsifier that names it", width)
    if data["falsifiers"]:
        lines += ["", "Falsifiers"]
    for index, falsifier in enumerate(data["falsifiers"]):
        lines += ([""] if index else []) + _falsifier_lines(falsifier, width)
    return "\n".join(map(shown, lines))


def _falsifier(document: Document, entry: dict[str, Any], index: int) -> dict[str, Any]:
    at = document.position(("falsification_tests", index))
    arguments = entry.get("with")
    return {
        "id": falsifier_id(entry),
        "ship_blocking": entry.get("ship_blocking") is True,
        "rule": one_line(entry.get("rule", entry.get("description"))),
        "prediction": one_line(entry.get("prediction", entry.get("expected"))),
        "if_fails": one_line(entry.get("if_fails", entry.get("fails_if"))),
        "covers": list(texts_of(entry.get("covers"))),
        "probe": one_line(entry.get("probe")),
        "with": arguments if isinstance(arguments, dict) else {},
        "test": one_line(entry.get("test", entry.get("command"))),
        "requires": _devices(entry.get("requires")),
        "gate_requires": _devices(entry.get("gate_requires")),
        "expect": list(texts_of(entry.get("expect"))),
        "guards": list(texts_of(entry.get("guards"))),
        "classes": class_names(entry),
        "file": document.file,
        "line": at.line,
        "column": at.column,
    }


def _falsifier_lines(falsifier: dict[str, Any], width: int) -> list[str]:
    arguments = ", ".join(f"{key}: {value}" for key, value in falsifier["with"].items())
    lines = [f"  {falsifier['id']}{'  (ship-blocking)' if falsifier['ship_blocking'] else ''}"]
    for key in ("rule", "prediction", "if_fails", "test", "probe"):
        lines += _labelled(key.replace("_", " "), falsifier[key], width)
    lines += _labelled("with", arguments, width)
    lines += _labelled("requires", falsifier["requires"], width)
    lines += _labelled("gate needs", falsifier["gate_requires"], width)
    for key in ("expect", "guards"):
        for number, text in enumerate(falsifier[key]):
            lines += _labelled(key if number == 0 else "", text, width)
    lines += _labelled("classes", ", ".join(falsifier["classes"]), width)
    return lines + _labelled("where", f"{falsifier['file']}:{falsifier['line']}", width)


def _labelled(label: str, value: str, width: int) -> list[str]:
    return _hanging(f"  {label:{_LABEL}}", value, width) if value else []


def _hanging(label: str, value: str, width: int) -> list[str]:
    """``value`` after ``label``, its further lines below its first; a narrow terminal must not make it endless."""
    further = " " * (_LABEL + 2)
    wrapper = textwrap.TextWrapper(max(width, 40), label, further, break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(value)


def _devices(value: Any) -> str:
    return ", ".join(f"{key}: {item}" for key, item in value.items()) if isinstance(value, dict) else one_line(value)


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []

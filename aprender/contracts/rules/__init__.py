"""What the schema can't say: the published rules, and the rules between fields of a version 2 contract.

The published ids and severities stay as they are for contracts of the old dialect; rules of the families
REF, EXPR, TEETH and CODE are new and hold for ``schema_version: 2``. Rules see only documents whose shape the
schema accepts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aprender.contracts.document import Document, KeyPath
from aprender.contracts.findings import Finding, did_you_mean
from aprender.contracts.rules import expressions, teeth
from aprender.contracts.schema_check import is_version_2


def check_rules(document: Document) -> list[Finding]:
    """All violations of all rules. ``document`` holds no value of the wrong shape, but anything may be missing."""
    if not isinstance(document.data, dict):
        return []
    rules = [_metadata, _equations, _obligations, _falsifiers, _kani, _provability]
    if not is_version_2(document.data):
        rules.append(_forgotten_version)
    else:
        rules += [_references, *expressions.RULES, *teeth.RULES]
    return [finding for rule in rules for finding in rule(document)]


def _is_kernel(data: dict[str, Any]) -> bool:
    metadata = data.get("metadata", {})
    return metadata.get("kind", "kernel") == "kernel" and not metadata.get("registry", False)


def _items(document: Document, key: str) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    for index, item in enumerate(document.data.get(key) or []):
        if isinstance(item, dict):
            yield (key, index), item


def _entries(item: dict[str, Any], key: str) -> Iterator[tuple[int, Any]]:
    """The entries of a list in ``item`` that have the right shape, with their indices."""
    return ((index, entry) for index, entry in enumerate(item.get(key) or ()) if entry is not None)


def _name(item: dict[str, Any]) -> str:
    name: str = item.get("id", "this entry")
    return name


def _empty(value: Any) -> bool:
    return value is None or value == ""


def _is_missing(document: Document, item: dict[str, Any], key: str) -> bool:
    """Whether the strict schema has said already that the key is missing or misshapen."""
    return is_version_2(document.data) and key not in item


def _metadata(document: Document) -> Iterator[Finding]:
    metadata = document.data.get("metadata", {})
    if metadata.get("references") == [] or ("references" not in metadata and not is_version_2(document.data)):
        yield document.finding(("metadata", "references"), "SCHEMA-001", "metadata.references is empty: name a source")
    if metadata.get("version") == "":
        yield document.finding(("metadata", "version"), "SCHEMA-002", "metadata.version is empty")
    if _is_kernel(document.data) and not document.data.get("qa_gate"):
        yield document.finding((), "SCHEMA-013", "no qa_gate block", warning=True)


def _equations(document: Document) -> Iterator[Finding]:
    equations = document.data.get("equations") or {}
    if not _is_kernel(document.data):
        return
    if not equations:
        yield document.finding((), "SCHEMA-003", "no equations: a contract of kind kernel states at least one")
    entries = equations.items() if isinstance(equations, dict) else enumerate(equations)
    for name, equation in entries:
        if isinstance(equation, dict) and _empty(equation.get("formula")):
            yield document.finding(("equations", name), "SCHEMA-004", f"equation '{name}' has no formula")


def _obligations(document: Document) -> Iterator[Finding]:
    formals: dict[str, KeyPath] = {}
    for path, item in _items(document, "proof_obligations"):
        if _empty(item.get("property", item.get("statement"))) and not _is_missing(document, item, "property"):
            yield document.finding(path, "SCHEMA-005", "proof obligation has an empty property")
        formal = item.get("formal")
        if isinstance(formal, str) and formal in formals:
            first = document.position(formals[formal])
            message = f"the same formal text as the obligation at {first.line}:{first.column}"
            yield document.finding((*path, "formal"), "SCHEMA-006", message, warning=True)
        elif isinstance(formal, str) and formal:
            formals[formal] = path


def _falsifiers(document: Document) -> Iterator[Finding]:
    yield from _unique_ids(document, "falsification_tests", "SCHEMA-007")
    for path, item in _items(document, "falsification_tests"):
        if _empty(item.get("prediction", item.get("expected"))) and not _is_missing(document, item, "prediction"):
            yield document.finding((*path, "prediction"), "SCHEMA-008", f"{_name(item)} predicts nothing")
        if _empty(item.get("if_fails", item.get("fails_if"))) and not _is_missing(document, item, "if_fails"):
            message = f"{_name(item)} does not say where to look if it fails"
            yield document.finding((*path, "if_fails"), "SCHEMA-009", message, warning=True)


def _kani(document: Document) -> Iterator[Finding]:
    yield from _unique_ids(document, "kani_harnesses", "SCHEMA-010")
    for path, item in _items(document, "kani_harnesses"):
        if _empty(item.get("obligation")):
            yield document.finding(path, "SCHEMA-011", f"kani harness {_name(item)} names no obligation")
        if item.get("bound") is None:
            yield document.finding(path, "SCHEMA-012", f"kani harness {_name(item)} has no bound", warning=True)


def _provability(document: Document) -> Iterator[Finding]:
    if not _is_kernel(document.data):
        return
    assumed = "" if "kind" in document.data.get("metadata", {}) else " (kind is absent: kernel assumed)"
    for key in ("proof_obligations", "falsification_tests", "kani_harnesses"):
        if not document.data.get(key):
            yield document.finding((), "PROVABILITY-001", f"a kernel contract needs {key}{assumed}")
    tests, obligations = (len(document.data.get(k) or []) for k in ("falsification_tests", "proof_obligations"))
    if tests < obligations:
        message = f"{tests} falsification_tests for {obligations} proof_obligations: at least as many are needed"
        yield document.finding(("falsification_tests",), "PROVABILITY-001", message)


def _unique_ids(document: Document, key: str, rule: str) -> Iterator[Finding]:
    seen: dict[str, KeyPath] = {}
    for path, item in _items(document, key):
        if "id" not in item:
            continue
        if item["id"] in seen:
            first = document.position((*seen[item["id"]], "id"))
            message = f"id '{item['id']}' is taken by the entry at {first.line}:{first.column}"
            yield document.finding((*path, "id"), rule, message)
        seen.setdefault(item["id"], path)


def _references(document: Document) -> Iterator[Finding]:
    """REF-001: ``covers`` resolves. REF-002: every obligation is covered by a named falsifier."""
    yield from _unique_ids(document, "proof_obligations", "REF-003")
    obligations = {item["id"]: path for path, item in _items(document, "proof_obligations") if "id" in item}
    covered: set[str] = set()
    for path, item in _items(document, "falsification_tests"):
        for index, name in _entries(item, "covers"):
            covered.add(name)
            if name not in obligations:
                known = ", ".join(obligations) or "none"
                message = f"no proof obligation '{name}'.{did_you_mean(name, obligations)} Known: {known}"
                yield document.finding((*path, "covers", index), "REF-001", message)
    for name in (name for name in obligations if name not in covered):
        message = f"no falsifier covers obligation '{name}'"
        yield document.finding(obligations[name], "REF-002", message, warning=True)


def _forgotten_version(document: Document) -> Iterator[Finding]:
    """SCHEMA-103: a contract that means to be executable is never passed over for a missing or mistyped key."""
    near = next((key for key in document.data if did_you_mean(key, ["schema_version"])), None)
    used = {key for key in ("code_under_contract", "valid_for") if key in document.data}
    for _, item in _items(document, "falsification_tests"):
        used |= item.keys() & {"probe", "expect", "guards", "gate_requires"}
    if near or used:
        what = f"'{near}' looks like schema_version" if near else f"version 2 keys ({', '.join(sorted(used))})"
        message = f"{what}, but there is no 'schema_version: 2': it would never be run"
        yield document.finding((near,) if near else (), "SCHEMA-103", message, key=True)

"""The steps from the published dialect to version 2. Each collects edits and says in words what it did."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from aprender.contracts.document import KeyPath
from aprender.contracts.findings import did_you_mean
from aprender.contracts.migrate_edits import Edits, written
from aprender.contracts.rules.references import applicable_names, checkable_names
from aprender.contracts.schema import Violation, contract_schema, violations

ALIASES = {
    "proof_obligations": {"statement": "property", "verification": "formal"},
    "falsification_tests": {
        "description": "rule", "expected": "prediction", "command": "test", "fails_if": "if_fails",
    },
}  # fmt: skip
DEFAULT_TYPE = "invariant"  # what the published parser takes an obligation without a type for
# What decides whether a falsifier runs and ships: a value that version 2 refuses here is for a person to mend.
LOAD_BEARING = frozenset(
    ("ship_blocking", "probe", "with", "requires", "gate_requires", "expect", "guards", "covers",
     "counter_example_classes", "code_under_contract", "valid_for")
)  # fmt: skip
_CLASS = re.compile(r"[a-z][a-z0-9_]*\Z")
_CLASS_AND_STORY = re.compile(r"([a-z][a-z0-9_]*): +(\S.*)\Z")
_SLUG_LENGTH = 48


def rename_words(edits: Edits) -> list[str]:
    """``schema_version: 2``, and for every name of the older dialect the one that version 2 has."""
    edits.add((), "schema_version", 2)
    notes = [_renamed_metadata(edits)]
    for block, aliases in ALIASES.items():
        for path, item in _items(edits, block):
            for old, new in aliases.items():
                if old in item and new not in item:
                    edits.rename((*path, old), new)
                    notes.append(f"{old} is now {new}")
    return _counted(notes)


def fill_gaps(edits: Edits) -> list[str]:
    """What the published parser fills in or reads in two ways is written out: ids, types, quotes, classes, names."""
    notes = [*_quoted(edits), *_equation_names(edits), *_named_obligations(edits)]
    for path, item in _items(edits, "falsification_tests"):
        classes = item.get("counter_example_classes")
        for index, entry in enumerate(classes if isinstance(classes, list) else ()):
            notes += _defect_class(edits, (*path, "counter_example_classes", index), entry)
    return _counted(notes)


def put_words_aside(edits: Edits) -> list[str]:
    """Where version 2 has the id of something in the contract, words that are none get x-; a gate keeps its ids."""
    notes = list[str]()
    obligations = {item.get("id") for _, item in _items(edits, "proof_obligations")}
    for block, key, known in (
        ("proof_obligations", "applies_to", applicable_names(edits.document)),
        ("kani_harnesses", "obligation", obligations),
    ):
        for path, item in _items(edits, block):
            if item.get(key) and isinstance(item[key], str) and item[key] not in known and f"x-{key}" not in item:
                edits.rename((*path, key), f"x-{key}")
                notes.append(f"{block}.{key} is no id: it is now x-{key}")
    gate = edits.document.data.get("qa_gate")
    checks = gate.get("checks") if isinstance(gate, dict) and "x-checks" not in gate else None
    known = checkable_names(edits.document)
    if isinstance(checks, list) and all(isinstance(check, str) for check in checks) and not known.keys() >= set(checks):
        if ids := [check for check in checks if check in known]:
            edits.add(("qa_gate",), "checks", ids)
        edits.rename(("qa_gate", "checks"), "x-checks")
        notes.append("qa_gate.checks is now x-checks, but for its ids" if ids else "qa_gate.checks is now x-checks")
    return _counted(notes)


def put_aside(edits: Edits) -> list[str]:
    """Keys that version 2 does not know, or whose value it refuses where the published parser never looked, get x-."""
    aside: dict[KeyPath, None] = {}
    for violation in violations(edits.document.data):
        if violation.keyword == "additionalProperties":
            aside |= dict.fromkeys(_unknown(violation))
        elif violation.keyword != "required" and (path := _ignored_key(edits, violation)) is not None:
            aside[path] = None
    for path in [path for path in aside if not any(path[:length] in aside for length in range(len(path)))]:
        key = str(path[-1])
        if f"x-{key}" not in edits.value(path[:-1]):
            edits.rename(path, f"x-{key}")
    return _counted(
        f"{'.'.join(str(s) for s in path if isinstance(s, str))} is now {new}" for path, new in edits.keys.items()
    )


def _renamed_metadata(edits: Edits) -> str:
    metadata = edits.document.data.get("metadata")
    if not isinstance(metadata, dict):
        return ""
    if "last_modified" in metadata and "updated" not in metadata:
        edits.rename(("metadata", "last_modified"), "updated")
    kind = metadata.get("kind", "kernel")
    if metadata.get("registry") is not True or kind != "kernel":
        return ""
    if "kind" in metadata:  # the flag itself is put aside like any key that version 2 does not know
        edits.replace(("metadata", "kind"), "registry", "registry")
    else:
        edits.rename(("metadata", "registry"), "kind")
        edits.replace(("metadata", "registry"), "registry", "registry")
    return "registry: true is now kind: registry"


def _quoted(edits: Edits) -> Iterator[str]:
    """A number where only text is meant is that text, as it was typed."""
    for path, keyword, value, schema, _ in violations(edits.document.data):
        if keyword == "type" and schema["type"] == "string" and isinstance(value, int | float):
            text = edits.raw(path)
            edits.replace(path, text, f'"{text}"')
            yield f"{path[-1]} is quoted" if isinstance(path[-1], str) else "an entry is quoted"


def _equation_names(edits: Edits) -> Iterator[str]:
    """A list of equations with ids is a mapping by name."""
    equations = edits.document.data.get("equations")
    if not isinstance(equations, list) or not equations:
        return
    names = [item.get("id") if isinstance(item, dict) else None for item in equations]
    if all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names):
        edits.unlist(("equations",), "id")
        yield "the list of equations is now a mapping by id"


def _named_obligations(edits: Edits) -> Iterator[str]:
    """Obligations get an id from what they claim, and the type that they are taken for."""
    obligations = list(_items(edits, "proof_obligations"))
    taken = {item["id"] for _, item in obligations if isinstance(item.get("id"), str)}
    times: Counter[str] = Counter()
    names: dict[str, str] = {}
    for path, item in obligations:
        claim = item.get("property")
        name = item.get("id")
        if name is None and isinstance(claim, str) and (slug := _slug(claim)):
            name = slug
            while name in taken:
                times[slug] += 1
                name = f"{slug}-{times[slug] + 1}"
            taken.add(name)
            if "id" in item:
                edits.replace((*path, "id"), name, written(name))
            else:
                edits.add(path, "id", name)
            yield "obligation without id has one"
        if "type" not in item:
            edits.add(path, "type", DEFAULT_TYPE)
            yield "obligation without type is an invariant, as it was read"
        if isinstance(claim, str) and isinstance(name, str):
            names[claim.strip()] = "" if claim.strip() in names else name
    for path, item in _items(edits, "kani_harnesses"):
        claim = item.get("obligation")
        if isinstance(claim, str) and claim not in taken and (name := names.get(claim.strip())):
            edits.replace((*path, "obligation"), name, written(name))
            yield "kani harness names its obligation by id"


def _defect_class(edits: Edits, path: KeyPath, entry: Any) -> Iterator[str]:
    """``slug: story`` is a class with its story."""
    if isinstance(entry, dict) and len(entry) == 1:
        ((name, story),) = entry.items()
        if _CLASS.match(name) and name != "class" and isinstance(story, str):
            edits.split(path, name)
            yield "slug: story is now class and story"
    elif isinstance(entry, str) and (found := _CLASS_AND_STORY.match(entry)):
        value = {"class": found[1], "story": found[2]}
        edits.replace(path, value, f"{{class: {found[1]}, story: {written(found[2])}}}")
        yield "slug: story is now class and story"


def _unknown(violation: Violation) -> Iterator[KeyPath]:
    """The unknown keys of one mapping, but for what looks like a load-bearing key that was typed wrongly."""
    known = violation.schema["properties"]
    wanted = [key for key in known if key in LOAD_BEARING and key not in violation.value]
    for key in violation.value:
        if key not in known and not key.startswith("x-") and not did_you_mean(key, wanted):
            yield (*violation.path, key)


def _ignored_key(edits: Edits, violation: Violation) -> KeyPath | None:
    """The key on the way to a refused value that the published parser does not look at, or that has no value."""
    path = violation.path
    schema: Any = contract_schema()["$defs"]["contract_published"]
    for length, step in enumerate(path, 1):
        schema = _resolved(schema)
        if isinstance(step, int):
            schema = schema.get("items", {})
            continue
        schema = schema.get("properties", {}).get(step, schema.get("additionalProperties", {}))
        if schema is not False and not schema.keys() - {"description", "deprecated"} and step not in LOAD_BEARING:
            return path[:length]
    return path if violation.value is None and isinstance(path[-1], str) and path else None


def _resolved(schema: Any) -> Any:
    while isinstance(schema, dict) and "$ref" in schema:
        schema = contract_schema()["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return schema if isinstance(schema, dict) else {}


def _items(edits: Edits, block: str) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    entries = edits.document.data.get(block)
    for index, item in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(item, dict):
            yield (block, index), item


def _slug(claim: str) -> str:
    """A claim as a short name: ``Output sums to 1`` is ``output-sums-to-1``."""
    words = re.findall(r"[a-z0-9]+", claim.lower())
    slug = ""
    for word in words:
        if slug and len(slug) + len(word) >= _SLUG_LENGTH:
            break
        slug += f"-{word}" if slug else word[:_SLUG_LENGTH]
    return slug if not slug or slug[0].isalpha() else f"claim-{slug}"


def _counted(notes: Iterable[str]) -> list[str]:
    return [note if times == 1 else f"{note} ({times} times)" for note, times in Counter(filter(None, notes)).items()]

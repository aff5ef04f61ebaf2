"""Contracts made from the schema, and random changes to them: for tests that hold two engines to each other."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

from aprender.contracts.schema import contract_schema

_TEXTS = ("", " ", "x", "30d", "a_slug", "module.name:probe", "2026-11-22", "FALSIFY-1", "all", "kernel", "café", "N/A")
_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    2,
    -1,
    1.0,
    2.5,
    1e9,
    *_TEXTS,
    [],
    {},
    [None],
    [1, "x"],
    {"x": 1},
    {"id": "a"},
)
_SAMPLES = {  # a text for each pattern of the schema
    r"\S": "some text",
    "^[1-9][0-9]{0,3}[hdw]$": "30d",
    "^[a-z][a-z0-9_]*$": "a_slug",
    "^[A-Za-z0-9][A-Za-z0-9._-]*$": "FALSIFY-1",
    r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$": "module.name:probe",
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}$": "2026-11-22",
}


def an_instance(random: Random, *, version_2: bool) -> Any:
    """A value that the schema accepts, with about half of the keys that it knows."""
    name = "contract_v2" if version_2 else "contract_published"
    return _instance(contract_schema()["$defs"][name], random, 0)


def mutate(data: Any, random: Random) -> None:
    """Change one place of ``data``: another value, a missing key, a key that stands elsewhere or nowhere."""
    container = random.choice(list(_containers(data)))
    if isinstance(container, list):
        if container and random.random() < 0.7:
            container[random.randrange(len(container))] = _a_value(random)
        else:
            container.append(_a_value(random))
        return
    keys = list(container)
    change = random.random()
    if keys and change < 0.35:
        container[random.choice(keys)] = _a_value(random)
    elif keys and change < 0.6:
        del container[random.choice(keys)]
    else:
        container[
            random.choice(("id", "kind", "unknown", "x-mine", "metadata", "expect", "type", "schema_version"))
        ] = _a_value(random)


def _a_value(random: Random) -> Any:
    return copy.copy(random.choice(_VALUES))  # the same list in two places would be changed in both


def _containers(data: Any) -> list[Any]:
    """Every non-scalar in ``data``."""
    found: list[Any] = []
    pending = [data]
    while pending:
        item = pending.pop()
        if isinstance(item, dict | list):
            found.append(item)
            pending += item.values() if isinstance(item, dict) else item
    return found


def _instance(schema: dict[str, Any], random: Random, depth: int) -> Any:
    if "$ref" in schema:
        return _instance(contract_schema()["$defs"][schema["$ref"].rpartition("/")[2]], random, depth)
    if "anyOf" in schema:
        return _instance(random.choice(schema["anyOf"]), random, depth)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else random.choice(schema["enum"])
    kind = schema.get("type", "string" if "pattern" in schema else "object" if "properties" in schema else "any")
    kind = random.choice(kind) if isinstance(kind, list) else kind
    if kind == "object":
        return _mapping(schema, random, depth)
    if kind == "array":
        count = max(schema.get("minItems", 0), 0 if depth > 4 else random.randint(0, 1))
        return [_instance(schema.get("items", {}), random, depth + 1) for _ in range(count)]
    return _scalar(kind, schema, random)


def _scalar(kind: str, schema: dict[str, Any], random: Random) -> Any:
    match kind:
        case "string":
            return _SAMPLES[schema["pattern"]] if "pattern" in schema else random.choice(_TEXTS)
        case "integer":
            return random.randint(schema.get("minimum", -5), schema.get("maximum", 5))
        case "number":
            return random.choice((schema.get("minimum", 0), 0.5 + schema.get("minimum", 0)))
        case "boolean":
            return random.random() < 0.5
        case "null":
            return None
        case _:
            return _a_value(random)


def _mapping(schema: dict[str, Any], random: Random, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = schema.get("required", ())
    chosen = [key for key in properties if key in required or random.random() < (0.2 if depth == 0 else 0.3 / depth)]
    made = {key: _instance(properties[key], random, depth + 1) for key in chosen}
    if isinstance(other := schema.get("additionalProperties"), dict) and depth < 3:
        made["other"] = _instance(other, random, depth + 1)
    return made

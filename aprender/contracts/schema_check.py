"""Checks a document against the packaged JSON Schema of its dialect; every finding has a line and a column."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from aprender.contracts.findings import Finding, did_you_mean
from aprender.contracts.reader import Document, KeyPath

_TYPE_NAMES = {
    "object": "a mapping", "array": "a list", "string": "text", "integer": "a whole number",
    "number": "a number", "boolean": "true or false",
}  # fmt: skip
_PATTERN_ADVICE = {
    r"\S": "must not be empty",
    r"^[1-9][0-9]{0,3}[hdw]$": "must be a number of hours, days or weeks, such as 30d",
    r"^[a-z][a-z0-9_]*$": "must be a slug: lower-case letters, digits and underscores",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "must be letters, digits, '.', '_' and '-'",
}


@cache
def schema(name: str) -> dict[str, Any]:
    """The packaged JSON Schema ``contract-v2`` or ``contract-published``."""
    text = resources.files("aprender.contracts").joinpath(f"schema/{name}.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def is_version_2(data: Any) -> bool:
    """Whether the document asks for the strict, executable language."""
    return isinstance(data, dict) and "schema_version" in data


def check_schema(document: Document) -> tuple[list[Finding], Document]:
    """All violations of the schema of the document's dialect, and what is left to look at beyond them.

    The second document lacks every value of the wrong type (in a list, None stands in its place): the rules can go on
    without meeting one.
    """
    name = "contract-v2" if is_version_2(document.data) else "contract-published"
    errors = list(Draft202012Validator(schema(name)).iter_errors(document.data))
    findings = [finding for error in errors for finding in _findings(document, error)]
    wrong = {tuple(error.absolute_path) for error in errors if error.validator in ("type", "oneOf")}
    sound = replace(document, data=_without(document.data, (), wrong))
    return findings, sound


def _without(value: Any, path: KeyPath, dropped: set[KeyPath]) -> Any:
    if path in dropped:
        return None
    if isinstance(value, dict):
        return {k: _without(v, (*path, k), dropped) for k, v in value.items() if (*path, k) not in dropped}
    if isinstance(value, list):
        return [_without(item, (*path, index), dropped) for index, item in enumerate(value)]
    return value


def _findings(document: Document, error: ValidationError) -> Iterator[Finding]:
    if error.validator == "oneOf" and error.context:
        for nested in _meant_branch(error.context):
            yield from _findings(document, nested)
        return
    path = tuple(error.absolute_path)
    where = _where(document, path)
    value: Any = error.instance
    schema: Any = error.schema
    required: Any = error.validator_value
    if error.validator == "additionalProperties":
        valid = schema["properties"]
        for key in (key for key in value if key not in valid):
            message = f"unknown key '{key}' in {where}.{did_you_mean(key, valid)} Valid keys: {', '.join(valid)}"
            yield document.finding((*path, key), "SCHEMA-024", message, key=True)
    elif error.validator == "required":
        missing = next(key for key in required if key not in value and f"'{key}'" in error.message)
        yield document.finding(path, "SCHEMA-101", f"{where} has no '{missing}'; it is mandatory")
    else:
        yield document.finding(path, "SCHEMA-102", f"{where} {_complaint(error)}")


def _meant_branch(errors: Sequence[ValidationError]) -> list[ValidationError]:
    """The errors of the alternative that has the value's own type; of the first one where none has."""
    branches: dict[str | int, list[ValidationError]] = {}
    for error in errors:
        branches.setdefault(error.relative_schema_path[0], []).append(error)
    fitting = (b for b in branches.values() if not any(e.validator == "type" and not e.relative_path for e in b))
    return next(fitting, next(iter(branches.values())))


def _complaint(error: ValidationError) -> str:
    value: Any = error.instance
    expected: Any = error.validator_value
    match error.validator:
        case "type":
            types = [expected] if isinstance(expected, str) else expected
            return f"must be {' or '.join(_TYPE_NAMES[t] for t in types)}, not {_name(value)}"
        case "enum":
            hint = did_you_mean(value, expected) if isinstance(value, str) else ""
            return f"is {_name(value)}; must be one of {', '.join(map(str, expected))}.{hint}"
        case "const":
            return f"is {_name(value)}; must be {expected}"
        case "minItems":
            return "must not be an empty list"
        case "pattern":
            advice = _PATTERN_ADVICE.get(expected, "must look like package.module:callable")
            return f"is {_name(value)}; {advice}"
        case _:
            return f"is not valid: {error.message}"


def _name(value: Any) -> str:
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case None:
            return "empty"
        case str():
            return repr(value if len(value) <= 40 else f"{value[:37]}...")
        case bool():
            return str(value).lower()
        case _:
            return f"the number {value}"


def _where(document: Document, path: tuple[str | int, ...]) -> str:
    """A name for the value at ``path`` that a person recognises: list items go by their id where they have one."""
    if not path:
        return "the contract"
    words, value = [], document.data
    for step in path:
        value = value[step]
        label = value.get("id") if isinstance(step, int) and isinstance(value, dict) else None
        words.append(f"[{label or step}]" if isinstance(step, int) else f".{step}")
    return "".join(words).lstrip(".")

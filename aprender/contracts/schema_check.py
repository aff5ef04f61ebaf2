"""Violations of the schema as findings: a sentence, a line and a column for each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any

from aprender.contracts.document import Document, KeyPath
from aprender.contracts.findings import MAX_FINDINGS, Finding, did_you_mean
from aprender.contracts.schema import Violation, contract_schema, violations

# The blocks that SCHEMA-019 knows: those of the published contract, and the one that tests had before they had a name.
_BLOCKS = (
    "metadata", "equations", "proof_obligations", "kernel_structure", "simd_dispatch", "enforcement",
    "falsification_tests", "kani_harnesses", "qa_gate", "verification_summary", "type_invariants", "coq_spec", "beat",
    "stories", "falsification", "parity",
)  # fmt: skip
_LONGEST_KEY = 40  # of a key that may be a misspelt block

_CONTRACT_TITLES = {"Contract of the published dialect": "Contract, version 2"}
_TYPE_NAMES = {
    "object": "a mapping", "array": "a list", "string": "text", "integer": "a whole number",
    "number": "a number", "boolean": "true or false", "null": "empty",
}  # fmt: skip
_PATTERN_ADVICE = {
    r"\S": "must not be empty",
    r"^[1-9][0-9]{0,3}[hdw]$": "must be a number of hours, days or weeks, such as 30d",
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$": "must be a date such as 2026-11-22",
    r"^[a-z][a-z0-9_]*$": "must be a slug: lower-case letters, digits and underscores",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "must be letters, digits, '.', '_' and '-'",
    r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$": "must look like package.module:callable",
}


def is_version_2(data: Any) -> bool:
    """Whether the document asks for the strict, executable language."""
    return isinstance(data, dict) and "schema_version" in data


def is_manifest(data: Any) -> bool:
    """Whether the document is a publish manifest, which no contract schema is about."""
    return isinstance(data, dict) and "metadata" not in data and "model_id" in data and "provenance" in data


def near_block(key: str) -> str | None:
    """The block that an unknown top-level ``key`` misspells by case, separators or a plural ending; else None."""
    if key in _BLOCKS or len(key) > _LONGEST_KEY:
        return None
    blocks = _block_of_form()
    block = next((blocks[form] for form in _forms(key) if form in blocks), None)
    return "falsification_tests" if block == "falsification" else block


@cache
def _block_of_form() -> dict[str, str]:
    return {form: key for key in _BLOCKS for form in _forms(key)}


def _forms(key: str) -> tuple[str, ...]:
    squashed = "".join(character for character in key.lower() if character.isascii() and character.isalnum())
    return tuple(filter(None, (squashed, squashed.removesuffix("es"), squashed.removesuffix("s"))))


def check_schema(document: Document) -> tuple[list[Finding], Document]:
    """All violations of the schema of the document's dialect, and what is left to look at beyond them.

    The second document lacks every value of the wrong type (in a list, None stands in its place): the rules can go on
    without meeting one.
    """
    if is_manifest(document.data):
        return [], document
    found = [meant for violation in violations(document.data) for meant in _meant(violation)]
    if not found:
        return [], document
    if document.incomplete:
        found = [violation for violation in found if not _may_follow(document, violation)]
    sentences = _Sentences(document)
    if not sentences.strict:  # unknown keys are warnings there, and warnings never push an error out
        found.sort(key=lambda violation: violation.keyword == "additionalProperties")
    findings = list(islice((f for violation in found for f in sentences.findings(violation)), MAX_FINDINGS + 1))
    wrong = {violation.path for violation in found if violation.keyword == "type"}
    return findings, document.sound(_without(document.data, (), wrong)) if wrong else document


def _meant(violation: Violation) -> Iterator[Violation]:
    """Of alternatives, what the one that has the value's own type says; else the first one."""
    if not violation.branches:
        yield violation
        return

    def fits(branch: tuple[Violation, ...]) -> bool:
        return not any(nested.keyword == "type" and nested.path == violation.path for nested in branch)

    for nested in next(filter(fits, violation.branches), violation.branches[0]):
        yield from _meant(nested)


def _may_follow(document: Document, violation: Violation) -> bool:
    """Whether what is missing may stand behind the syntax error that ended reading."""
    if violation.keyword not in ("required", "minItems"):
        return False
    block = violation.path[:-1] if violation.keyword == "required" else violation.path
    return block in ((), (document.open_block,))


def _without(value: Any, path: KeyPath, dropped: set[KeyPath]) -> Any:
    if path in dropped:
        return None
    if isinstance(value, dict):
        return {k: _without(v, (*path, k), dropped) for k, v in value.items() if (*path, k) not in dropped}
    if isinstance(value, list):
        return [_without(item, (*path, index), dropped) for index, item in enumerate(value)]
    return value


class _Sentences:
    """Turns the violations of one document into findings."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.strict = is_version_2(document.data)

    def findings(self, violation: Violation) -> Iterator[Finding]:
        path = violation.path
        if violation.keyword == "additionalProperties":
            yield from self._unknown_keys(violation)
        elif violation.keyword == "required":
            where = _where(self.document, path[:-1])
            message = f"{where} has no '{path[-1]}'; it is mandatory"
            yield self.document.finding(path[:-1], "SCHEMA-101", message)
        else:
            message = f"{_where(self.document, path)} {_complaint(violation)}"
            yield self.document.finding(path, "SCHEMA-102", message)

    def _unknown_keys(self, violation: Violation) -> Iterator[Finding]:
        known, where = violation.schema["properties"], _where(self.document, violation.path)
        valid = [key for key, schema in known.items() if not schema.get("deprecated")]
        for key in violation.value:
            if key in known or key.startswith("x-"):
                continue
            if not violation.path and (key == "kind" or near_block(key)):
                continue  # SCHEMA-018 and SCHEMA-019 say more
            hint = self.document.hints.did_you_mean(key, valid)
            if self.strict:
                message = f"unknown key '{key}' in {where}.{hint} Valid keys: {', '.join(valid)}"
            else:
                hint = self._hint_of_version_2(key, violation.schema, valid, hint)
                message = f"unknown key '{key}' in {where}: it has no effect.{hint}"
            path = (*violation.path, key)
            yield self.document.finding(path, "SCHEMA-024", message, key=True, warning=not self.strict)

    def _hint_of_version_2(self, key: str, schema: dict[str, Any], valid: list[str], hint: str) -> str:
        """``hint``, or what version 2 has under this name, or one that is nearly this."""
        strict = _keys_of_version_2(schema.get("title", ""))
        if key in strict:
            return " Version 2 has it: write 'schema_version: 2' to make the contract executable"
        if hint:
            return hint
        new = [name for name in strict if name not in valid]  # none of the others is near
        if not (near := self.document.hints.did_you_mean(key, new)):
            return ""
        return f"{near.removesuffix('?')}, which only version 2 has?"


@cache
def _keys_of_version_2(title: str) -> tuple[str, ...]:
    """The keys of the version 2 block that the block of the old dialect with this ``title`` became."""
    twin = _CONTRACT_TITLES.get(title, title.removesuffix(" (published)"))
    blocks: dict[str, dict[str, Any]] = contract_schema()["$defs"]
    same = (block["properties"] for block in blocks.values() if block.get("title") == twin and "properties" in block)
    return tuple(next(same, ()))


def _complaint(violation: Violation) -> str:
    value, schema = violation.value, violation.schema
    match violation.keyword:
        case "type":
            types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
            return f"must be {' or '.join(_TYPE_NAMES[t] for t in types)}, not {_name(value)}"
        case "enum":
            hint = did_you_mean(value, map(str, schema["enum"])) if isinstance(value, str) else ""
            return f"is {_name(value)}; must be one of {', '.join(map(str, schema['enum']))}.{hint}"
        case "const":
            return f"is {_name(value)}; must be {schema['const']}"
        case "minItems":
            return "must not be an empty list" if schema["minItems"] == 1 else f"needs {schema['minItems']} entries"
        case "maxLength":
            return f"has {len(value)} characters; at most {schema['maxLength']} are allowed"
        case "minimum":
            return f"is {_name(value)}; must be at least {schema['minimum']}"
        case "maximum":
            return f"is {_name(value)}; must be at most {schema['maximum']}"
        case _:
            advice = _PATTERN_ADVICE.get(schema["pattern"], f"must match {schema['pattern']}")
            return f"is {_name(value)}; {advice}"


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


def _where(document: Document, path: KeyPath) -> str:
    """A name for the value at ``path`` that a person recognises: list items go by their id where they have one."""
    if not path:
        return "the contract"
    words, value = [], document.data
    for step in path:
        value = value[step]
        label = value.get("id") if isinstance(step, int) and isinstance(value, dict) else None
        words.append(f"[{label if isinstance(label, str) else step}]" if isinstance(step, int) else f".{step}")
    return "".join(words).lstrip(".")

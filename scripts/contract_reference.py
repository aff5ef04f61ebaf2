"""Writes docs/contract-reference.md from the JSON Schema and the rulebook; ``--check`` only says if it is fresh."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contract_reference_prose import EXPRESSIONS, FAMILIES, INTRODUCTION, PUBLISHED

from aprender.contracts.reader import read_text

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "aprender/contracts/schema/contract.schema.json"
RULEBOOK = ROOT / "aprender/contracts/rulebook"
REFERENCE = ROOT / "docs/contract-reference.md"
COMMAND = "python scripts/contract_reference.py"

Schema = Mapping[str, Any]
Rule = Mapping[str, Any]

TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "mapping",
    "array": "list",
    "null": "empty",
}
IN_WORDS = {
    r"\S": "non-empty text",
    r"^[a-z][a-z0-9_]*$": "slug of lower-case letters, digits and `_`",
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$": "day",
}


class Reference:
    """The schema, and how its parts are named in prose."""

    def __init__(self, schema: Schema) -> None:
        self.definitions: Mapping[str, Schema] = schema["$defs"]

    def resolved(self, schema: Schema) -> Schema:
        """The schema that a ``$ref`` or an optional value leads to, or the schema itself."""
        if "anyOf" in schema:
            schema = schema["anyOf"][0]
        return self.definitions[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema

    def blocks(self, schema: Schema) -> Iterator[Schema]:
        """The schema and all blocks inside it, in the order in which they are written; each once."""
        seen: list[Schema] = []
        pending = [schema]
        while pending:
            block = self.resolved(pending.pop(0))
            if "properties" in block and block not in seen:
                seen.append(block)
                yield block
            inner = [block[key] for key in ("items", "additionalProperties") if isinstance(block.get(key), dict)]
            pending[:0] = [*block.get("properties", {}).values(), *inner]

    def type_of(self, schema: Schema) -> str:
        """The values that are allowed, in words; blocks and closed lists are links."""
        target = self.resolved(schema)
        if "const" in target:
            return f"`{target['const']}`"
        if "enum" in target:
            return _link(target["title"]) if "title" in target else " ".join(f"`{value}`" for value in target["enum"])
        kinds = [target["type"]] if isinstance(target.get("type"), str) else target.get("type", [])
        return " or ".join(self._kind(target, kind) for kind in kinds if kind != "null") or "anything"

    def _kind(self, schema: Schema, kind: str) -> str:
        if kind == "array" and "items" in schema:
            items = self.type_of(schema["items"])
            length = "non-empty list" if schema.get("minItems") else "list"
            return f"{length} of ({items})" if " or " in items else f"{length} of {items}"
        if kind == "object" and "properties" in schema:
            return _link(schema["title"])
        if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
            return f"mapping by name of {self.type_of(schema['additionalProperties'])}"
        if kind == "string" and schema.get("title") == "Comparison":
            return "[comparison](#expressions)"
        if kind == "string":
            return IN_WORDS.get(schema.get("pattern", ""), TYPES[kind])
        if kind == "integer" and "minimum" in schema:
            return f"whole number from {schema['minimum']}"
        return TYPES[kind]


def _heading(title: str) -> str:
    """The title with what is a key in code, so that ``<name>`` is not taken for a tag."""
    key, blank, rest = title.partition(" (published)")
    return title if " " in key else f"`{key}`{blank}{rest}"


def _link(title: str) -> str:
    """A link to the heading ``title``, with the anchor that Markdown renderers make of it."""
    kept = (c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")
    return f"[{_heading(title)}](#{''.join(kept)})"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _meaning(schema: Schema) -> str:
    """The description, with what else helps to write a value."""
    examples = ", ".join(f"`{json.dumps(e) if isinstance(e, (list, dict)) else e}`" for e in schema.get("examples", ()))
    description: str = schema["description"]
    return description + (f" For example {examples}." if examples else "")


def _block_lines(reference: Reference, block: Schema) -> Iterator[str]:
    """A heading and the table of a version 2 block."""
    yield from ["", f"### {_heading(block['title'])}", ""]
    if "description" in block:
        yield from [block["description"], ""]
    yield from [_row("key", "type", "mandatory", "meaning"), "|---|---|---|---|"]
    for key, schema in block["properties"].items():
        mandatory = "yes" if key in block.get("required", ()) else ""
        yield _row(f"`{key}`", reference.type_of(schema), mandatory, _meaning(schema))


def _version_2(reference: Reference) -> Iterator[str]:
    yield "## Version 2"
    for block in reference.blocks(reference.definitions["contract_v2"]):
        yield from _block_lines(reference, block)
    yield from ["", "### Closed lists", "", "Any other value is an error, in both dialects."]
    for definition in reference.definitions.values():
        if "enum" in definition:
            values = ", ".join(f"`{value}`" for value in definition["enum"])
            yield from ["", f"#### {definition['title']}", "", f"{definition['description']} {values}"]


def _published(reference: Reference) -> Iterator[str]:
    yield PUBLISHED.rstrip("\n")
    strict = {block["title"]: block for block in reference.blocks(reference.definitions["contract_v2"])}
    strict["Contract of the published dialect"] = strict["Contract, version 2"]
    for block in reference.blocks(reference.definitions["contract_published"]):
        title = block["title"].removesuffix(" (published)")
        if lines := list(_differences(reference, block, strict[title])):
            yield from ["", f"### {_heading(block['title'])}", "", *lines]


def _differences(reference: Reference, block: Schema, strict: Schema) -> Iterator[str]:
    """What a block of the published dialect adds to its version 2 twin, and where it is laxer."""
    keys, twins = block["properties"], strict["properties"]
    empty = [key for key in twins if key in keys and _may_be_empty(reference, keys[key])]
    remarks = {
        "Not mandatory": [k for k in strict.get("required", ()) if k in keys and k not in block.get("required", ())],
        "May be empty": empty,
        "Of any type": [key for key in twins if key in keys and reference.type_of(keys[key]) == "anything"],
        "Unknown here": [key for key in twins if key not in keys],
    }
    for remark, names in remarks.items():
        if names:
            yield f"- {remark}: {', '.join(f'`{name}`' for name in names)}."
    only_here = {key: schema for key, schema in keys.items() if key not in twins}
    if only_here:
        yield from ["", _row("only here", "type", "meaning"), "|---|---|---|"]
    for key, schema in only_here.items():
        yield _row(f"`{key}`", reference.type_of(schema), _meaning(schema))


def _may_be_empty(reference: Reference, schema: Schema) -> bool:
    return "anyOf" in schema or "null" in reference.resolved(schema).get("type", ())


def rulebook(folder: Path) -> dict[str, list[Rule]]:
    """The rules by family, in the order of ``FAMILIES``; families that nobody has written down yet are left out."""
    found = {}
    for path in sorted(folder.glob("*.yaml"), key=lambda path: (*FAMILIES, path.stem).index(path.stem)):
        document, findings = read_text(path.read_text("utf-8"), str(path))
        if document is None or findings:
            raise SystemExit(f"{path}: {findings[0].message if findings else 'not readable'}")
        for entry in document.data:
            missing = [key for key in ("id", "severity", "title", "why") if key not in entry]
            if missing:
                raise SystemExit(f"{path}: rule {entry.get('id', '(without id)')} has no {', '.join(missing)}")
        found[path.stem] = document.data
    return found


def _rules(folder: Path) -> Iterator[str]:
    families = rulebook(folder)
    if not families:
        return
    yield from ["", "## Rules", "", "`pv explain RULE` shows a rule with a wrong and a right example."]
    for family, rules in families.items():
        yield from ["", f"### {FAMILIES.get(family, 'More')}: {family.upper()}"]
        for rule in rules:
            yield from [
                "",
                f"#### {rule['id']}: {rule['title']}",
                "",
                f"*{_severity(rule)}* {' '.join(rule['why'].split())}",
            ]


def _severity(rule: Rule) -> str:
    words = {"error": "Error", "warning": "Warning"}
    old = rule.get("old_dialect", rule["severity"])
    if old == rule["severity"]:
        return f"{words[old]}."
    published = "not checked" if old == "absent" else f"{old}"
    return f"{words[rule['severity']]}; in the published dialect {published}."


def reference_text() -> str:
    """The whole page."""
    reference = Reference(json.loads(SCHEMA.read_text("utf-8")))
    lines = [INTRODUCTION, *_version_2(reference), "", EXPRESSIONS, *_published(reference), *_rules(RULEBOOK)]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page, or with ``--check`` compare it: 1 where it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is out of date")
    check = parser.parse_args(arguments).check
    text = reference_text()
    if not check:
        REFERENCE.write_text(text, "utf-8")
    elif not REFERENCE.is_file() or REFERENCE.read_text("utf-8") != text:
        print(
            f"{REFERENCE.name} is out of date: the schema or the rulebook has changed. Run: {COMMAND}", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

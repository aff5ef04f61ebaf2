"""``pv explain``: what a rule says, why, and a wrong and a right example."""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import Any

from aprender.cli.console import say
from aprender.contracts.findings import did_you_mean
from aprender.contracts.plugins import declared_rules, undeclared
from aprender.contracts.rulebook import EXCERPT, ONE_FILE, Rule, rulebook
from aprender.contracts.validate import NothingToDo

WIDTH = 80


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("rule", nargs="?", metavar="RULE", help="a rule's id, such as SCHEMA-001")
    parser.add_argument("--list", action="store_true", help="one line per rule")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print one rule, or all of them. Raises NothingToDo for a rule that isn't there."""
    rules = rulebook()
    if arguments.list:
        if arguments.rule:
            raise NothingToDo("--list lists every rule: give a rule or --list, not both")
        as_json = {"rules": [_plain(rule) for rule in rules.values()], "plugin_rules": _plugin_rules(), "exit_code": 0}
        say(json.dumps(as_json, indent=2) if arguments.json else _list(rules))
        return 0
    if not arguments.rule:
        raise NothingToDo("name a rule, such as SCHEMA-001; pv explain --list lists them")
    name = arguments.rule.upper()
    if rule := rules.get(name):
        say(json.dumps(_plain(rule) | {"exit_code": 0}, indent=2) if arguments.json else rule_text(rule))
    elif theirs := next((entry for entry in _plugin_rules() if entry["id"] == name), None):
        text = f"{name}: {theirs['title']}\n\nA rule of the plug-in '{theirs['plugin']}', which can say more about it."
        say(json.dumps(theirs | {"exit_code": 0}, indent=2) if arguments.json else text)
    else:
        raise NothingToDo(_no_such_rule(arguments.rule, rules))
    return 0


def _no_such_rule(name: str, rules: dict[str, Rule]) -> str:
    hint = did_you_mean(name.upper(), [*rules, *declared_rules()])
    silent = ", ".join(f"'{plugin}'" for plugin in undeclared())
    note = f"; the plug-ins {silent} do not declare theirs (docs/plugins.md)" if silent else ""
    return f"no rule '{name}'.{hint} pv explain --list lists them{note}"


def _plugin_rules() -> list[dict[str, str]]:
    """What installed plug-ins declare, as plain data."""
    return [{"id": id_, "plugin": name, "title": text} for id_, (name, text) in sorted(declared_rules().items())]


def rule_text(rule: Rule) -> str:
    """The page of one rule."""
    why = textwrap.fill(rule.why, WIDTH, break_long_words=False, break_on_hyphens=False)
    parts = [f"{rule.id}: {rule.title}", f"Severity: {severity_text(rule)}", why]
    for heading, example in (("Wrong:", rule.wrong), ("Right:", rule.right)):
        parts.append("\n".join([heading, *(_file(name, text) for name, text in example.items())]))
    return "\n\n".join(parts)


def severity_text(rule: Rule) -> str:
    """The severity, and what it is in the old dialect where it differs."""
    if rule.old_dialect == rule.severity:
        return rule.severity
    if rule.old_dialect == "absent":
        return f"{rule.severity}; not looked for without schema_version: 2"
    return f"{rule.severity}; {rule.old_dialect} without schema_version: 2"


def _file(name: str, text: str) -> str:
    body = textwrap.indent(text.rstrip("\n"), "    ")
    return body if name in (ONE_FILE, EXCERPT) else f"  {name}\n{body}"


def _list(rules: dict[str, Rule]) -> str:
    lines = [(rule.id, rule.severity, rule.title) for rule in rules.values()]
    lines += [(entry["id"], "plug-in", entry["title"]) for entry in _plugin_rules()]
    width = max(len(id_) for id_, _, _ in lines)
    return "\n".join(f"{id_:{width}}  {severity:7}  {title}" for id_, severity, title in lines)


def _plain(rule: Rule) -> dict[str, Any]:
    """All fields as plain data."""
    return rule._asdict() | {"example": EXCERPT if rule.is_excerpt else "files"}

"""``pv explain``: what a rule says, why, and a wrong and a right example."""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import Any

from aprender.cli.console import say
from aprender.contracts.findings import did_you_mean
from aprender.contracts.plugins import plugin_rules, undeclared
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
        others = plugin_rules()
        plain = [*map(_plain, rules.values()), *(_of_plugin(name, others) for name in others if name not in rules)]
        as_json = {"rules": plain, "exit_code": 0}
        say(json.dumps(as_json, indent=2) if arguments.json else _list(rules, others))
        return 0
    if not arguments.rule:
        raise NothingToDo("name a rule, such as SCHEMA-001; pv explain --list lists them")
    name = arguments.rule.upper()
    rule = rules.get(name)
    if rule is None:
        return _explain_plugin(name, arguments)
    say(json.dumps(_plain(rule) | {"exit_code": 0}, indent=2) if arguments.json else rule_text(rule))
    return 0


def _explain_plugin(name: str, arguments: argparse.Namespace) -> int:
    """Print what a plug-in declares of its rule. Raises NothingToDo for a rule that nobody declares."""
    others = plugin_rules()
    if name in others:
        title, plugin = others[name]
        text = f"{name}: {title}\n\nA rule of the plug-in '{plugin}'."
        say(json.dumps(_of_plugin(name, others) | {"exit_code": 0}, indent=2) if arguments.json else text)
        return 0
    hint = did_you_mean(name, [*rulebook(), *others])
    message = f"no rule '{arguments.rule}'.{hint} pv explain --list lists them"
    if silent := undeclared():
        message += f"; of these plug-ins nothing says which rules they have: {', '.join(silent)}"
    raise NothingToDo(message)


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


def _list(rules: dict[str, Rule], others: dict[str, tuple[str, str]]) -> str:
    lines = [(rule.id, rule.severity, rule.title) for rule in rules.values()]
    lines += [(name, "plug-in", title) for name, (title, _) in others.items() if name not in rules]
    width = max(len(name) for name, *_ in lines)
    return "\n".join(f"{name:{width}}  {severity:7}  {title}" for name, severity, title in lines)


def _of_plugin(name: str, others: dict[str, tuple[str, str]]) -> dict[str, Any]:
    title, plugin = others[name]
    return {"id": name, "title": title, "plugin": plugin}


def _plain(rule: Rule) -> dict[str, Any]:
    """All fields as plain data."""
    return rule._asdict() | {"example": EXCERPT if rule.is_excerpt else "files"}

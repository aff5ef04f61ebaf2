"""The rulebook: what every rule says, why, and an example of each side (``rulebook/*.yaml``, one file per family).

The entries are data that ``pv explain``, the reference and SARIF print and that tests validate. An entry that can't be
used is a fault of ours, not of a contract, so it raises AssertionError.
"""

from __future__ import annotations

import os
import re
from functools import cache
from typing import Any, NamedTuple

from aprender.contracts.reader import read_text

FOLDER = os.path.join(os.path.dirname(__file__), "rulebook")
ONE_FILE = "example-v1.yaml"  # what an example that is one text is called
EXCERPT = "excerpt"  # what an example that no validator can judge is called

_ID = re.compile(r"([A-Z]+(?:-[A-Z]+)?)-[0-9]{3}\Z")
_MANDATORY = ("id", "severity", "title", "why", "wrong", "right")
_OPTIONAL = ("old_dialect", "example")
_SEVERITIES = ("error", "warning")


class Rule(NamedTuple):
    """One rule; ``wrong`` and ``right`` map file names to texts, ``old_dialect`` is the severity there or "absent"."""

    id: str
    severity: str
    old_dialect: str
    title: str
    why: str
    wrong: dict[str, str]
    right: dict[str, str]

    @property
    def family(self) -> str:
        """What stands before the number."""
        return self.id.rpartition("-")[0]

    @property
    def is_excerpt(self) -> bool:
        """Whether the examples only illustrate: no contract file alone can show this rule."""
        return EXCERPT in self.wrong


@cache
def rulebook() -> dict[str, Rule]:
    """Every rule by its id, in the order of the ids."""
    rules: list[Rule] = []
    for name in sorted(os.listdir(FOLDER)):
        if name.endswith(".yaml"):
            with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
                rules += rules_of(file.read(), name)
    return {rule.id: rule for rule in sorted(rules)}


def rules_of(text: str, file: str) -> list[Rule]:
    """The rules of one family. Raises AssertionError for an entry that can't be used."""
    document, findings = read_text(text, file)
    if document is None or findings:
        raise AssertionError(f"{file}: {findings[0].message}")
    if not isinstance(document.data, list):
        raise AssertionError(f"{file}: must be a list of rules")
    rules = [_rule(entry, f"{file}, entry {index + 1}", file) for index, entry in enumerate(document.data)]
    seen: set[str] = set()
    for rule in rules:
        _require(rule.id not in seen, file, f"{rule.id} stands twice")
        seen.add(rule.id)
    return rules


def _rule(entry: Any, where: str, file: str) -> Rule:
    _require(isinstance(entry, dict), where, "must be a mapping")
    missing = [key for key in _MANDATORY if key not in entry]
    _require(not missing, where, f"has no {', '.join(missing)}")
    unknown = [key for key in entry if key not in (*_MANDATORY, *_OPTIONAL)]
    _require(not unknown, where, f"unknown key {', '.join(unknown)}")
    for key in ("id", "severity", "title", "why"):
        _require(isinstance(entry[key], str) and entry[key].strip() != "", where, f"{key} must be text")
    match = _ID.match(entry["id"])
    fits = match is not None and f"{match.group(1).lower()}.yaml" == file
    _require(fits, where, f"id {entry['id']} is no rule of this file's family")
    _require(entry["severity"] in _SEVERITIES, where, f"severity must be one of {', '.join(_SEVERITIES)}")
    old_dialect = entry.get("old_dialect", entry["severity"])
    _require(old_dialect in (*_SEVERITIES, "absent"), where, "old_dialect must be error, warning or absent")
    _require(
        "\n" not in entry["title"].strip() and not entry["title"].endswith("."), where, "title is one line, no stop"
    )
    _require(entry.get("example", EXCERPT) == EXCERPT, where, f"example, if given, is {EXCERPT}")
    name = EXCERPT if "example" in entry else ONE_FILE
    wrong, right = (_example(entry[key], name, f"{where}, {key}") for key in ("wrong", "right"))
    title, why = entry["title"].strip(), " ".join(entry["why"].split())
    return Rule(entry["id"], entry["severity"], old_dialect, title, why, wrong, right)


def _example(value: Any, name: str, where: str) -> dict[str, str]:
    files = value if isinstance(value, dict) and name != EXCERPT else {name: value}
    texts = bool(files) and all(isinstance(text, str) for text in files.values())
    _require(texts, where, "must be text, or a mapping from file name to text")
    return files


def _require(holds: bool, where: str, message: str) -> None:
    if not holds:
        raise AssertionError(f"{where}: {message}")

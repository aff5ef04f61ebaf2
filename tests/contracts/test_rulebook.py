"""The rulebook: every example does what it says, every rule of the code has an entry, and no entry is left over."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from aprender.contracts.findings import Finding
from aprender.contracts.rulebook import Rule, rulebook, rules_of
from aprender.contracts.validate import validate

PACKAGE = Path(__file__).parents[2] / "aprender"
FAMILIES = (
    "YAML", "SCHEMA", "PROVABILITY", "BEAT", "KAIZEN", "CRUX", "PARITY", "PM-SHAPE", "REF", "SUMMARY", "EXPR", "TEETH", "CODE",
    "VACUITY", "STATUS", "BIND", "PLUGIN",
)  # fmt: skip
ID = re.compile(rf"(?<![A-Z0-9-])(?:{'|'.join(FAMILIES)})-[0-9]{{3}}(?![0-9])")

# What no text of a contract can show: bytes that are not UTF-8, and what depends on code, evidence or installed packages.
EXCERPTS = {
    "YAML-002", "STATUS-001", "BIND-001", "BIND-002", "BIND-003", "BIND-004", "BIND-005", "BIND-006", "PLUGIN-001",
}  # fmt: skip

ENTRY = """\
- id: YAML-001
  severity: error
  title: a title
  why: a reason
  wrong: |
    a: 1
  right: |
    a: 2
"""


def ids_in_the_code() -> set[str]:
    """Every rule id that stands in a string of the package."""
    found: set[str] = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(ID.findall(node.value))
    return found


def shown() -> list[Rule]:
    return [rule for rule in rulebook().values() if not rule.is_excerpt]


def findings_of(files: Mapping[str, str], folder: Path) -> tuple[Finding, ...]:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return tuple(validate([folder]).findings)


@pytest.mark.parametrize("rule", shown(), ids=lambda rule: rule.id)
def test_the_wrong_example_breaks_the_rule(rule: Rule, tmp_path: Path) -> None:
    """With the severity that the entry states for the dialect of the example."""
    found = {finding.severity for finding in findings_of(rule.wrong, tmp_path) if finding.rule == rule.id}
    assert found
    assert found <= {rule.severity, rule.old_dialect}


@pytest.mark.parametrize("rule", shown(), ids=lambda rule: rule.id)
def test_the_right_example_breaks_no_rule(rule: Rule, tmp_path: Path) -> None:
    """Neither this rule nor any other, not even as a warning: it is what people copy."""
    assert findings_of(rule.right, tmp_path) == ()


@pytest.mark.parametrize("rule", sorted(ids_in_the_code()))
def test_every_rule_of_the_code_is_explained(rule: str) -> None:
    """What pv reports, pv explain explains."""
    assert rule in rulebook()


@pytest.mark.parametrize("rule", rulebook())
def test_every_entry_is_a_rule_of_the_code(rule: str) -> None:
    """No entry for a rule that nothing reports."""
    assert rule in ids_in_the_code()


def test_only_what_no_contract_can_show_is_an_excerpt() -> None:
    """An excerpt is an example that nothing checks; each is listed here."""
    assert {rule.id for rule in rulebook().values() if rule.is_excerpt} <= EXCERPTS


def test_a_rule_has_all_its_parts() -> None:
    """One text becomes one file; the old dialect has the same severity unless the entry says otherwise."""
    assert rules_of(ENTRY, "yaml.yaml") == [
        Rule(
            "YAML-001",
            "error",
            "error",
            "a title",
            "a reason",
            {"example-v1.yaml": "a: 1\n"},
            {"example-v1.yaml": "a: 2\n"},
        )
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  severity: error\n", "", "yaml.yaml, entry 1: has no severity"),
        ("severity: error", "severity: fatal", "yaml.yaml, entry 1: severity must be one of error, warning"),
        ("severity: error", "severity: error\n  old_dialect: no", "yaml.yaml, entry 1: old_dialect must be error, warning or absent"),
        ("severity: error", "severity: error\n  example: none", "yaml.yaml, entry 1: example, if given, is excerpt"),
        ("severity: error", "severity: error\n  hint: h", "yaml.yaml, entry 1: unknown key hint"),
        ("YAML-001", "BIND-001", "yaml.yaml, entry 1: id BIND-001 is no rule of this file's family"),
        ("YAML-001", "YAML-1", "yaml.yaml, entry 1: id YAML-1 is no rule of this file's family"),
        ("a title", "a title.", "yaml.yaml, entry 1: title is one line, no stop"),
        ("a reason", '" "', "yaml.yaml, entry 1: why must be text"),
        ("wrong: |\n    a: 1", "wrong: {}", "yaml.yaml, entry 1, wrong: must be text, or a mapping from file name to text"),
        ("wrong: |\n    a: 1", "wrong: {a.yaml: 1}", "yaml.yaml, entry 1, wrong: must be text, or a mapping from file name to text"),
        ("- id: YAML-001\n", "- YAML-001\n- id: YAML-001\n", "yaml.yaml, entry 1: must be a mapping"),
        (ENTRY, ENTRY + ENTRY, "yaml.yaml: YAML-001 stands twice"),
        (ENTRY, "id: YAML-001", "yaml.yaml: must be a list of rules"),
        (ENTRY, "[", "yaml.yaml: not valid YAML: "),
    ],
)  # fmt: skip
def test_a_malformed_entry_is_a_fault_of_ours(old: str, new: str, message: str) -> None:
    """It is never passed over: what is explained wrongly is worse than a crash in our own tests."""
    assert old in ENTRY
    with pytest.raises(AssertionError, match=f"^{re.escape(message)}"):
        rules_of(ENTRY.replace(old, new), "yaml.yaml")

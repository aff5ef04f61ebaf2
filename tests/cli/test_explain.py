"""``pv explain`` as text, as JSON, and for rules that aren't there."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest

from aprender.cli import explain
from aprender.contracts.rulebook import rulebook
from aprender.contracts.validate import NothingToDo

YAML_006 = """\
YAML-006: a merge key (<<) is used

Severity: warning

A merge key copies keys from another place, so what a falsifier says no longer
stands where the reader looks for it, and a change in one place silently changes
others. It is read as YAML 1.1 defines it and works. Write the keys out.

Wrong:
    metadata: {version: "1.0.0", description: d, references: [a source], kind: pattern}
    common: &common
      rule: readings are right
      if_fails: look at the calibration table
    falsification_tests:
      - <<: *common
        id: FALSIFY-T-001
        prediction: the reading differs from the room by less than a tenth of a degree

Right:
    metadata: {version: "1.0.0", description: d, references: [a source], kind: pattern}
    falsification_tests:
      - id: FALSIFY-T-001
        rule: readings are right
        if_fails: look at the calibration table
        prediction: the reading differs from the room by less than a tenth of a degree
"""


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    explain.configure(parser)
    return explain.run(parser.parse_args(words))


def test_a_rule_has_one_page(capsys: pytest.CaptureFixture[str]) -> None:
    """Id, title, severity, reason and both examples; the id in any case."""
    for word in ("YAML-006", "yaml-006"):
        assert run(word) == 0
        assert capsys.readouterr().out == YAML_006


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("YAML-001", "Severity: error"),
        ("STATUS-001", "Severity: error; warning without schema_version: 2"),
        ("BIND-001", "Severity: error; not looked for without schema_version: 2"),
    ],
)
def test_the_severity_says_what_it_is_in_the_old_dialect(
    rule: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only where that differs."""
    run(rule)
    assert capsys.readouterr().out.splitlines()[2] == line


def test_the_list_has_one_line_per_rule(capsys: pytest.CaptureFixture[str]) -> None:
    """Id, severity, title."""
    assert run("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(rulebook())
    width = max(map(len, rulebook()))
    assert f"{'YAML-006':{width}}  warning  a merge key (<<) is used" in lines


def test_json_has_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    """One object for one rule, and one with all rules for the list."""
    run("plugin-001", "--json")
    one: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert set(one) == {"id", "severity", "old_dialect", "title", "why", "wrong", "right", "example", "exit_code"}
    assert (one["id"], one["example"], one["exit_code"]) == ("PLUGIN-001", "excerpt", 0)
    run("--list", "--json")
    every = json.loads(capsys.readouterr().out)
    assert [rule["id"] for rule in every["rules"]] == list(rulebook())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["YAML-01"], "no rule 'YAML-01'. Did you mean 'YAML-001'? pv explain --list lists them"),
        (["what"], "no rule 'what'. pv explain --list lists them"),
        ([], "name a rule, such as SCHEMA-001; pv explain --list lists them"),
        (["YAML-001", "--list"], "--list lists every rule: give a rule or --list, not both"),
    ],
)
def test_what_is_not_there_is_one_sentence(words: list[str], message: str) -> None:
    """NothingToDo: exit code 2."""
    with pytest.raises(NothingToDo) as caught:
        run(*words)
    assert str(caught.value) == message

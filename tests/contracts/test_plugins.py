"""Rules by others: whatever they do, the run goes on, says so, and its report stays what it is."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aprender.cli import explain
from aprender.contracts import plugins
from aprender.contracts.check import check_content
from aprender.contracts.document import Document
from aprender.contracts.findings import Finding
from aprender.contracts.selection import check_selectors
from aprender.contracts.validate import NothingToDo
from aprender.errors import AprenderError

FINE = Finding("contract.yaml", 1, 1, "OWN-001", "warning", "no such owner")


def install(monkeypatch: pytest.MonkeyPatch, *rules: Any) -> None:
    monkeypatch.setattr(plugins, "plugins", lambda: tuple(("owners", rule) for rule in rules))


def said(rule: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    install(monkeypatch, rule)
    found = check_content(b"schema_version: 2\n", "contract.yaml").findings
    return [f"{f.rule} {f.severity}: {f.message}" for f in found if f.rule in ("PLUGIN-001", "OWN-001")]


def giving(*items: Any) -> Callable[[Document], Iterator[Any]]:
    def rule(_: Document) -> Iterator[Any]:
        yield from items

    return rule


def declaring(declared: Any) -> Any:
    rule: Any = giving(FINE)
    rule.rules = declared
    return rule


def test_a_sound_finding_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Declared or not."""
    for rule in (giving(FINE), declaring({"OWN-001": "owners are known"})):
        assert said(rule, monkeypatch) == ["OWN-001 warning: no such owner"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"severity": "fatal"}, "gave a finding with severity 'fatal'; it is 'error' or 'warning'"),
        ({"severity": ["error"]}, "gave a finding with severity ['error']; it is 'error' or 'warning'"),
        ({"line": 0}, "gave a finding with line 0; it counts from 1"),
        ({"line": "3"}, "gave a finding with line '3'; it counts from 1"),
        ({"column": True}, "gave a finding with column True; it counts from 1"),
        ({"source": None}, "gave a finding with source None; leave it out"),
        ({"message": 3}, "gave a finding with message 3; it is text"),
        ({"rule": "own 1"}, "gave a finding with rule 'own 1'; an id is written like OWNER-001"),
        ({"file": "b.yaml"}, "gave a finding with file 'b.yaml', which is not the file that it was given"),
    ],
)
def test_a_finding_that_is_not_sound_is_a_finding_about_the_plugin(
    fields: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports, SARIF among them, would be wrong or end in an internal error; the plug-in's other findings fall, too."""
    message = f"rule plug-in 'owners' failed: TypeError: {expected}; mend or uninstall it"
    assert said(giving(FINE, FINE._replace(**fields)), monkeypatch) == [f"PLUGIN-001 error: {message}"]


@pytest.mark.parametrize("error", [SystemExit(0), ValueError("no"), GeneratorExit("x"), pytest.fail.Exception("bad")])
def test_a_rule_that_gives_up_is_told(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """sys.exit(0) in a rule must not make the run succeed without a word."""

    def rule(_: Document) -> list[Finding]:
        raise error

    message = f"rule plug-in 'owners' failed: {type(error).__name__}: {error}; mend or uninstall it"
    assert said(rule, monkeypatch) == [f"PLUGIN-001 error: {message}"]


def test_an_interrupt_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the run, also inside of a plug-in."""

    def rule(_: Document) -> list[Finding]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        said(rule, monkeypatch)


def test_what_a_rule_prints_is_no_part_of_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It goes to stderr, also from a generator."""

    def rule(_: Document) -> Iterator[Finding]:
        sys.stdout.write("looking\n")
        yield FINE

    assert said(rule, monkeypatch) == ["OWN-001 warning: no such owner"]
    assert capsys.readouterr() == ("", "looking\n")


def test_a_declaration_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a selector of the rule that was found would be refused."""
    (line,) = said(declaring({"OWN-002": "another"}), monkeypatch)
    assert "gave a finding with rule 'OWN-001', which its attribute 'rules' does not declare" in line


@pytest.mark.parametrize("declared", [["OWN-001"], {"OWN": "x"}, {"OWN-001": ""}, {"own-001": "x"}, {1: "x"}, None])
def test_a_declaration_that_is_none_is_told(declared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the plug-in is loaded, as the reason why it can't be used."""

    class EntryPoint:
        name = "owners"

        def load(self) -> Any:
            return declaring(declared)

    monkeypatch.setattr(plugins, "_declares_rules", lambda folder: True)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [EntryPoint()])
    ((name, reason),) = plugins.plugins.__wrapped__()
    assert (name, type(reason)) == ("owners", TypeError)
    assert "its attribute 'rules' must give a title for each id" in str(reason)


def test_a_typing_error_in_a_selector_is_refused_with_plugins_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A declared plug-in leaves no room; an undeclared one leaves it where no known family is near."""
    install(monkeypatch, declaring({"OWN-001": "owners are known"}))
    check_selectors(["OWN-001", "OWN", "OWN-0"], str)
    for wrong in ("SCHMEA-001", "OWN-002", "ELSE-001"):
        with pytest.raises(AprenderError, match=f"no rule or family '{wrong}'"):
            check_selectors([wrong], str)
    install(monkeypatch, giving())
    check_selectors(["OWN-001"], str)
    with pytest.raises(AprenderError, match="no rule or family 'SCHMEA-001'"):
        check_selectors(["SCHMEA-001"], str)


def explained(*words: str) -> int:
    parser = argparse.ArgumentParser()
    explain.configure(parser)
    return explain.run(parser.parse_args(words))


def test_a_declared_rule_is_explained(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As text, as JSON and in the list."""
    install(monkeypatch, declaring({"OWN-001": "owners are known"}))
    assert explained("own-001") == 0
    assert capsys.readouterr().out == "OWN-001: owners are known\n\nA rule of the plug-in 'owners'.\n"
    explained("OWN-001", "--json")
    expected = {"id": "OWN-001", "title": "owners are known", "plugin": "owners", "exit_code": 0}
    assert json.loads(capsys.readouterr().out) == expected
    explained("--list")
    assert capsys.readouterr().out.splitlines()[-1].split(maxsplit=2) == ["OWN-001", "plug-in", "owners are known"]


def test_a_rule_that_nobody_declares_may_be_a_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says whose."""
    install(monkeypatch, giving())
    with pytest.raises(NothingToDo, match="nothing says which rules they have: owners"):
        explained("OWN-001")

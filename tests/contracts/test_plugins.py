"""Rule plug-ins: what they may give, and that none of them can end or pollute a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import pytest

from aprender.cli.pv import main
from aprender.contracts import plugins
from aprender.contracts.document import Document
from aprender.contracts.findings import Finding
from aprender.contracts.plugins import declares, plugin_findings
from aprender.contracts.selection import check_selectors
from aprender.errors import AprenderError

GOOD = Finding("x.yaml", 1, 1, "OWNER-001", "warning", "no such owner")


@declares({"OWNER-001": "metadata.author must be one of the owners"})
def owner(document: Document) -> Iterable[Finding]:
    """Finds one thing, and prints."""
    sys.stdout.write("noise\n")
    yield document.finding((), "OWNER-001", "no such owner", warning=True)


def changed(**fields: Any) -> Finding:
    """A finding whose fields may have any type."""
    return Finding(**(GOOD._asdict() | fields))


def install(monkeypatch: pytest.MonkeyPatch, rule: Any) -> None:
    monkeypatch.setattr(plugins, "plugins", lambda: (("owners", rule),))


def pv(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(words)
    out, err = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, out, err


def found(monkeypatch: pytest.MonkeyPatch, rule: Any) -> list[Finding]:
    install(monkeypatch, rule)
    return plugin_findings(Document("x.yaml", ""))


def test_a_usable_finding_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is."""
    assert found(monkeypatch, lambda document: [GOOD]) == [GOOD]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("text", "which is no Finding"),
        (changed(file="other.yaml"), "whose file is not the document's"),
        (changed(line=0), "whose line or column is no number from 1 on"),
        (changed(line="3"), "whose line or column is no number from 1 on"),
        (changed(column=True), "whose line or column is no number from 1 on"),
        (changed(rule="owner"), "whose rule is no id such as OWNER-001"),
        (changed(severity="fatal"), "whose severity is neither error nor warning"),
        (changed(severity=["error"]), "whose severity is neither error nor warning"),
        (changed(message=3), "whose message or source is no text"),
        (changed(source=None), "whose message or source is no text"),
    ],
)  # fmt: skip
def test_what_no_report_can_show_is_a_failure(monkeypatch: pytest.MonkeyPatch, given: Any, why: str) -> None:
    """Every field is looked at, since the reports don't look again."""
    (finding,) = found(monkeypatch, lambda document: [given])
    assert (finding.rule, finding.severity) == ("PLUGIN-001", "error")
    assert finding.message.endswith(f"{why}; mend or uninstall it")


def test_a_rule_that_a_plugin_does_not_declare_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a selector that leaves it out could not be checked."""
    (finding,) = found(monkeypatch, declares({"OWNER-002": "x"})(lambda document: [GOOD]))
    assert "whose rule it does not declare" in finding.message


@pytest.mark.parametrize("command", [("validate",), ("migrate", "--check")])
def test_a_rule_that_exits_does_not_end_the_run_as_if_all_were_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any, command: tuple[str, ...]
) -> None:
    """sys.exit(0) in another's code is a failure of that code."""
    install(monkeypatch, lambda document: sys.exit(0))
    contract = tmp_path / "a.yaml"
    contract.write_text(
        'schema_version: 2\nmetadata: {version: "1.0.0", description: d, references: [r], kind: pattern}\n'
    )
    status, out, err = pv(capsys, *command, str(contract))
    assert status == 1
    assert "PLUGIN-001 rule plug-in 'owners' failed: SystemExit: 0" in out + err


def test_what_a_plugin_prints_stays_out_of_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    """Standard output is one JSON object."""
    install(monkeypatch, owner)
    contract = tmp_path / "a.yaml"
    contract.write_text("{}\n")
    _, out, err = pv(capsys, "validate", "--json", str(contract))
    assert "OWNER-001" in {finding["rule"] for finding in json.loads(out)["findings"]}
    assert "noise" in err


def test_a_typing_error_in_a_selector_is_one_with_plugins_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not the plug-in declares its rules; declared ones are known exactly."""
    install(monkeypatch, owner)
    check_selectors(["OWNER-001", "OWNER", "OWNER-0"], str)
    rules: list[Any] = [owner, lambda document: []]
    for rule in rules:
        install(monkeypatch, rule)
        with pytest.raises(AprenderError, match="Did you mean 'SCHEMA-001'"):
            check_selectors(["SCHMEA-001"], str)
    install(monkeypatch, owner)
    with pytest.raises(AprenderError, match="no rule or family 'OWNER-002'"):
        check_selectors(["OWNER-002"], str)


def test_a_declared_rule_is_explained_and_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its own words; a plug-in that declares nothing is named where the rule isn't found."""
    install(monkeypatch, owner)
    status, out, _ = pv(capsys, "explain", "owner-001")
    assert status == 0
    assert out.startswith("OWNER-001: metadata.author must be one of the owners\n")
    listed = pv(capsys, "explain", "--list")[1].splitlines()[-1]
    assert listed.split(maxsplit=2) == ["OWNER-001", "plug-in", "metadata.author must be one of the owners"]
    install(monkeypatch, lambda document: [])
    status, _, err = pv(capsys, "explain", "OWNER-001")
    assert status == 2
    assert "the plug-ins 'owners' do not declare theirs" in err

"""Rules chosen by id, by family, or by what an id begins with."""

from __future__ import annotations

import pytest

from aprender.contracts import plugins
from aprender.contracts.findings import Finding
from aprender.contracts.rulebook import rulebook
from aprender.contracts.selection import check_selectors, rule_ids, selected
from aprender.errors import AprenderError

RULES = ("PM-SHAPE-001", "REF-001", "SCHEMA-001", "SCHEMA-013", "SCHEMA-102", "YAML-001", "YAML-006")


def kept(select: tuple[str, ...] = (), ignore: tuple[str, ...] = ()) -> tuple[str, ...]:
    findings = [Finding("a.yaml", 1, 1, rule, "error", "message") for rule in RULES]
    return tuple(finding.rule for finding in selected(findings, select, ignore))


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ((), RULES),
        (("SCHEMA-013",), ("SCHEMA-013", "YAML-001")),
        (("SCHEMA-0",), ("SCHEMA-001", "SCHEMA-013", "YAML-001")),
        (("SCHEMA",), ("SCHEMA-001", "SCHEMA-013", "SCHEMA-102", "YAML-001")),
        (("SCHEMA-",), ("SCHEMA-001", "SCHEMA-013", "SCHEMA-102", "YAML-001")),
        (("REF", "PM-SHAPE"), ("PM-SHAPE-001", "REF-001", "YAML-001")),
        (("SCH",), ("YAML-001",)),
        (("PM",), ("YAML-001",)),
    ],
)
def test_selecting(select: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """A file that can't be read is always told: the selected rules did not see it."""
    assert kept(select) == expected


def test_ignoring_beats_selecting() -> None:
    """And may hide anything, since it names it."""
    assert kept(("SCHEMA",), ("SCHEMA-0", "YAML")) == ("SCHEMA-102",)


def test_the_ids_are_those_of_the_rulebook() -> None:
    """Found without parsing it."""
    assert rule_ids() == list(rulebook())


@pytest.mark.parametrize(
    ("selector", "hint"),
    [("YAML-060", " Did you mean 'YAML-006'?"), ("YAMLS", " Did you mean 'YAML'?"), ("YAM", " Did you mean 'YAML'?"), ("???", ""), ("YAML-0061", " Did you mean 'YAML-006'?")],
)  # fmt: skip
def test_a_selector_that_selects_nothing_is_an_error(selector: str, hint: str) -> None:
    """A typing error must not switch a check off, or on."""
    with pytest.raises(AprenderError) as caught:
        check_selectors(["YAML", selector], lambda given: f"--select {given}")
    message = str(caught.value)
    assert message.startswith(f"--select {selector}: no rule or family '{selector}'.{hint} Families: ")
    assert message.endswith("; pv explain --list lists the rules")


def test_rules_of_plugins_can_be_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where plug-ins are installed; nobody knows their ids before they find something. Own families stay checked."""
    monkeypatch.setattr(plugins, "plugins", lambda: (("owners", lambda document: []),))
    check_selectors(["OWNER-001", "OWNER"], str)
    with pytest.raises(AprenderError):
        check_selectors(["YAML-060"], str)

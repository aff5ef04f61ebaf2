"""What a ship-blocking falsifier needs to go RED: each rule with its place and sentence, and a near neighbour."""

from __future__ import annotations

import pytest

from aprender.contracts.check import check_content
from tests.toy_project import CONTRACT

PROBE = "    probe: toyprobes.reading:reading\n"
EXPECT = "    expect:\n      - abs(reading - room) < 0.1\n"
GUARDS = "    guards:\n      - samples >= 2\n"
CLASSES = CONTRACT[CONTRACT.index("    counter_example_classes:") :]
BLOCKING = "    ship_blocking: true\n"
CODE = "code_under_contract: [thermometer.py]\n"


def said_of(text: str, *rules: str) -> list[str]:
    found = check_content(text.encode(), "contract.yaml").findings
    return [f"{f.line}:{f.column}: {f.rule} {f.severity}: {f.message}" for f in found if f.rule in rules]


def without(*parts: str) -> str:
    text = CONTRACT
    for part in parts:
        assert part in text
        text = text.replace(part, "", 1)
    return text


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((PROBE,), "13:5: TEETH-001 error: FALSIFY-T-001 is ship-blocking but has no probe"),
        ((GUARDS,), "13:5: TEETH-001 error: FALSIFY-T-001 is ship-blocking but has no guards"),
        ((CLASSES,), "13:5: TEETH-001 error: FALSIFY-T-001 is ship-blocking but has no counter_example_classes"),
        ((EXPECT, GUARDS), "13:5: TEETH-001 error: FALSIFY-T-001 is ship-blocking but has no expect, guards"),
        ((BLOCKING, EXPECT), "13:5: TEETH-001 error: FALSIFY-T-001 has a probe but expects nothing of it"),
    ],
)
def test_a_ship_blocking_falsifier_that_can_not_go_red(parts: tuple[str, ...], expected: str) -> None:
    """One sentence names all that is missing."""
    assert said_of(without(*parts), "TEETH-001") == [expected]


@pytest.mark.parametrize(
    "parts", [(), (BLOCKING, GUARDS), (BLOCKING, CLASSES), (BLOCKING, PROBE, EXPECT, GUARDS, CLASSES)]
)
def test_a_falsifier_that_blocks_nothing_owes_less(parts: tuple[str, ...]) -> None:
    """Prose alone is a falsifier that nothing ships on."""
    assert said_of(without(*parts), "TEETH-001") == []


def test_what_the_schema_refuses_is_not_missing_too() -> None:
    """One mistake, one finding."""
    text = CONTRACT.replace("    guards:\n      - samples >= 2\n", "    guards: samples >= 2\n")
    assert said_of(text, "TEETH-001") == []


def test_an_empty_list_is_nothing() -> None:
    """Empty lists are as good as none."""
    text = CONTRACT.replace(GUARDS, "    guards: []\n")
    assert said_of(text, "TEETH-001") == ["13:5: TEETH-001 error: FALSIFY-T-001 is ship-blocking but has no guards"]


def test_violates_names_an_expectation_to_the_letter() -> None:
    """The place is that of the entry, and the near one is offered."""
    text = CONTRACT.replace("violates: [abs(reading - room) < 0.1]", "violates: [abs(reading-room) < 0.1]")
    assert said_of(text, "TEETH-002") == [
        "27:40: TEETH-002 error: 'abs(reading-room) < 0.1' is no entry of expect. "
        "Did you mean 'abs(reading - room) < 0.1'? Copy one to the letter"
    ]
    assert said_of(CONTRACT, "TEETH-002") == []


@pytest.mark.parametrize("again", ["fahrenheit", "{class: fahrenheit}"])
def test_a_class_is_listed_once(again: str) -> None:
    """However it is written."""
    text = CONTRACT.replace("- offset_forgotten", f"- {again}")
    assert said_of(text, "TEETH-003") == [
        "27:9: TEETH-003 error: defect class 'fahrenheit' is listed twice, first at 26:9"
    ]
    assert said_of(CONTRACT, "TEETH-003") == []


def test_a_contract_with_a_probe_names_its_code() -> None:
    """Evidence binds to it; a contract that runs nothing has no evidence."""
    text = CONTRACT.replace(CODE, "")
    assert said_of(text, "CODE-001") == [
        "1:1: CODE-001 error: no code_under_contract: name the files that evidence is bound to"
    ]
    assert said_of(text.replace(PROBE, ""), "CODE-001") == []
    assert said_of(CONTRACT, "CODE-001") == []


def test_the_old_dialect_owes_none_of_it() -> None:
    """There falsifiers are not executable."""
    text = without("schema_version: 2\n", PROBE, CODE, GUARDS).replace("- offset_forgotten", "- fahrenheit")
    assert said_of(text, "TEETH-001", "TEETH-002", "TEETH-003", "CODE-001") == []

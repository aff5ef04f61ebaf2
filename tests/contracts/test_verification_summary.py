"""SUMMARY-001: each number of a summary against what the contract says of it, and the room where it is silent."""

from __future__ import annotations

import pytest

from aprender.contracts.check import check_content

HEAD = 'metadata: {version: "1.0.0", description: d, references: [r], kind: pattern}\n'
LEAN = ", lean: {theorem: T, status: %s}"


def said(
    lean: list[str | None], harnesses: list[str], summary: str, head: str = "schema_version: 2\n" + HEAD
) -> list[str]:
    """What is said of a contract whose obligations have these states in Lean, and these harnesses."""
    text = [head, "proof_obligations:\n"]
    for index, status in enumerate(lean):
        text.append(f"  - {{id: O-{index}, type: bound, property: p{index}{LEAN % status if status else ''}}}\n")
    covers = ", ".join(f"O-{index}" for index in range(len(lean)))
    text.append("falsification_tests:\n")
    text.append(f"  - {{id: F-1, rule: r, prediction: p q, if_fails: i, covers: [{covers}]}}\n")
    text.append("kani_harnesses:\n" if harnesses else "")
    text += [f"  - {{id: K-{index}, bound: 1, {harness}}}\n" for index, harness in enumerate(harnesses)]
    text.append(f"verification_summary: {{total_obligations: {len(lean)}, {summary}}}\n")
    found = check_content("".join(text).encode(), "c.yaml").findings
    return [f"{one.severity}: {one.message}" for one in found if one.rule == "SUMMARY-001"]


PROVED = "l4_lean_proved is %s; the contract has %s, counting obligations with lean.status proved"
SORRY = "l4_sorry_count is %s; the contract has %s, counting obligations with lean.status sorry"
NOT = "l4_not_applicable is %s; the contract has %s, counting obligations that are not applicable, or have lean.status not-applicable"
KANI = "l3_kani_proved is %s; the contract has %s, counting obligations of harnesses that are actually_verified"


@pytest.mark.parametrize(
    ("lean", "harnesses", "summary", "expected"),
    [
        (["proved", "sorry"], [], "l4_lean_proved: 2", [PROVED % (2, 1)]),
        (["proved", "sorry"], [], "l4_sorry_count: 0", [SORRY % (0, 1)]),
        (["proved", "not-applicable"], [], "l4_not_applicable: 0", [NOT % (0, "1")]),
        (["proved", "wip"], [], "l4_not_applicable: 1", [NOT % (1, "0")]),
        (["proved", None], [], "l4_not_applicable: 2", [NOT % (2, "at most 1") + ", or no lean"]),
        ([None], [], "l4_lean_proved: 1", [PROVED % (1, 0)]),
        ([None, None], [], "l3_kani_proved: 1", [KANI % (1, 0)]),
        ([None, None], ["obligation: O-0"], "l3_kani_proved: 2", [KANI % (2, "at most 1") + ", or do not say"]),
        ([None, None], ["obligation: O-0", "obligation: O-0"], "l3_kani_proved: 2", [KANI % (2, "at most 1") + ", or do not say"]),
        ([None, None], ["obligation: O-0, actually_verified: true", "obligation: O-1"], "l3_kani_proved: 0",
            [KANI % (0, "at least 1") + ", or do not say"]),
        ([None, None], ["obligation: O-0, actually_verified: false"], "l3_kani_proved: 1", [KANI % (1, 0)]),
        ([None], [], "l2_property_tested: 2", ["l2_property_tested is 2; the contract has at most 1, counting proof_obligations"]),
    ],
)  # fmt: skip
def test_a_number_that_the_contract_contradicts(
    lean: list[str | None], harnesses: list[str], summary: str, expected: list[str]
) -> None:
    """An error in version 2, where it says so."""
    assert said(lean, harnesses, summary) == [f"error: {sentence}" for sentence in expected]


@pytest.mark.parametrize(
    ("lean", "harnesses", "summary"),
    [
        (["proved", "sorry", "wip", "not-applicable"], [], "l4_lean_proved: 1, l4_sorry_count: 1, l4_not_applicable: 1"),
        (["proved", None], [], "l4_not_applicable: 0"),
        (["proved", None], [], "l4_not_applicable: 1"),
        ([None, None], ["obligation: O-0", "obligation: O-1"], "l3_kani_proved: 1"),
        ([None, None], ["obligation: O-0, actually_verified: true"], "l3_kani_proved: 1"),
        ([None, None], ["x-obligation: some words"], "l3_kani_proved: 1"),
        ([None, None], [], "l2_property_tested: 2"),
    ],
)  # fmt: skip
def test_a_number_that_may_be_right(lean: list[str | None], harnesses: list[str], summary: str) -> None:
    """What nothing in the contract contradicts is left alone."""
    assert said(lean, harnesses, summary) == []


def test_the_old_dialect_is_warned_where_the_file_says_something() -> None:
    """Its proofs may be in other files, of which the contract says nothing."""
    assert said([None, None], [], "l4_lean_proved: 2, l3_kani_proved: 2", HEAD) == []
    assert said(["sorry"], [], "l4_lean_proved: 1", HEAD) == [f"warning: {PROVED % (1, 0)}"]
    assert said([None, None], ["obligation: p0"], "l3_kani_proved: 2", HEAD) == [
        f"warning: {KANI % (2, 'at most 1')}, or do not say"
    ]

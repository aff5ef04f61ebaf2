"""``diff``: every kind of change, its class, its place, and what explains it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aprender.contracts.diff import Diff, diff
from aprender.contracts.document import Document
from aprender.contracts.migrate import migrate
from aprender.contracts.reader import read_text
from tests.toy_project import CONTRACT

EQUATIONS = """\
equations:
  calibration:
    formula: t = s * raw + o
    domain: raw >= 0
    invariants: [t > -273.15]
    preconditions: [raw >= 0]
    float_tolerance: 0.001
kani_harnesses:
  - {id: KANI-1, obligation: OBL-1, bound: 8}
qa_gate: {id: QA-1, checks: [OBL-1]}
"""
OLD = CONTRACT.replace("falsification_tests:", f"{EQUATIONS}falsification_tests:")
EXPECTATION = "      - abs(reading - room) < 0.1\n    guards"


def document(text: str, file: str) -> Document:
    found, findings = read_text(text, file)
    assert found is not None, findings
    return found


def diff_texts(old: str, new: str) -> Diff:
    return diff(document(old, "old.yaml"), document(new, "new.yaml"))


def lines(found: Diff) -> list[str]:
    return [f"{c.file}:{c.line}:{c.column}: {c.kind}: {c.what}" for c in found.changes]


CHANGES = [
    (EXPECTATION, "      - abs(reading - room) < 0.2\n    guards", "weakened: expectation 'abs(reading - room) < 0.1' became 'abs(reading - room) < 0.2'"),
    (EXPECTATION, "      - abs(reading - room)<0.1\n    guards", "neutral: expectation 'abs(reading - room) < 0.1' became 'abs(reading - room)<0.1', which says the same"),
    (EXPECTATION, "      - abs(reading - room) < 0.1\n      - reading > 0\n    guards", "tightened: expectation 'reading > 0' added"),
    (EXPECTATION, "      - reading < 40\n    guards",
     "weakened: expectation 'abs(reading - room) < 0.1' became 'reading < 40'; which of the two is stricter can't be told"),
    ("- samples >= 2", "- samples >= 3", "tightened: guard 'samples >= 2' became 'samples >= 3'"),
    ("- samples >= 2", "- samples > 2", "tightened: guard 'samples >= 2' became 'samples > 2'"),
    ("    guards:\n      - samples >= 2\n", "", "weakened: guard 'samples >= 2' removed"),
    ("      - offset_forgotten\n", "", "weakened: defect class 'offset_forgotten' removed"),
    ("- offset_forgotten", "- {class: offset_forgotten, story: once}", None),
    ("- offset_forgotten", "- {class: offset_forgotten, violates: [abs(reading - room) < 0.1]}",
     "tightened: defect class 'offset_forgotten' must now violate 'abs(reading - room) < 0.1'"),
    ("- {class: fahrenheit, violates: [abs(reading - room) < 0.1]}", "- fahrenheit",
     "weakened: defect class 'fahrenheit' may now turn it RED for any reason: violates removed"),
    ("ship_blocking: true", "ship_blocking: false", "weakened: no longer ship-blocking"),
    ("    ship_blocking: true\n", "", "weakened: no longer ship-blocking"),
    ("covers: [OBL-1]", "covers: []", "weakened: covered obligation 'OBL-1' removed"),
    ("probe: toyprobes.reading:reading", "probe: toyprobes.reading:other",
     "weakened: probe 'toyprobes.reading:reading' became 'toyprobes.reading:other': another measurement"),
    ("{room: 21.5}", "{room: 20.0}", "weakened: with.room 21.5 became 20.0: another measurement"),
    ("    with:", "    requires: {device: cuda}\n    with:", "weakened: requires none became device: cuda: it is skipped on other hosts than before"),
    ("    with:", "    gate_requires: {device: cuda}\n    with:", "tightened: gate_requires none became device: cuda"),
    ("if_fails: Look at", "if_fails: Look hard at", "neutral: if_fails reworded"),
    ("    if_fails:", "    x-owner: me\n    if_fails:", "neutral: x-owner added"),
    ("[thermometer.py]", "[calibration.py]", "weakened: code under contract 'thermometer.py' removed"),
    ("valid_for: 30d", "valid_for: 5w", "weakened: valid_for 30d became 5w"),
    ("valid_for: 30d", "valid_for: 48h", "tightened: valid_for 30d became 48h"),
    ("valid_for: 30d\n", "", "weakened: evidence now stays fresh for ever"),
    ("schema_version: 2\n", "", "weakened: schema_version 2 became None"),
    ("status: ACTIVE", "status: DRAFT_RED", "neutral: status changed"),
    ("kind: pattern", "kind: kernel", "tightened: kind pattern became kernel: the rules for kernels hold now"),
    ("proof_obligations:\n  - {id: OBL-1, type: invariant, property: readings are right}\n", "", "weakened: obligation OBL-1 removed"),
    ("readings are right}", "readings are right, tolerance: 0.1}", "weakened: tolerance added: none became 0.1"),
    ("readings are right}", "readings are exact}", "weakened: property changed: 'readings are right' became 'readings are exact'"),
    ("readings are right}", "readings are right, tolerance_reason: r}", "neutral: tolerance_reason added"),
    ("float_tolerance: 0.001", "float_tolerance: 0.01", "weakened: float_tolerance 0.001 became 0.01"),
    ("formula: t = s * raw + o", "formula: t = s * raw", "weakened: formula 't = s * raw + o' became 't = s * raw': another claim"),
    ("[t > -273.15]", "[t > -300]", "weakened: invariant 't > -273.15' became 't > -300'"),
    ("preconditions: [raw >= 0]", "preconditions: [raw >= 5]", "weakened: precondition 'raw >= 0' became 'raw >= 5'"),
    ("    preconditions: [raw >= 0]\n", "", "tightened: precondition 'raw >= 0' removed"),
    ("bound: 8", "bound: 4", "weakened: bound 8 became 4"),
    ("checks: [OBL-1]", "checks: []", "weakened: check 'OBL-1' removed"),
    ("id: FALSIFY-T-001", "id: FALSIFY-T-002",
     "weakened: falsifier FALSIFY-T-001 is now called FALSIFY-T-002: evidence and amendments go by id"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), CHANGES)
def test_the_class_of_a_change(old: str, new: str, expected: str | None) -> None:
    """One edit, and the worst change that it makes."""
    assert old in OLD
    found = diff_texts(OLD, OLD.replace(old, new))
    order = {"weakened": 0, "tightened": 1, "neutral": 2}
    shown = sorted(found.changes, key=lambda change: (order[change.kind], "defect class" in change.what))
    if expected is None:
        assert shown == []
    else:
        kind, _, what = expected.partition(": ")
        assert shown[0].kind == kind
        assert shown[0].what in (what, f"{shown[0].place.rpartition('.')[0]}: {what}")


def test_places_are_in_the_new_file_and_in_the_old_one_for_what_is_gone() -> None:
    """All changes at once, in order of place."""
    new = (
        OLD.replace("      - offset_forgotten\n", "")
        .replace("valid_for: 30d", "valid_for: 5w")
        .replace("- samples >= 2", "- samples >= 3")
    )
    assert lines(diff_texts(OLD, new)) == [
        "new.yaml:11:12: weakened: valid_for 30d became 5w",
        "new.yaml:34:9: tightened: FALSIFY-T-001: guard 'samples >= 2' became 'samples >= 3'",
        "old.yaml:36:9: weakened: FALSIFY-T-001: defect class 'offset_forgotten' removed",
    ]


def test_order_is_no_change() -> None:
    """Of keys, of falsifiers, of expectations."""
    data = document(OLD, "old.yaml").data
    second = copy.deepcopy(data["falsification_tests"][0]) | {"id": "FALSIFY-T-002"}
    data["falsification_tests"].append(second)
    data["falsification_tests"][0]["expect"].append("reading > 0")
    turned = dict(reversed(list(copy.deepcopy(data).items())))
    turned["falsification_tests"].reverse()
    turned["falsification_tests"][1]["expect"].reverse()
    assert diff_texts(json.dumps(data), json.dumps(turned)).changes == ()


AMENDMENT = """\
amendments:
  - version: "2.0.0"
    date: "2026-11-23"
    reason: the data sheet says so
    changes: [%s]
"""


@pytest.mark.parametrize(
    ("named", "explained"),
    [
        ("FALSIFY-T-001", {"expectation", "defect class"}),
        ("offset_forgotten", {"defect class"}),
        ("abs(reading - room) < 0.1", {"expectation"}),
        ("abs(reading - room) < 0.2", {"expectation"}),
        ("FALSIFY-T-001.expect", {"expectation"}),
        ("valid_for", {"valid_for"}),
        ("30d", {"valid_for"}),
        ("FALSIFY-T-002", set()),
    ],
)
def test_an_amendment_explains_what_it_names(named: str, explained: set[str]) -> None:
    """A falsifier's id explains all of its weakenings, anything else only itself."""
    new = (
        OLD.replace("room) < 0.1", "room) < 0.2")
        .replace("      - offset_forgotten\n", "")
        .replace("valid_for: 30d", "valid_for: 5w")
    )
    found = diff_texts(OLD, new + AMENDMENT % named)
    weakened = [change for change in found.changes if change.kind == "weakened"]
    assert len(weakened) == 3
    by = {
        change.what.removeprefix("FALSIFY-T-001: ").partition(" '")[0].partition(" 30d")[0]
        for change in weakened
        if change.explained_by
    }
    assert by == explained
    assert len(found.unexplained) == 3 - len(explained)
    notes = [change.what for change in found.changes if change.kind == "neutral"]
    label = "amendment 2.0.0 (the data sheet says so) explains nothing: it names nothing that was weakened"
    assert notes == ([] if explained else [label])


def test_an_amendment_without_a_reason_or_from_before_explains_nothing() -> None:
    """A reason that was given for something else does not count again."""
    new = OLD.replace("valid_for: 30d", "valid_for: 5w")
    given_before = AMENDMENT % "valid_for"
    assert len(diff_texts(OLD + given_before, new + given_before).unexplained) == 1
    without = given_before.replace("the data sheet says so", '" "')
    found = diff_texts(OLD, new + without)
    assert len(found.unexplained) == 1
    assert [c.what for c in found.changes if c.kind == "neutral"] == [
        "amendment 2.0.0 explains nothing: it gives no reason"
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("says so", "says so!"),
        ("says so", "said otherwise"),
        ('date: "2026-11-23"', 'date: "2026-11-24"'),
        ('version: "2.0.0"', "version: 2.1.0"),
        ("the data sheet says so", "another"),
    ],
)
def test_an_old_amendment_that_was_edited_explains_nothing_again(before: str, after: str) -> None:
    """Only what was added to its changes is explained."""
    edited = (AMENDMENT % "valid_for").replace(before, after)
    assert edited != AMENDMENT % "valid_for"
    new = OLD.replace("valid_for: 30d", "valid_for: 5w")
    found = diff_texts(OLD + AMENDMENT % "valid_for", new + edited)
    assert len(found.unexplained) == 1
    (note,) = [change.what for change in found.changes if change.kind == "neutral"]
    assert "explains nothing: the older version has one for what it names" in note
    longer = edited.replace("[valid_for]", "[other, valid_for]")
    assert diff_texts(OLD + AMENDMENT % "other", new + longer).unexplained == []


@pytest.mark.parametrize(
    ("date", "version", "reason", "unexplained"),
    [
        ("2026-11-23", "2.0.0", "The data sheet says so!", 1),
        ("2026-11-24", "2.0.0", "The data sheet says so", 1),
        ("2026-11-24", "3.0.0", "The data sheet says so", 0),
        ("2026-11-23", "2.0.0", "evidence takes five weeks", 0),
    ],
)
def test_an_amendment_beside_an_old_one_gives_its_own_reason(
    date: str, version: str, reason: str, unexplained: int
) -> None:
    """The old one's words, of the same day or version, were for something else."""
    before = AMENDMENT % "valid_for"
    added = f'  - {{version: "{version}", date: "{date}", reason: {reason}, changes: [valid_for]}}\n'
    found = diff_texts(OLD + before, OLD.replace("valid_for: 30d", "valid_for: 5w") + before + added)
    assert len(found.unexplained) == unexplained


@pytest.mark.parametrize(
    ("old", "new", "version", "suggested", "bumped", "enough"),
    [
        ("valid_for: 30d", "valid_for: 5w", "1.9", "major", "minor", False),
        ("valid_for: 30d", "valid_for: 5w", "v2", "major", "major", True),
        ("valid_for: 30d", "valid_for: 1d", "1.1.0-rc1", "minor", "minor", True),
        ("if_fails: Look", "if_fails: Go", "1.0.1", "patch", "patch", True),
        ("if_fails: Look", "if_fails: Go", "1.0.0", "patch", "none", False),
        ("if_fails: Look", "if_fails: Go", "0.9.0", "patch", None, False),
        ("if_fails: Look", "if_fails: Go", "next", "patch", None, False),
        ("valid_for: 30d", "valid_for: 30d", "2.0.0", "none", "major", True),
    ],
)  # fmt: skip
def test_the_version_that_the_changes_ask_for(
    old: str, new: str, version: str, suggested: str, bumped: str | None, enough: bool
) -> None:
    """Weakened asks for a major version, tightened for a minor, the rest for a patch."""
    found = diff_texts(OLD, OLD.replace(old, new).replace('version: "1.0.0"', f'version: "{version}"'))
    assert (found.suggested, found.bumped, found.bumped_enough) == (suggested, bumped, enough)


def test_the_old_dialect_is_compared_too() -> None:
    """Its aliases, classes with stories, lists of equations."""
    old = """\
equations: [{id: a, formula: y = x}, {formula: z = x}]
falsification_tests:
  - {id: F-1, description: d, expected: e, test: "cargo test a", counter_example_classes: ["slug: a story", {other: s}]}
"""
    new = """\
equations: [{id: a, formula: y = x}]
falsification_tests:
  - {id: F-1, description: d2, expected: e, counter_example_classes: ["slug: another"]}
"""
    assert lines(diff_texts(old, new)) == [
        "old.yaml:1:38: weakened: equation equations[1] removed",
        "new.yaml:3:28: neutral: F-1: description reworded",
        "old.yaml:3:50: weakened: F-1: test removed: 'cargo test a' is not run any more",
        "old.yaml:3:109: weakened: F-1: defect class 'other' removed",
    ]


YAML_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["x < 1", "x < 2", "a", "30d", "cuda", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "class", "expect", "k"]), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = ["schema_version", "metadata", "equations", "proof_obligations", "falsification_tests", "kani_harnesses", "qa_gate",
        "code_under_contract", "valid_for", "amendments", "other"]  # fmt: skip
ANYTHING = st.dictionaries(st.sampled_from(KEYS), YAML_LIKE, max_size=5)


def of_data(data: dict[str, Any], file: str = "x.yaml") -> Document:
    return document(json.dumps(data), file)


@given(ANYTHING, ANYTHING)
def test_any_two_documents_can_be_compared(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Whatever their shape: no exception; and nothing differs from itself."""
    assert diff(of_data(old), of_data(old)).changes == ()
    diff(of_data(old), of_data(new))


BOUNDS = st.tuples(
    st.sampled_from(["x {} {}", "abs(x - y) {} {} * sqrt(v)", "x - {1} {0} y"]), st.sampled_from(["<", "<=", ">", ">="])
)


@given(BOUNDS, st.integers(1, 99), st.integers(1, 99), st.sampled_from(["expect", "guards"]))
def test_exchanging_the_sides_exchanges_the_classes(bound: tuple[str, str], old: int, new: int, key: str) -> None:
    """For bounds: what is tightened one way is weakened the other way, and never both."""
    shape, symbol = bound
    sides = [{"falsification_tests": [{"id": "F", key: [shape.format(symbol, number)]}]} for number in (old, new)]
    there, back = diff(of_data(sides[0]), of_data(sides[1])), diff(of_data(sides[1]), of_data(sides[0]))
    kinds = [[change.kind for change in found.changes] for found in (there, back)]
    assert kinds in ([["tightened"], ["weakened"]], [["weakened"], ["tightened"]]) if old != new else kinds == [[], []]


FULL = document(OLD, "old.yaml").data["falsification_tests"][0] | {
    "requires": {"device": "cuda"}, "gate_requires": {"device": "cuda"}, "tolerance": 0.1, "tolerance_reason": "r", "test": "t",
    "test_harness": "h", "name": "n", "x-note": 1,
}  # fmt: skip


@pytest.mark.parametrize("key", FULL)
def test_taking_a_key_from_a_falsifier_is_never_tightened(key: str) -> None:
    """Saying less never demands more."""
    shorter = {k: v for k, v in FULL.items() if k != key}
    found = diff(of_data({"falsification_tests": [FULL]}), of_data({"falsification_tests": [shorter]}))
    assert found.changes
    assert {change.kind for change in found.changes} <= {"weakened", "neutral"}


DEMANDS = """\
metadata: {version: "1", description: d, references: [r], enforcement_level: strict, locked_level: l4}
proof_obligations:
  - {id: O-1, type: equivalence, property: p, formal: for all x}
falsification_tests:
  - {id: F-1, rule: r, prediction: below 1e-6 for every row, if_fails: i}
kani_harnesses:
  - {id: K-1, obligation: O-1, strategy: exhaustive, bound: 8}
qa_gate: {id: QA-1, pass_criteria: all pass}
kernel_structure: {phases: [{name: load, description: d, invariant: i}]}
enforcement:
  layout: {description: d, severity: error}
"""


def test_the_words_beside_a_formal_claim_are_prose() -> None:
    """The formal claim is what is compared."""
    (change,) = diff_texts(DEMANDS, DEMANDS.replace("property: p", "property: q")).changes
    assert (change.kind, change.what.endswith("property reworded")) == ("neutral", True), change


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("enforcement_level: strict", "enforcement_level: basic"), ("locked_level: l4", "locked_level: l2"),
        ("type: equivalence", "type: invariant"), (", formal: for all x", ""), ("for all x", "for some x"),
        ("below 1e-6 for every row", "below 1e-3 for some rows"), ("strategy: exhaustive", "strategy: stub_float"),
        ("obligation: O-1", "obligation: O-2"), ("all pass", "any passes"), ("invariant: i", "invariant: j"),
        ("severity: error", "severity: warning"), ("  layout: {description: d, severity: error}\n", "  {}\n"),
    ],
)  # fmt: skip
def test_what_can_not_be_told_to_demand_as_much_is_weakened(old: str, new: str) -> None:
    """Levels, types, formal claims, strategies, gates, phases, rules, and predictions that are the only bound."""
    assert [change.kind for change in diff_texts(DEMANDS, DEMANDS.replace(old, new)).changes] == ["weakened"]


def test_an_obligations_reason_for_its_tolerance_is_missed() -> None:
    """As a falsifier's: a bound that nobody explains any more demands as much as nobody knows."""
    reasoned = OLD.replace("readings are right}", "readings are right, tolerance: 0.1, tolerance_reason: r}")
    bare = reasoned.replace(", tolerance_reason: r", "")
    (change,) = diff_texts(reasoned, bare).changes
    assert (change.kind, change.what.endswith("tolerance_reason removed")) == ("weakened", True), change


PUT_ASIDE = """\
metadata: {version: "1.0.0", description: d, references: [r]}
equations: {e: {formula: x = y}}
proof_obligations:
  - {type: invariant, property: x is y, formal: x = y, applies_to: run}
falsification_tests:
  - {id: FALSIFY-T-001, rule: r, prediction: p, test: t, if_fails: i}
kani_harnesses:
  - {id: KANI-1, obligation: It is!, bound: 1}
qa_gate: {id: QA-1, name: q, checks: [no regressions], pass_criteria: all}
"""


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("x-applies_to: run", "tightened: x-is-y: applies_to run became all"),
        ("x-obligation: It is!", "weakened: KANI-1: obligation removed"),
        ("x-checks: [no regressions]", "weakened: qa_gate: check 'no regressions' removed"),
    ],
)
def test_words_that_a_migration_puts_aside_are_compared_by_their_own_key(word: str, what: str) -> None:
    """As they stand they are what they were; taken away, the key that they had is gone."""
    migrated = migrate(PUT_ASIDE.encode(), "x.yaml")
    assert not migrated.problems
    new = migrated.after.decode()
    assert word in new
    assert [change for change in diff_texts(PUT_ASIDE, new).changes if change.kind == "weakened"] == []
    without = new.replace(f", {word}", "").replace(f"{word}, ", "")
    assert without != new
    changes = diff_texts(PUT_ASIDE, without).changes
    assert what in [f"{change.kind}: {change.what}" for change in changes]

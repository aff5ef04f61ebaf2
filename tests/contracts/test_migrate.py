"""``pv migrate``: nothing is lost, nothing is half done, and what is typed stays as it was typed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aprender.cli.pv import main
from aprender.contracts.check import check_content
from aprender.contracts.diff import diff
from aprender.contracts.migrate import BOM, Migration, migrate
from aprender.contracts.migrate_steps import ALIASES
from aprender.contracts.reader import read_bytes
from aprender.contracts.schema import contract_schema
from tests.contracts.old_dialect import old_contracts

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
NAMES = {old: new for aliases in ALIASES.values() for old, new in aliases.items()} | {"last_modified": "updated"}

OLD = """\
# Licence: as you like

metadata:  # what it is
  version: 1.0
  description: 'It''s "quoted"'
  references: [a,   b]   # spaced
  registry: true
  last_modified: 2026-01-01
  status: VERIFIED

proof_obligations:
- statement: Output sums to 1
  verification: |
    sum(x) == 1   # not a comment

  tolerance: ~
- {"type": bound, property: Output sums to 1, id: }

falsification_tests:
  - id: F-1
    "description": first   # the rule
    expected: &p one
    if_fails: *p
    command: make
    counter_example_classes:
      - no_mask
      - bias_lost: it was dropped
      - "bias_twice: it's back"
formats:

  - odd
"""

NEW = """\
# Licence: as you like

schema_version: 2
metadata:  # what it is
  version: "1.0"
  description: 'It''s "quoted"'
  references: [a,   b]   # spaced
  kind: registry
  updated: 2026-01-01
  x-status: VERIFIED

proof_obligations:
- id: output-sums-to-1
  type: invariant
  property: Output sums to 1
  formal: |
    sum(x) == 1   # not a comment

  x-tolerance: ~
- {"type": bound, property: Output sums to 1, id: output-sums-to-1-2 }

falsification_tests:
  - id: F-1
    "rule": first   # the rule
    prediction: &p one
    if_fails: *p
    test: make
    counter_example_classes:
      - no_mask
      - class: bias_lost
        story: it was dropped
      - {class: bias_twice, story: "it's back"}
x-formats:

  - odd
"""


def migrated(text: str) -> Migration:
    return migrate(text.encode(), "c.yaml")


def data_of(content: bytes) -> Any:
    document, findings = read_bytes(content, "c.yaml")
    assert document is not None, findings
    return document.data


def kept(old: Any, new: Any) -> bool:
    """Whether ``new`` holds everything of ``old``, up to the renames that docs/migrate.md lists."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = {key: next((n for n in (key, f"x-{key}", NAMES.get(key)) if n in new), None) for key in old}
        if len(old) == 1 and new.keys() == {"class", "story"}:
            return list(old.items()) == [(new["class"], new["story"])]
        if old.get("registry") is True and old.get("kind", "kernel") == "kernel":
            old = {**old, "kind": "registry"}
            if new.get("x-registry") is not True:
                found["registry"] = "kind"
                old["registry"] = "registry"
        if old.get("id", "") is None and "id" in new:
            old = {**old, "id": new["id"]}
        if "x-checks" in new:  # the ids among them stand there, too
            found["checks"] = "x-checks"
        extra = new.keys() - set(found.values()) - ({"checks"} if "x-checks" in new else set())
        return None not in found.values() and extra <= {"schema_version", "id", "type"} and all(
            kept(old[key], new[str(name)]) for key, name in found.items()
        )  # fmt: skip
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(kept, old, new))
    if isinstance(old, list) and isinstance(new, dict):
        return kept({item["id"]: {k: v for k, v in item.items() if k != "id"} for item in old}, new)
    if isinstance(old, str) and isinstance(new, dict):
        return old == f"{new['class']}: {new['story']}"
    return bool(old == new) or (isinstance(old, int | float) and new == json.dumps(old))


def test_comments_order_quotes_and_blank_lines_stay() -> None:
    """One file with most of what can happen, to the letter."""
    result = migrated(OLD)
    assert result.problems == ()
    assert result.after.decode() == NEW


def test_it_says_what_it_did() -> None:
    """A person sees which names changed and what was put aside, without reading the diff."""
    assert migrated(OLD).notes == (
        "registry: true is now kind: registry",
        "statement is now property",
        "verification is now formal",
        "description is now rule",
        "expected is now prediction",
        "command is now test",
        "version is quoted",
        "obligation without id has one (2 times)",
        "obligation without type is an invariant, as it was read",
        "slug: story is now class and story (2 times)",
        "metadata.status is now x-status",
        "proof_obligations.tolerance is now x-tolerance",
        "formats is now x-formats",
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@example(text=OLD, newline="\r\n", bom=True)
@given(text=old_contracts(), newline=st.sampled_from(["\n", "\r\n"]), bom=st.booleans())
def test_nothing_is_lost(text: str, newline: str, bom: bool) -> None:
    """Whatever the style: the result is valid, holds all data and all comments, and migrating again changes nothing."""
    before = (BOM if bom else b"") + text.replace("\n", newline).encode()
    result = migrate(before, "c.yaml")
    if isinstance(data_of(before).get("equations"), list) and {p.rule for p in result.problems} == {"MIGRATE"}:
        return  # a list of equations in flow style is for a person to write out
    assert result.problems == ()
    assert [finding for finding in check_content(result.after, "c.yaml").findings if finding.severity == "error"] == []
    assert kept(data_of(before), data_of(result.after))
    assert re.findall(rb"# \w+ \d+", result.after) == re.findall(rb"# \w+ \d+", before)
    assert result.after.startswith(BOM) == bom
    assert result.after.count(b"\r") == (result.after.count(b"\n") if newline == "\r\n" else 0)
    assert result.after.count(b"\n\n") == before.count(b"\n\n")
    assert migrate(result.after, "c.yaml") == Migration("c.yaml", result.after, result.after)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(text=old_contracts(), data=st.data())
def test_a_damaged_file_is_refused_or_valid(text: str, data: st.DataObject) -> None:
    """Any mutation of a contract ends as valid version 2 that keeps its data, or unchanged with the reasons."""
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 8)))
    noise = data.draw(
        st.sampled_from(["", ":", "- ", "&a ", "*a", "<<: ", "{", "\n", "? ", "\x85", "null", "ship_blocking: 1"])
    )
    content = (text[:start] + noise + text[end:]).encode()
    result = migrate(content, "c.yaml")
    if result.problems:
        assert result.after == content
        lines = content.decode().splitlines()
        assert all(1 <= problem.line <= len(lines) + 1 for problem in result.problems)
    else:
        errors = [finding for finding in check_content(result.after, "c.yaml").findings if finding.severity == "error"]
        assert errors == []
        assert kept(data_of(content), data_of(result.after))


def test_a_harness_that_quotes_a_claim_names_its_id() -> None:
    """Where the text is exactly one obligation's property there is nothing to guess; other text is put aside."""
    claims = "proof_obligations: [{id: O-1, type: bound, property: it is}]\n"
    harnesses = (
        "kani_harnesses:\n  - {id: K-1, obligation: it is, bound: 1}\n  - {id: K-2, obligation: It is!, bound: 1}\n"
    )
    result = migrated(f"{REST}{TEST}}}\n{claims}{harnesses}")
    assert (
        "- {id: K-1, obligation: O-1, bound: 1}\n  - {id: K-2, x-obligation: It is!, bound: 1}\n"
        in result.after.decode()
    )


def test_words_where_version_2_has_ids_are_put_aside() -> None:
    """A gate keeps the ids among its checks, and all of them as they were typed; what is told is what was done."""
    old = """\
proof_obligations:
  - {id: O-1, type: bound, applies_to: run_sync, property: it is}
  - {id: O-2, type: bound, applies_to: simd, property: it is not}
qa_gate:
  checks:  # all of them
    - F-1
    - no regressions
  id: QA-1
"""
    result = migrated(f"{REST}{TEST}, covers: [O-1, O-2]}}\n{old}")
    new = old.replace("applies_to: run", "x-applies_to: run")
    new = new.replace("  checks:  #", '  checks: ["F-1"]\n  x-checks:  #')
    assert result.after.decode().endswith(new)
    assert [note for note in result.notes if "x-" in note] == [
        "proof_obligations.applies_to is no id: it is now x-applies_to", "qa_gate.checks is now x-checks, but for its ids"
    ]  # fmt: skip
    only_words = migrated(f"{REST}{TEST}}}\nqa_gate: {{checks: [no regressions]}}\n")
    assert "qa_gate: {x-checks: [no regressions]}\n" in only_words.after.decode()


def test_a_harness_whose_words_were_put_aside_stays_in_view() -> None:
    """It is valid and a warning; without a word about any obligation it is an error as ever."""
    base = f"schema_version: 2\n{REST}{TEST}}}\nkani_harnesses:\n  - "
    for harness, expected in (
        ("{id: K-1, bound: 1, x-obligation: It is!}", ("REF-010", "warning")),
        ("{id: K-1, bound: 1, obligation: It is!}", ("REF-010", "error")),
        ("{id: K-1, bound: 1, obligation: ''}", ("SCHEMA-011", "error")),
        ("{id: K-1, bound: 1}", ("SCHEMA-101", "error")),
    ):
        (found,) = check_content(f"{base}{harness}\n".encode(), "c.yaml").findings
        assert (found.rule, found.severity) == expected


def test_a_list_of_equations_may_stand_as_far_left_as_its_key() -> None:
    """Its names then stand one blank to the right, so that they are no keys of the contract."""
    equations = "equations:\n{0}- id: e  # first\n{0}  formula: |\n{0}    a\n{0}    b\n{0}- id: f\n{0}  formula: g\n"
    for indented in ("", "  "):
        result = migrated(f"{REST}{TEST}}}\n{equations.format(indented)}")
        expected = {"e": {"formula": "a\nb\n"}, "f": {"formula": "g"}}
        assert data_of(result.after)["equations"] == expected, result.problems
        assert result.after.count(b"# first") == 1


def test_every_alias_of_the_schema_is_renamed() -> None:
    """The table of aliases is the schema's: each key that it calls another name of something."""
    definitions = {"proof_obligations": "obligation_published", "falsification_tests": "falsifier_published"}
    for block, name in definitions.items():
        properties = contract_schema()["$defs"][name]["properties"]
        said = {k: m[1] for k, v in properties.items() if (m := re.match(r"Another name of `(\w+)`", v["description"]))}
        assert said == ALIASES[block]


REST = "metadata: {version: '1', description: d, references: [r], kind: pattern}\n"
TEST = "falsification_tests:\n  - {id: F-1, rule: r, prediction: p, if_fails: i"


@pytest.mark.parametrize(
    ("text", "line", "column", "rule", "message"),
    [
        (f"# c\n{REST}", 2, 1, "SCHEMA-101", "the contract has no 'falsification_tests'; it is mandatory"),
        (
            f"{REST}{TEST}, ship_blocking: true}}\n", 3, 5, "TEETH-001",
            "F-1 is ship-blocking but has no probe, expect, guards, counter_example_classes",
        ),
        (
            f"{REST}{TEST}, ship_blocking: yes}}\n", 3, 67, "SCHEMA-102",
            "falsification_tests[F-1].ship_blocking must be true or false, not 'yes'",
        ),
        (
            f"{REST}{TEST}, counter_example_classes: [No mask]}}\n", 3, 78, "SCHEMA-102",
            "falsification_tests[F-1].counter_example_classes[0] is 'No mask'; must be a slug: lower-case letters, digits and underscores",
        ),
        (
            f"{REST}{TEST}}}\nequations:\n  - formula: f\n    id: e\n", 4, 1, "MIGRATE",
            "to become a mapping by name, each entry of this list must begin with '- id: ...'",
        ),
        (
            f"{REST}{TEST}}}\nproof_obligations:\n  - &o {{property: p}}\nformats: *o\n", 6, 1, "MIGRATE",
            "an anchor, a merge key or an unusual form hides what must change here: write it out, then migrate",
        ),
        ("metadata: {a: 1, a: 2}\n", 1, 18, "SCHEMA-020", "key 'a' stands twice in this mapping, first at 1:12; keep one"),
    ],
)  # fmt: skip
def test_what_a_person_must_decide_is_listed(text: str, line: int, column: int, rule: str, message: str) -> None:
    """The place is that in the file as it is, not in what it might have become; and nothing is changed."""
    result = migrated(text)
    assert not result.changed
    first = next(problem for problem in result.problems if problem.rule == rule)
    assert (first.line, first.column, first.rule, first.message) == (line, column, rule, message)
    assert first.source == text.split("\n")[line - 1]


def test_a_mistyped_load_bearing_key_is_not_put_aside() -> None:
    """A typing error that takes a falsifier's teeth out is a question, not an extension."""
    (problem,) = migrated(f"{REST}{TEST}, ship_bloking: true}}\n").problems
    assert "unknown key 'ship_bloking'" in problem.message
    assert "Did you mean 'ship_blocking'?" in problem.message


def test_the_command_writes_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mode stays, a link stays a link, no temporary file is left, and a second run finds nothing to do."""
    target = tmp_path / "real.yaml"
    target.write_text(OLD)
    target.chmod(0o640)
    (tmp_path / "contracts").mkdir()
    link = tmp_path / "contracts" / "link.yaml"
    link.symlink_to(target)
    assert _status("migrate", str(link)) == 0
    assert target.read_text() == NEW
    assert target.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["contracts", "real.yaml"]
    assert capsys.readouterr().err == "pv: 1 files: 1 migrated, 0 not, 0 version 2 before\n"
    assert _status("migrate", str(link)) == 0
    assert "is version 2, nothing to do" in capsys.readouterr().out


def test_check_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check prints a diff and exits 1 where a file would change."""
    file = tmp_path / "c.yaml"
    file.write_text(OLD)
    assert _status("migrate", "--check", str(file)) == 1
    assert file.read_text() == OLD
    out = capsys.readouterr().out
    assert "+schema_version: 2\n" in out
    assert "-- statement: Output sums to 1\n" in out
    file.write_text(NEW)
    assert _status("migrate", "--check", str(file)) == 0


def test_one_refusal_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file stands for itself; the exit code says that not all are version 2."""
    (tmp_path / "a.yaml").write_text(REST)
    (tmp_path / "b.yaml").write_text(OLD)
    assert _status("migrate", str(tmp_path)) == 1
    assert (tmp_path / "a.yaml").read_text() == REST
    assert (tmp_path / "b.yaml").read_text() == NEW
    assert f"{tmp_path}/a.yaml:1:1: SCHEMA-101 the contract has no" in capsys.readouterr().out


def test_standard_input_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """There is no file to change behind it."""
    assert _status("migrate", "-") == 2
    assert capsys.readouterr().err == "pv: error: pv migrate changes files in place; name a file instead of -\n"


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus of real contracts is not beside this checkout")
def test_real_contracts_keep_everything() -> None:
    """Of 170 real contracts most migrate; each that does keeps its data and its comments."""
    results = [migrate(path.read_bytes(), str(path)) for path in sorted(CORPUS.rglob("*.yaml"))]
    done = [result for result in results if not result.problems]
    assert len(done) >= 0.9 * len(results)
    for result in done:
        assert kept(_linked(result), data_of(result.after)), result.file
        assert _comments(result.after) == _comments(result.before), result.file


def _linked(result: Migration) -> Any:
    """The data before, with the ids that harnesses have for the texts they had."""
    old, new = data_of(result.before), data_of(result.after)
    names = {one["id"]: one["property"] for one in new.get("proof_obligations", ())}
    for one, other in zip(old.get("kani_harnesses", ()), new.get("kani_harnesses", ()), strict=True):
        if "obligation" in other and one["obligation"] == names.get(other["obligation"]):
            one["obligation"] = other["obligation"]
    return old


def _comments(content: bytes) -> list[bytes]:
    return re.findall(rb"(?m)^\s*#.*$", content)


def _status(*words: str) -> Any:
    with pytest.raises(SystemExit) as end:
        main(words)
    return end.value.code


BEFORE = """\
metadata: {version: 1.0, description: d, references: [r], kind: pattern}
proof_obligations:
  - {property: some claim, tolerance: 0.1}
  - {property: other claim, verification: x < 1}
falsification_tests:
  - {id: F, description: r, expected: "x < 1", if_fails: i, command: make, tolerance: 0.1}
kani_harnesses:
  - {id: K, obligation: some claim}
notes: hello
"""


def changes_of(before: str, after: str) -> list[str]:
    """What a diff says, but for what is neutral."""
    (old, _), (new, _) = (read_bytes(text.encode(), file) for text, file in ((before, "old"), (after, "new")))
    assert old is not None
    assert new is not None
    changes = [change for change in diff(old, new).changes if change.kind != "neutral"]
    return [f"{change.file}:{change.line}:{change.column}: {change.kind}: {change.what}" for change in changes]


VERSION_2 = "tightened: schema_version None became 2"


@pytest.mark.parametrize("text", [OLD, BEFORE])
def test_a_migration_is_no_weakening(text: str) -> None:
    """Words, ids, quotes, classes with stories, lists that became mappings and keys put aside are no change."""
    result = migrated(text)
    assert result.changed
    (change,) = changes_of(text, result.after.decode())
    assert change.endswith(VERSION_2)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="../shared/corpus is not on this machine")
def test_no_migration_of_a_real_contract_is_a_weakening() -> None:
    """All that pv migrate can migrate."""
    results = [migrate(path.read_bytes(), str(path)) for path in sorted(CORPUS.rglob("*.yaml"))]
    changed = [result for result in results if result.changed]
    assert len(changed) > 100
    for result in changed:
        changes = changes_of(result.before.decode("utf-8-sig"), result.after.decode("utf-8-sig"))
        assert [change.partition(": ")[2] for change in changes] == [VERSION_2], result.file


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("claim, tolerance: 0.1", "claim, tolerance: 0.9", "new:4:72: weakened: some-claim: tolerance 0.1 became 0.9"),
        ("claim, tolerance: 0.1", "claim, x-tolerance: 0.1", "old:3:39: weakened: some-claim: tolerance removed: 0.1 became none"),
        ("x-tolerance: 0.1", "x-tolerance: 0.9", "new:7:81: weakened: F: tolerance 0.1 became 0.9"),
        ("formal: x < 1", "formal: x < 2", "new:5:71: weakened: other-claim: formal 'x < 1' became 'x < 2'"),
        ("prediction: \"x < 1\"", "prediction: x", "new:7:34: weakened: F: prediction changed: 'x < 1' became 'x'"),
        ("test: make", "test: true", "new:7:62: weakened: F: test 'make' became 'True': another measurement"),
        ("obligation: some-claim", "obligation: other-claim", "new:9:25: weakened: K: obligation changed: 'some-claim' became 'other-claim'"),
        ("  - {id: K, obligation: some-claim}", "  []", "old:8:5: weakened: harness K removed"),
    ],
)  # fmt: skip
def test_what_is_weakened_beside_a_migration_is_seen(old: str, new: str, expected: str) -> None:
    """With its place in the text that the author has."""
    after = migrated(BEFORE).after.decode()
    assert old in after
    found = changes_of(BEFORE, after.replace(old, new))
    assert [change for change in found if VERSION_2 not in change] == [expected]


def test_an_obligation_that_gains_an_id_is_the_same() -> None:
    """By what it claims; also where a person chose the id, and for a harness that named the claim."""
    by_hand = migrated(BEFORE).after.decode().replace("some-claim", "OBL-1")
    assert [change.partition(": ")[2] for change in changes_of(BEFORE, by_hand)] == [VERSION_2]
    with_id = BEFORE.replace("{property: some claim", "{id: OBL-1, property: some claim")
    assert changes_of(BEFORE, with_id) == []
    assert changes_of(BEFORE, with_id.replace("obligation: some claim", "obligation: OBL-1")) == []
    other = with_id.replace("obligation: some claim", "obligation: OBL-2")
    assert changes_of(BEFORE, other) == ["new:8:25: weakened: K: obligation changed: 'some claim' became 'OBL-2'"]
    assert "old:3:5: weakened: obligation OBL-1 removed" in changes_of(with_id, with_id.replace("OBL-1", "OBL-2"))

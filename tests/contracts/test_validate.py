"""Validation: every rule with its exact place and sentence, all problems at once, nothing imported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aprender.contracts.check import check_content, check_file
from aprender.contracts.load import load
from aprender.contracts.validate import NothingToDo, validate
from tests.toy_project import CONTRACT

ROOT = Path(__file__).parents[2]
CORPUS = ROOT.parent / "shared" / "corpus"


def findings_of(text: str, tmp_path: Path) -> list[str]:
    path = tmp_path / "contract.yaml"
    path.write_text(text)
    return [f"{f.line}:{f.column}: {f.rule} {f.severity}: {f.message}" for f in validate([path]).findings]


def test_the_sample_contract_is_valid(tmp_path: Path) -> None:
    """The base of the mutations below has neither errors nor warnings."""
    assert findings_of(CONTRACT, tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("if_fails:", "if_fail:", [
            "13:5: SCHEMA-101 error: falsification_tests[FALSIFY-T-001] has no 'if_fails'; it is mandatory",
            "16:5: SCHEMA-024 error: unknown key 'if_fail' in falsification_tests[FALSIFY-T-001]. Did you mean 'if_fails'? "
            "Valid keys: id, name, rule, prediction, if_fails, test, test_harness, ship_blocking, covers, probe, with, "
            "requires, gate_requires, expect, guards, counter_example_classes, tolerance_reason, limitation",
        ]),
        ("ship_blocking:", "SHIP_BLOCKING:", [
            "17:5: SCHEMA-024 error: unknown key 'SHIP_BLOCKING' in falsification_tests[FALSIFY-T-001]. Did you mean 'ship_blocking'? "
            "Valid keys: id, name, rule, prediction, if_fails, test, test_harness, ship_blocking, covers, probe, with, "
            "requires, gate_requires, expect, guards, counter_example_classes, tolerance_reason, limitation",
        ]),
        ("references: [\"ITS-90\"]", "references: []", ["5:15: SCHEMA-001 error: metadata.references is empty: name a source"]),
        ('version: "1.0.0"', "version: 1.0", ["3:12: SCHEMA-102 error: metadata.version must be text, not the number 1.0"]),
        ('version: "1.0.0"', 'version: ""', ["3:12: SCHEMA-002 error: metadata.version is empty"]),
        ("schema_version: 2", "schema_version: 3", ["1:17: SCHEMA-102 error: schema_version is the number 3; must be 2"]),
        ("kind: pattern", "kind: patern", [
            "6:9: SCHEMA-102 error: metadata.kind is 'patern'; must be one of kernel, registry, model-family, model-family-variant, "
            "tokenizer, training-loop, pretraining-corpus, training-precondition-gate, corpus-assembly, pattern, schema, "
            "beat-benchmark, kaizen, competitive-parity. Did you mean 'pattern'?",
        ]),
        ("valid_for: 30d", "valid_for: 30", ["11:12: SCHEMA-102 error: valid_for must be text, not the number 30"]),
        ("valid_for: 30d", "valid_for: soon", [
            "11:12: SCHEMA-102 error: valid_for is 'soon'; must be a number of hours, days or weeks, such as 30d",
        ]),
        ("property: readings are right", 'property: ""', ["9:44: SCHEMA-005 error: proof obligation has an empty property"]),
        ("prediction: The reading differs from the room by less than a tenth of a degree.", 'prediction: ""', [
            "15:17: SCHEMA-008 error: FALSIFY-T-001 predicts nothing",
        ]),
        ("if_fails: Look at the calibration table.", 'if_fails: ""', [
            "16:15: SCHEMA-009 error: FALSIFY-T-001 does not say where to look if it fails",
        ]),
        ('version: "1.0.0"', 'version: "\\t"', ["3:12: SCHEMA-002 error: metadata.version is empty"]),
        ("property: readings are right", 'property: " "', ["9:44: SCHEMA-005 error: proof obligation has an empty property"]),
        ("prediction: The reading differs from the room by less than a tenth of a degree.", 'prediction: "\\n"', [
            "15:17: SCHEMA-008 error: FALSIFY-T-001 predicts nothing",
        ]),
        ("if_fails: Look at the calibration table.", 'if_fails: "  "', [
            "16:15: SCHEMA-009 error: FALSIFY-T-001 does not say where to look if it fails",
        ]),
        ("property: readings are right", "applies_to: scaler, property: readings are right", [
            "9:46: REF-008 error: 'scaler' is neither all, scalar, simd, converter, not_applicable nor an equation. Did you mean 'scalar'?",
        ]),
        ("property: readings are right", "applies_to: anything, property: readings are right", [
            "9:46: REF-008 error: 'anything' is neither all, scalar, simd, converter, not_applicable nor an equation.",
        ]),
        ("covers: [OBL-1]", "covers: [OBL-2]", [
            "9:5: REF-002 warning: no falsifier covers obligation 'OBL-1'",
            "18:14: REF-001 error: no proof obligation 'OBL-2'. Did you mean 'OBL-1'? Known: OBL-1",
        ]),
        ("abs(reading - room) < 0.1\n    guards", "reading < 1 or room < 1\n    guards", [
            "22:21: EXPR-001 error: 'or' is not part of the language: there is no 'or'",
            "27:40: TEETH-002 error: 'abs(reading - room) < 0.1' is no entry of expect. Did you mean 'reading < 1 or room < 1'? Copy one to the letter",
        ]),
        ("samples >= 2", "2 >= 1", ["24:9: EXPR-002 error: compares constants: no observation can change the outcome"]),
        ("samples >= 2", "samples + 1 == samples+1", [
            "24:9: EXPR-002 error: compares 'samples + 1' with itself: no observation can change the outcome",
        ]),
        ("    guards:\n      - samples >= 2\n", "", [
            "13:5: TEETH-001 error: FALSIFY-T-001 is ship-blocking but has no guards",
        ]),
        ("- offset_forgotten", "- fahrenheit", ["27:9: TEETH-003 error: defect class 'fahrenheit' is listed twice, first at 26:9"]),
        ("- offset_forgotten", "- Offset!", [
            "26:9: SCHEMA-102 error: falsification_tests[FALSIFY-T-001].counter_example_classes[0] is 'Offset!'; "
            "must be a slug: lower-case letters, digits and underscores",
        ]),
        ("violates:", "violate:", [
            "27:29: SCHEMA-024 error: unknown key 'violate' in falsification_tests[FALSIFY-T-001].counter_example_classes[1]. "
            "Did you mean 'violates'? Valid keys: class, story, violates",
        ]),
        ("probe: toyprobes.reading:reading", "probe: toyprobes.reading", [
            "19:12: SCHEMA-102 error: falsification_tests[FALSIFY-T-001].probe is 'toyprobes.reading'; "
            "must look like package.module:callable",
        ]),
        ("code_under_contract: [thermometer.py]\n", "", [
            "1:1: CODE-001 error: no code_under_contract: name the files that evidence is bound to",
        ]),
        ("covers: [OBL-1]", "covers: [OBL-1]\n    requires: {device: tpu}", [
            "19:24: SCHEMA-102 error: falsification_tests[FALSIFY-T-001].requires.device is 'tpu'; must be one of cpu, cuda. Did you mean 'cpu'?",
        ]),
    ],
)  # fmt: skip
def test_each_rule_gives_its_place_and_sentence(old: str, new: str, expected: list[str], tmp_path: Path) -> None:
    """One edit of the valid contract, and exactly what is said of it."""
    assert old in CONTRACT
    assert findings_of(CONTRACT.replace(old, new, 1), tmp_path) == expected


def test_all_problems_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    """Three mistakes in three blocks: three findings, sorted by place."""
    text = CONTRACT.replace("rule:", "rul:", 1).replace("covers: [OBL-1]", "covers: [OBL-9]").replace("1.0.0", "")
    assert [line.split()[1] for line in findings_of(text, tmp_path)] == ["SCHEMA-002", "REF-002", "SCHEMA-101", "SCHEMA-024", "REF-001"]  # fmt: skip


def test_the_old_dialect_keeps_its_published_rules(tmp_path: Path) -> None:
    """Without schema_version unknown keys are a warning, and a kernel needs its parts."""
    text = 'metadata: {version: "1", description: d, references: [], colour: red}\nfalsification_tests: [{id: A}, {id: A}]\n'
    rules = sorted(line.split()[1] for line in findings_of(text, tmp_path))
    kernel = ["PROVABILITY-001", "PROVABILITY-001", "SCHEMA-003", "SCHEMA-013"]
    assert rules == sorted(
        [*kernel, "SCHEMA-001", "SCHEMA-007", "SCHEMA-008", "SCHEMA-008", "SCHEMA-009", "SCHEMA-009", "SCHEMA-024"]
    )


def test_this_repositorys_contracts_have_no_findings() -> None:
    """Zero errors and zero warnings, and three ship-blocking falsifiers in the founding contract."""
    contracts, result = load([ROOT / "contracts"])
    assert result.findings == ()
    founding = next(c for c in contracts if c.id == "apr-pretrain-cuda-forward-parity-v1")
    assert [f.id[-3:] for f in founding.falsifiers if f.ship_blocking] == ["001", "002", "003"]
    assert all(len(f.defect_classes) >= 3 for f in founding.falsifiers)


def test_a_folder_without_contracts_is_nothing_to_do(tmp_path: Path) -> None:
    """An empty folder never passes."""
    with pytest.raises(NothingToDo, match="no contract found"):
        validate([tmp_path])


def test_hidden_folders_are_not_searched(tmp_path: Path) -> None:
    """A virtual environment inside the checkout is none of our business."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "x.yaml").write_text("a: 1")
    with pytest.raises(NothingToDo):
        validate([tmp_path])


def test_files_are_found_once_through_links_and_in_any_case(tmp_path: Path) -> None:
    """A linked folder is searched, a loop ends, a file named twice is one contract, .YML counts."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.YML").write_text(CONTRACT)
    folder = tmp_path / "contracts"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "real")
    (folder / "loop").symlink_to(folder)
    (folder / "b.yaml").symlink_to(tmp_path / "real" / "a.YML")
    result = validate([folder, folder / "..", tmp_path / "real" / "a.YML"])
    assert len(result.files) == 1
    assert not result.errors


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    """It would wait for ever."""
    os.mkfifo(tmp_path / "x.yaml")
    (finding,) = validate([tmp_path / "x.yaml"]).findings
    assert (finding.rule, finding.message) == ("YAML-002", "not a regular file; a contract is one")


@pytest.mark.parametrize("text", ["- 1\n", "just text\n", "metadata: 3\n", "metadata: {}\n", "null\n"])
def test_any_other_yaml_is_a_finding(text: str, tmp_path: Path) -> None:
    """What is no contract at all still gets a sentence."""
    assert findings_of(text, tmp_path)


@pytest.mark.parametrize("value", ["5", "true", "text", "{a: 1}", "[1, null]"])
def test_keys_of_version_2_may_hold_anything_in_the_old_dialect(value: str, tmp_path: Path) -> None:
    """They have no effect there: what they hold is looked at by nothing, and breaks nothing."""
    keys = ", ".join(f"{key}: {value}" for key in ("expect", "guards", "covers", "counter_example_classes"))
    text = f"""\
metadata: {{version: "1", description: d, references: [x], kind: pattern}}
falsification_tests:
  - {{id: F-1, rule: r, prediction: p, if_fails: i, {keys}}}
"""
    assert {line.split()[1] for line in findings_of(text, tmp_path)} == {"SCHEMA-103", "SCHEMA-024"}


@given(st.data())
def test_no_mutation_makes_validation_raise(data: st.DataObject) -> None:
    """Any line deleted, doubled or overwritten: findings or validity, never an exception."""
    lines = CONTRACT.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.sampled_from(["delete", "double", "number", "list", "mapping", "empty"]))
        key = lines[at].partition(":")[0] if ":" in lines[at] else "x"
        new = {"number": f"{key}: 3.5", "list": f"{key}: [1, {{}}]", "mapping": f"{key}: {{a: 1}}", "empty": f"{key}:"}
        lines[at : at + 1] = {"delete": [], "double": [lines[at]] * 2}.get(change, [new.get(change, "")])
        if not lines:
            return
    text = "\n".join(lines)
    found = check_content(text.encode(), "x.yaml").findings
    assert all(0 < finding.line <= len(lines) + 1 and finding.column >= 1 for finding in found)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="../shared/corpus is not on this machine")
def test_real_contracts_by_others_are_read_without_an_exception() -> None:
    """Every file of the corpus gets a verdict."""
    files = sorted(CORPUS.rglob("*.yaml"))
    assert files
    for file in files:
        check_file(str(file))


HEAD_2 = 'schema_version: 2\nmetadata: {version: "1", description: d, references: [r], kind: pattern}\n'
KERNEL = 'metadata: {version: "1", description: d, references: [r]}\n'


def test_what_was_read_and_dropped_never_lends_its_place_to_something_else(tmp_path: Path) -> None:
    """Places go by identity, so everything that was read lives as long as the document does."""
    tests = "falsification_tests:\n" + "".join(
        f"  - {{id: B{i}, rule: r, prediction: p q, if_fails: x, test: t}}\n" for i in range(20)
    )
    for twice in ("[{q: 1}]", "[" + "{id: 1, z: 2}, " * 20 + "]"):
        (tmp_path / "b.yaml").write_text(f"{HEAD_2}valid_for: 3\n{tests}x-a: 1\nx-a: {twice}\n")
        (tmp_path / "a.yaml").write_text(HEAD_2 + tests)
        taken = [finding for finding in validate([tmp_path]).findings if finding.rule == "REF-004"]
        assert [finding.line for finding in taken] == list(range(5, 25))


def test_an_empty_block_is_as_good_as_none(tmp_path: Path) -> None:
    """Null is not a kernel's equations or gate: the published rules ask for them."""
    rules = [line.split()[1] for line in findings_of(KERNEL + "equations:\nqa_gate:\n", tmp_path)]
    assert sorted(rules) == ["PROVABILITY-001"] * 3 + ["SCHEMA-003", "SCHEMA-013"]


def test_what_stands_before_an_unreadable_character_is_checked(tmp_path: Path) -> None:
    """A byte that is no UTF-8, a control character: the lines before it have findings of their own."""
    path = tmp_path / "c.yaml"
    head = b'schema_version: 2\nmetadata:\n  version: ""\n  description: d\n  references: []\n'
    for line in (b"x-a: caf\xe9\n", b"x-a: a\0b\n", b"x-a: a\x0bb\n"):
        path.write_bytes(head + line)
        found = [(finding.line, finding.rule) for finding in validate([path]).findings]
        assert (3, "SCHEMA-002") in found
        assert found[-1][0] == 6


def test_a_link_that_leads_in_a_circle_is_a_finding_and_the_others_are_checked(tmp_path: Path) -> None:
    """One bad entry of a folder hides nothing else in it."""
    (tmp_path / "self.yaml").symlink_to(tmp_path / "self.yaml")
    (tmp_path / "good.yaml").write_text(HEAD_2 + "falsification_tests: []\n")
    result = validate([tmp_path])
    assert [Path(file).name for file in result.files] == ["good.yaml", "self.yaml"]
    assert {(Path(f.file).name, f.rule) for f in result.findings} >= {("self.yaml", "YAML-002")}


def test_warnings_never_push_an_error_out(tmp_path: Path) -> None:
    """Of more findings than anybody reads the errors are kept."""
    text = (
        "".join(f"k{i}: {i}\n" for i in range(3000))
        + 'metadata: {version: "", description: d, references: [r], kind: pattern}\n'
    )
    assert "SCHEMA-002" in {line.split()[1] for line in findings_of(text, tmp_path)}


def test_a_version_is_no_misspelt_schema_version(tmp_path: Path) -> None:
    """Contracts of the old dialect have keys like it; only what is nearly the same word is told."""
    old = 'metadata: {version: "1", description: d, references: [r], kind: pattern}\n'
    for key in ("version", "contract_version"):
        assert {line.split()[1] for line in findings_of(f"{key}: 2\n{old}", tmp_path)} == {"SCHEMA-024"}
    for key in ("SCHEMA_VERSION", "schemaVersion", "schema-version", "schema_verson"):
        assert "SCHEMA-103" in {line.split()[1] for line in findings_of(f"{key}: 2\n{old}", tmp_path)}


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("SHIP_BLOCKING", " Did you mean 'ship_blocking'?"),
        ("shipBlocking", " Did you mean 'ship_blocking'?"),
        ("cover", " Did you mean 'covers', which only version 2 has?"),
        ("gate_require", " Did you mean 'gate_requires', which only version 2 has?"),
        ("requires", " Version 2 has it: write 'schema_version: 2' to make the contract executable"),
        ("covers", " Version 2 has it: write 'schema_version: 2' to make the contract executable"),
        ("zzz", ""),
    ],
)
def test_a_key_that_is_nearly_one_is_told_so_in_the_old_dialect(key: str, hint: str, tmp_path: Path) -> None:
    """What is suggested has an effect there, or it is said where it has one."""
    text = 'metadata: {version: "1", description: d, references: [r], kind: pattern}\n'
    text += f"falsification_tests:\n  - {{id: F-1, rule: r, prediction: p q, if_fails: i, {key}: [x]}}\n"
    expected = f"3:54: SCHEMA-024 warning: unknown key '{key}' in falsification_tests[F-1]: it has no effect.{hint}"
    assert findings_of(text, tmp_path) == [expected]


def test_one_falsifier_id_in_two_old_files_is_a_warning(tmp_path: Path) -> None:
    """Who reads of it in a report can't tell which is meant; ids of old contracts are names of another kind."""
    text = 'metadata: {id: same, version: "1", description: d, references: [r], kind: pattern}\n'
    text += "falsification_tests:\n  - {id: F-1, rule: r, prediction: p q, if_fails: i}\n"
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(text)
    (found,) = validate([tmp_path]).findings
    assert (Path(found.file).name, found.line, found.rule, found.severity) == ("b.yaml", 3, "REF-004", "warning")
    assert "falsifier id 'F-1' is taken" in found.message


def test_blanks_are_text_in_the_old_dialect() -> None:
    """The published validator takes them, so they are no error there."""
    old = CONTRACT.replace("schema_version: 2\n", "").replace('version: "1.0.0"', 'version: " "')
    old = old.replace("property: readings are right", 'property: " "').replace("if_fails: Look", 'if_fails: " " # Look')
    rules = {finding.rule for finding in check_content(old.encode(), "c.yaml").findings}
    assert rules.isdisjoint({"SCHEMA-002", "SCHEMA-005", "SCHEMA-008", "SCHEMA-009"})


@pytest.mark.parametrize("written", ["{id: %s, ", "{\"id\": '%s', ", "\n  id: %s  # its name\n  "])
def test_a_file_alone_knows_what_its_folder_has(written: str, tmp_path: Path) -> None:
    """By file or by id: nothing is called missing that is found when all are named."""
    rest = 'version: "1", description: d, references: [r], kind: pattern'
    other = f"metadata: {written % 'their own name'}{rest}}}\n"
    if "\n" in written:
        other = f"metadata:{written % 'their own name'}{rest.replace(', ', chr(10) + '  ')}\n"
    (tmp_path / "other.yaml").write_text(other)
    for name, expected in (("other", []), ("their own name", []), ("theirs", ["REF-005"])):
        (tmp_path / "one.yaml").write_text(f"metadata: {{{rest}, depends_on: [{name}]}}\n")
        for paths in ([tmp_path / "one.yaml"], [tmp_path]):
            assert [finding.rule for finding in validate(paths).findings] == expected


def test_in_a_folder_an_id_of_something_else_is_no_contract(tmp_path: Path) -> None:
    """What was read is known exactly, so only contracts' own names count."""
    rest = 'version: "1", description: d, references: [r], kind: pattern'
    (tmp_path / "other.yaml").write_text(f"metadata: {{{rest}}}\nproof_obligations: [{{id: OBL-1, property: p}}]\n")
    (tmp_path / "one.yaml").write_text(f"metadata: {{{rest}, depends_on: [OBL-1]}}\n")
    assert [finding.rule for finding in validate([tmp_path]).findings] == ["REF-005"]

"""The packaged JSON Schema: valid, within the engine's keywords, described, and in agreement with real contracts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from aprender.contracts.findings import did_you_mean
from aprender.contracts.reader import read_text

ROOT = Path(__file__).parents[2]
CORPUS = Path("/work/shared/corpus")
SCHEMA: dict[str, Any] = json.loads((ROOT / "aprender/contracts/schema/contract.schema.json").read_text("utf-8"))

ANNOTATIONS = {"title", "description", "default", "examples", "$comment", "deprecated"}
ASSERTIONS = {
    "type", "properties", "patternProperties", "required", "additionalProperties", "items", "enum", "const", "pattern",
    "minItems", "minLength", "maxLength", "minimum", "maximum", "oneOf", "anyOf", "$ref", "if", "then", "else",
}  # fmt: skip
ONLY_AT_THE_TOP = {"$schema", "$id", "$defs"}
MINIMAL_V2 = {
    "schema_version": 2,
    "metadata": {"version": "1.0.0", "description": "d", "references": ["r"]},
    "falsification_tests": [{"id": "F-1", "rule": "r", "prediction": "p", "if_fails": "i"}],
}
MINIMAL_PUBLISHED: dict[str, Any] = {"metadata": {"version": "1.0.0", "description": "d"}}


def subschemas(schema: dict[str, Any], path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema and every schema inside it, each with its JSON pointer."""
    yield path, schema
    for key in ("$defs", "properties", "patternProperties"):
        for name, inner in schema.get(key, {}).items():
            yield from subschemas(inner, f"{path}/{key}/{name}")
    for key in ("items", "additionalProperties", "if", "then", "else"):
        if isinstance(schema.get(key), dict):
            yield from subschemas(schema[key], f"{path}/{key}")
    for key in ("oneOf", "anyOf"):
        for index, inner in enumerate(schema.get(key, ())):
            yield from subschemas(inner, f"{path}/{key}/{index}")


ALL = dict(subschemas(SCHEMA))


def errors(document: Any) -> list[ValidationError]:
    """All violations in document order, unknown keys included."""
    return list(Draft202012Validator(SCHEMA).iter_errors(document))


def errors_beyond_unknown_keys(document: Any) -> list[str]:
    """What the published parser would refuse too: unknown keys are warnings there."""
    return [f"{e.json_path}: {e.message}" for e in errors(document) if e.validator != "additionalProperties"]


def document(path: Path) -> Any:
    """The file's data as our own reader gives it."""
    read, findings = read_text(path.read_text("utf-8"), str(path))
    assert read is not None, findings
    return read.data


def published(**blocks: Any) -> dict[str, Any]:
    """A contract of the published dialect with these blocks."""
    return {**MINIMAL_PUBLISHED, **blocks}


def known_keys(definition: str) -> set[str]:
    """The keys that a definition lists."""
    return set(SCHEMA["$defs"][definition]["properties"])


def test_the_schema_is_valid_draft_2020_12() -> None:
    """Editors and other validators can use the file as it is."""
    Draft202012Validator.check_schema(SCHEMA)


def test_every_keyword_is_one_that_the_engine_runs() -> None:
    """A keyword that the engine does not know would check nothing there and something in an editor."""
    foreign = {
        f"{path}: {key}"
        for path, schema in ALL.items()
        for key in schema.keys() - ANNOTATIONS - ASSERTIONS - (ONLY_AT_THE_TOP if path == "#" else set())
    }
    assert not foreign


def test_extension_keys_are_the_only_pattern() -> None:
    """``x-`` keys are free; no other pattern of keys exists."""
    patterns = [schema["patternProperties"] for schema in ALL.values() if "patternProperties" in schema]
    assert patterns
    assert all(pattern == {"^x-": {}} for pattern in patterns)


def test_every_closed_mapping_lets_extension_keys_in() -> None:
    """``x-...`` keys are free at any depth where keys are checked."""
    closed = [path for path, schema in ALL.items() if schema.get("additionalProperties") is False]
    assert len(closed) > 30
    assert not [path for path in closed if ALL[path].get("patternProperties") != {"^x-": {}}]


def test_every_mapping_with_listed_keys_is_closed() -> None:
    """A block that lists keys and lets any other through would hide a typo."""
    listing = {path: schema for path, schema in ALL.items() if "properties" in schema and "/if" not in path}
    assert [path for path, s in listing.items() if "additionalProperties" not in s] == [
        "#/$defs/contract_published/then"  # it only narrows keys that are listed beside it
    ]


def test_references_resolve_and_have_no_neighbours_but_a_description() -> None:
    """The engine replaces a ``$ref`` by its target, so that anything beside it would be lost."""
    references = {path: schema for path, schema in ALL.items() if "$ref" in schema}
    assert references
    for path, schema in references.items():
        assert schema.keys() <= {"$ref", "description"}, path
        assert schema["$ref"] in ALL, f"{path}: {schema['$ref']} does not exist"


def test_every_definition_is_used() -> None:
    """What nothing refers to is not part of the language."""
    used = {schema["$ref"] for schema in ALL.values() if "$ref" in schema}
    assert {f"#/$defs/{name}" for name in SCHEMA["$defs"]} == used


def test_every_property_is_described_in_a_sentence() -> None:
    """The descriptions are the reference documentation."""
    for path, schema in ALL.items():
        if "/if/" in path or path.split("/")[-2:-1] != ["properties"]:
            continue
        text = schema.get("description", "")
        assert text.endswith("."), f"{path}: {text!r}"
        assert text[0].isupper() or text[0].isdigit(), f"{path}: {text!r}"


def test_an_alternative_is_only_ever_something_or_nothing() -> None:
    """Errors inside ``anyOf`` can then be told from the branch that is not null."""
    alternatives = [schema for schema in ALL.values() if "anyOf" in schema or "oneOf" in schema]
    assert alternatives
    for schema in alternatives:
        assert "oneOf" not in schema
        assert len(schema["anyOf"]) == 2
        assert schema["anyOf"][1] == {"type": "null"}


def test_version_2_asks_for_all_that_the_published_dialect_asks_for() -> None:
    """A version 2 contract is never laxer than the old dialect, but where it says that words were put aside."""
    for name, schema in SCHEMA["$defs"].items():
        if name.endswith("_published"):
            strict = SCHEMA["$defs"][name.replace("_published", "_v2")]
            unless = strict.get("else", {}).get("required", [])
            assert strict.get("if", {"required": [f"x-{key}" for key in unless]})["required"] == [
                f"x-{k}" for k in unless
            ]
            assert {*schema.get("required", ())} <= {*strict.get("required", ()), *unless}, name


def test_version_2_has_every_typed_key_of_the_published_dialect() -> None:
    """All typed blocks exist in version 2; what is not there has another place or another name."""
    gone: dict[str, Any] = {}
    for name, schema in SCHEMA["$defs"].items():
        if name.endswith("_published"):
            typed = {k for k, s in schema["properties"].items() if s.keys() & {"type", "$ref", "anyOf"}}
            missing = typed - known_keys(name.replace("_published", "_v2"))
            gone |= {key: schema["properties"][key].get("deprecated") for key in missing}
    assert gone == dict.fromkeys(
        ["registry", "statement", "verification", "description", "expected", "command", "fails_if"], True
    )


def test_the_repositorys_own_contracts_are_valid() -> None:
    """The schema describes the contracts that this repository runs."""
    paths = sorted((ROOT / "contracts").glob("*.yaml"))
    assert paths
    for path in paths:
        assert not errors(document(path)), path


def test_schema_version_chooses_the_dialect() -> None:
    """The same block is an error in version 2 and an unknown key in the published dialect."""
    assert not errors(MINIMAL_V2)
    assert not errors(MINIMAL_PUBLISHED)
    assert [e.validator for e in errors({**MINIMAL_V2, "proof_obligation": []})] == ["additionalProperties"]
    assert [e.validator for e in errors(published(proof_obligation=[]))] == ["additionalProperties"]
    assert [e.validator for e in errors({**MINIMAL_V2, "schema_version": 3})] == ["const"]


@pytest.mark.parametrize("text", ["", "a text", "[1, 2]", "7"])
def test_what_is_no_mapping_is_no_contract(text: str) -> None:
    """An empty file, a list or a word has one finding: its type."""
    read, _ = read_text(text or "~", "x.yaml")
    assert read is not None
    assert [(e.validator, e.validator_value) for e in errors(read.data)] == [("type", "object")]


@pytest.mark.parametrize(
    "blocks",
    [
        {"x-team": {"any": ["thing"]}},
        {"amendments": [{"version": "2.0.0", "date": "2026-11-23", "reason": "r", "changes": ["F-1"]}]},
        {"equations": {"e": {"formula": "f", "assumes": {"shapes": {"q": {"dims": ["batch", "seq"]}}}, "x-note": 1}}},
        {"kernel_structure": {"phases": [{"name": "n", "description": "d"}]}},
        {"simd_dispatch": {"softmax": {"scalar": "softmax_scalar", "avx2": "softmax_avx2"}}},
        {"enforcement": {"rule": {"description": "d", "severity": "error"}}},
        {"verification_summary": {"total_obligations": 0}},
        {"type_invariants": [{"name": "n", "type": "T", "predicate": "self.len() > 0"}]},
        {"coq_spec": {"module": "M", "obligations": [{"links_to": "OBL-1", "coq_lemma": "l"}]}},
        {"beat": {"incumbent": "pytorch", "metric": "loss", "beat_threshold": 1.0, "direction": "lower_is_better"}},
        {"parity": {"rows": [{"entry_point": "apr run", "verdict": "WORSE"}], "coverage": {"steps": []}}},
        {"stories": [{"id": "S-1", "demand_score": 9, "status": "missing"}]},
        {"contract": "K-1", "status": "planned", "baseline": {"sync": 3}, "target": {"sync": 1}},
        {"metadata": {**MINIMAL_V2["metadata"], "changelog": ["one", {"version": "1", "change": "c"}]}},  # type: ignore[dict-item]
        {"metadata": {**MINIMAL_V2["metadata"], "changelog": {"1.0.0": ["first"]}}},  # type: ignore[dict-item]
    ],
    ids=lambda blocks: "-".join(blocks),
)
def test_version_2_has_the_typed_blocks_of_the_published_dialect(blocks: dict[str, Any]) -> None:
    """Each block is accepted in its smallest sensible form."""
    assert not errors({**MINIMAL_V2, **blocks})


@pytest.mark.parametrize(
    ("blocks", "place", "keyword"),
    [
        ({"kernel_structure": {"phases": [{"name": "n"}]}}, "$.kernel_structure.phases[0]", "required"),
        ({"simd_dispatch": {"softmax": {"scalar": 1}}}, "$.simd_dispatch.softmax.scalar", "type"),
        ({"enforcement": {"rule": {"descripton": "d"}}}, "$.enforcement.rule", "additionalProperties"),
        ({"verification_summary": {"l3_kani_proved": 1}}, "$.verification_summary", "required"),
        ({"coq_spec": {"module": "M", "import": []}}, "$.coq_spec", "additionalProperties"),
        ({"beat": {"baseline_value": "1.0"}}, "$.beat.baseline_value", "type"),
        ({"parity": {"rows": [{"verdict": "BEST"}]}}, "$.parity.rows[0].verdict", "enum"),
        ({"stories": [{"id": "S", "status": "done"}]}, "$.stories[0].status", "enum"),
        ({"amendments": [{"version": "2", "date": "2026-11-23", "reason": "r"}]}, "$.amendments[0]", "required"),
        ({"qa_gate": None}, "$.qa_gate", "type"),
    ],
)
def test_version_2_is_strict_inside_every_block(blocks: dict[str, Any], place: str, keyword: str) -> None:
    """A missing or mistyped key is found at its place, at any depth."""
    assert (place, keyword) in [(e.json_path, e.validator) for e in errors({**MINIMAL_V2, **blocks})]


@pytest.mark.parametrize(
    "blocks",
    [
        {"equations": None},
        {"equations": [{"id": "e", "formula": "f"}, {"formula": "g"}]},
        {"equations": {"e": {"domain": None, "assumes": None}}},
        {"proof_obligations": [{}]},
        {"proof_obligations": [{"statement": "s", "verification": None, "tolerance": None, "applies_to": "degree"}]},
        {"falsification_tests": [{"id": "F", "expected": "exit 0", "command": "cargo test", "ship_blocking": "yes"}]},
        {"kani_harnesses": [{"id": "K", "obligation": "", "bound": None, "strategy": None}]},
        {"qa_gate": None, "kernel_structure": None, "verification_summary": None, "coq_spec": None, "beat": None},
        {"qa_gate": {"must_pass": ["all"], "certeza": {"any": "thing"}}},
        {"parity": {"rows": [{"verdict": None}]}},
        {"status": ["no kaizen record"], "invariants": {"any": 1}},
    ],
)
def test_what_the_published_parser_accepts_is_accepted(blocks: dict[str, Any]) -> None:
    """Absent values may be null where the parser has an optional field; what it ignores may be anything."""
    assert not errors(published(**blocks))


@pytest.mark.parametrize(
    ("blocks", "place"),
    [
        ({"metadata": {"version": 1.0, "description": "d"}}, "$.metadata.version"),
        ({"metadata": {"version": "1"}}, "$.metadata"),
        ({"metadata": {"version": "1", "description": "d", "references": None}}, "$.metadata.references"),
        ({"metadata": {"version": "1", "description": "d", "kind": "kernels"}}, "$.metadata.kind"),
        ({"metadata": {"version": "1", "description": "d", "intake_status": "done"}}, "$.metadata.intake_status"),
        ({"equations": "E = m c^2"}, "$.equations"),
        ({"equations": {"e": None}}, "$.equations.e"),
        ({"proof_obligations": [{"type": "invariance"}]}, "$.proof_obligations[0].type"),
        ({"proof_obligations": [{"applies_to": ["all"]}]}, "$.proof_obligations[0].applies_to"),
        ({"proof_obligations": [{"lean": {"status": "proved"}}]}, "$.proof_obligations[0].lean"),
        ({"proof_obligations": [{"lean": {"theorem": "t", "status": "done"}}]}, "$.proof_obligations[0].lean.status"),
        ({"falsification_tests": [{"rule": "r"}]}, "$.falsification_tests[0]"),
        ({"falsification_tests": None}, "$.falsification_tests"),
        ({"kani_harnesses": [{"id": "K"}]}, "$.kani_harnesses[0]"),
        ({"kani_harnesses": [{"id": "K", "obligation": "o", "bound": -1}]}, "$.kani_harnesses[0].bound"),
        ({"kani_harnesses": [{"id": "K", "obligation": "o", "strategy": "x"}]}, "$.kani_harnesses[0].strategy"),
        ({"verification_summary": {}}, "$.verification_summary"),
        ({"enforcement": {"rule": {}}}, "$.enforcement.rule"),
        ({"parity": {"rows": [{"verdict": "BEST"}]}}, "$.parity.rows[0].verdict"),
        ({"metadata": {"version": "1", "description": "d", "kind": "kaizen"}, "status": ["a"]}, "$.status"),
    ],
)
def test_what_the_published_parser_refuses_is_refused(blocks: dict[str, Any], place: str) -> None:
    """Its parse errors are errors here, at the value that is wrong."""
    assert place in [
        error.json_path for error in errors(published(**blocks)) if error.validator != "additionalProperties"
    ]


@pytest.mark.parametrize(
    ("definition", "mistyped", "meant"),
    [
        ("contract_published", "falsification", "falsification_tests"),
        ("contract_published", "falsification_conditions", "falsification_tests"),
        ("contract_published", "falsificaton_tests", "falsification_tests"),
        ("contract_published", "obligations", "proof_obligations"),
        ("falsifier_published", "predicton", "prediction"),
        ("falsifier_published", "if_fail", "if_fails"),
        ("falsifier_published", "ship_blocker", "ship_blocking"),
        ("falsifier_published", "counter_examples_classes", "counter_example_classes"),
        ("obligation_published", "propertys", "property"),
    ],
)
def test_a_near_miss_of_a_key_that_matters_is_not_known(definition: str, mistyped: str, meant: str) -> None:
    """It gets its warning, and the suggestion is the key that was meant."""
    assert mistyped not in known_keys(definition)
    assert did_you_mean(mistyped, known_keys(definition)) == f" Did you mean '{meant}'?"


def accepted_in_february() -> list[Path]:
    """The corpus files of which the published validator said exit code 0."""
    rows = (line.split("\t") for line in (CORPUS / "verdicts-2026-02.tsv").read_text("utf-8").splitlines())
    return [CORPUS / row[0] for row in rows if len(row) > 1 and row[1] == "0"]


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"the corpus of real contracts ({CORPUS}) is not on this machine")
def test_real_contracts_that_the_published_validator_accepts_have_no_error() -> None:
    """Drop-in: unknown keys may be warned of, nothing else may be found."""
    paths = accepted_in_february()
    assert len(paths) > 150
    found = {str(path): errors_beyond_unknown_keys(document(path)) for path in paths}
    assert not {path: problems for path, problems in found.items() if problems}

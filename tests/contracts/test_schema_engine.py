"""The engine that runs the schema gives exactly what ``jsonschema`` gives, the reference that is too slow to ship."""

from __future__ import annotations

import copy
from pathlib import Path
from random import Random
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from aprender.contracts.reader import read_bytes
from aprender.contracts.schema import Compiler, Violation, contract_schema, violations
from tests.contracts.schema_instances import an_instance, mutate

ROOT = Path(__file__).parents[2]
CORPUS = ROOT.parent / "shared" / "corpus"
REFERENCE = Draft202012Validator(contract_schema())

Key = tuple[Any, ...]


def by_reference(error: ValidationError) -> set[Key]:
    """What ``jsonschema`` says: path, keyword, and for alternatives what each of them says."""
    path, keyword = tuple(error.absolute_path), str(error.validator)
    schema: Any = error.schema
    if keyword == "required":
        instance: Any = error.instance
        return {(*path, key, keyword) for key in schema["required"] if key not in instance}
    if keyword == "anyOf":
        branches: list[set[Key]] = [set() for _ in schema["anyOf"]]
        for nested in error.context or ():
            branches[int(nested.schema_path[0])] |= by_reference(nested)
        return {(*path, keyword, *map(frozenset, branches))}
    return {(*path, keyword)}


def by_engine(violation: Violation) -> Key:
    """The same of ours."""
    branches = [frozenset(map(by_engine, branch)) for branch in violation.branches]
    return (*violation.path, violation.keyword, *branches)


def assert_same(data: Any) -> bool:
    """Whether both find ``data`` wrong; they must not differ."""
    expected = {key for error in REFERENCE.iter_errors(data) for key in by_reference(error)}
    assert set(map(by_engine, violations(data))) == expected, data
    return bool(expected)


def test_both_engines_agree_on_ten_thousand_mutated_contracts() -> None:
    """Instances made from the schema itself, so that every key of both dialects occurs, each mutated a few times."""
    random, sound, wrong = Random(3), 0, 0  # noqa: S311 - a fixed sample
    for number in range(10_000):
        if number % 10 == 0:
            base = an_instance(random, version_2=number % 20 == 0)
            sound += not assert_same(base)
        data = copy.deepcopy(base)
        for _ in range(random.randint(1, 4)):
            mutate(data, random)
        wrong += assert_same(data)
    assert sound > 900, "most of the instances must be what the schema accepts (a kaizen record has more conditions)"
    assert 3_000 < wrong < 9_500, "the mutants are all alike: this test sees too little"


@pytest.mark.parametrize("data", [None, True, 3, "text", [], {}, {"schema_version": True}, {"schema_version": 2}])
def test_both_engines_agree_on_what_is_no_contract(data: Any) -> None:
    """Also where the root itself is wrong."""
    assert assert_same(data)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="../shared/corpus is not on this machine")
def test_both_engines_agree_on_real_contracts() -> None:
    """Every file of the corpus that can be read."""
    documents = [read_bytes(file.read_bytes(), str(file))[0] for file in sorted(CORPUS.rglob("*.yaml"))]
    read = [document.data for document in documents if document is not None]
    assert len(read) > 100
    for data in read:
        assert_same(data)


@pytest.mark.parametrize(
    "schema", [{"not": {}}, {"$ref": "#/$defs/a", "type": "object"}, {"properties": {"a": {"format": "date"}}}]
)
def test_a_keyword_that_the_engine_would_pass_over_is_an_error(schema: dict[str, Any]) -> None:
    """The schema can't ask for more than is checked."""
    with pytest.raises(ValueError, match="this engine"):
        Compiler(schema)

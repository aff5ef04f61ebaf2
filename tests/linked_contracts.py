# ruff: noqa: RUF001 - formulas are written with the characters that they are written with
"""Contracts that name one another, and the means to read contracts that no YAML file holds."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.documents import Documents
from aprender.contracts.schema_check import check_schema
from aprender.contracts.summarise import summary_of
from tests.contracts.schema_instances import an_instance, mutate

SCALE = """\
schema_version: 2
metadata: {version: "1.0.0", description: A scale., references: [x], kind: pattern, depends_on: [sensor-v1]}
equations:
  gain:
    formula: y_i = α * x_i
    domain: x ∈ ℝ^n, n ≥ 1
    codomain: y ∈ ℝ^n
    invariants: ["all are finite & real", "|y| >= 0"]
    preconditions: [x != 0]
    postconditions: [y != 0]
    assumes: {from_contract: sensor-v1, from_equation: reading}
  offset: {formula: "b\\n  = 2 {units}"}
proof_obligations:
  - {id: OBL-1, type: invariant, property: readings are right, applies_to: gain}
  - {id: OBL-2, type: invariant, property: "they are \\"exact\\""}
  - {id: OBL-3, type: invariant, property: never asked, applies_to: not_applicable, na_reason: r, na_owner: me}
code_under_contract: [scale.py]
falsification_tests:
  - id: F-1
    rule: readings are right
    prediction: p
    if_fails: look
    covers: [OBL-1]
    probe: probes:reading
    expect: [error < 0.1]
    counter_example_classes: [offset_forgotten, {class: fahrenheit}]
  - {id: F-2, rule: nobody asked, prediction: p, if_fails: look}
"""
SENSOR = """\
metadata: {version: "1.0.0", description: A sensor., references: [x], kind: pattern}
equations:
  - {id: reading, formula: r}
  - {id: drift_rate, formula: d}
  - {id: noise, formula: n}
falsification_tests:
  - {id: S-1, rule: reading, prediction: drift_rate and noise are small, if_fails: look}
proof_obligations:
  - {type: invariant, property: reads the room}
kani_harnesses:
  - {id: K-1, obligation: reads the room, bound: 2}
  - {id: K-2, obligation: another, bound: 2}
"""
IN_A_CIRCLE = {
    "a-v1": 'metadata: {version: "1", description: d, references: [x], kind: pattern, depends_on: [b-v1, gone-v1]}\n',
    "b-v1": 'metadata: {version: "1", description: d, references: [x], kind: pattern, parent_contracts: [c-v1]}\n',
    "c-v1": 'metadata: {version: "1", description: d, references: [x], kind: pattern, depends_on: [a-v1.yaml]}\n',
}


def write(folder: Path, contracts: dict[str, str]) -> Path:
    """Write ``contracts`` (text by stem) into ``folder``/contracts; returns ``folder``."""
    (folder / "contracts").mkdir(exist_ok=True)
    for name, text in contracts.items():
        (folder / "contracts" / f"{name}.yaml").write_text(text, "utf-8")
    return folder


def documents(*contracts: Any) -> Documents:
    """Any data as contracts, without values of the wrong shape, as the commands read them."""
    found = []
    for index, data in enumerate(contracts):
        document = Document(f"contracts/c{index}.yaml", "")
        document.data = data
        found.append(check_schema(document)[1])
    sound = tuple(document for document in found if isinstance(document.data, dict))
    return Documents(sound, tuple(map(summary_of, sound)), ())


def strange(seed: int) -> Documents:
    """Two contracts made from the schema and then damaged in twenty places."""
    random = Random(seed)  # noqa: S311 - for test data
    contracts = []
    for version_2 in (True, False):
        data = an_instance(random, version_2=version_2)
        for _ in range(20):
            mutate(data, random)
        contracts.append(data)
    return documents(*contracts)


def named(text: str) -> Documents:
    """One contract in which everything is called ``text``."""
    falsifier = {"id": text, "rule": text, "covers": [text], "counter_example_classes": [{"class": text}]}
    equation = dict.fromkeys(("formula", "domain", "codomain"), text) | {"invariants": [text]}
    return documents(
        {
            "metadata": {"depends_on": [text], "description": text},
            "equations": {text: equation | {"assumes": {"from_contract": text, "from_equation": text}}},
            "proof_obligations": [{"id": text, "property": text}],
            "falsification_tests": [falsifier],
            "kani_harnesses": [{"id": text, "obligation": text}],
        }
    )

"""``pv graph`` and ``pv coverage``: exact output, exit codes, both dialects, errors on the way."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from aprender.cli.pv import main
from tests.linked_contracts import IN_A_CIRCLE, SCALE, SENSOR, write

TEXT = """\
scale-v1  contracts/scale-v1.yaml
  depends on sensor-v1
  assumes shapes of sensor-v1, equation reading
  OBL-1: readings are right
    covered by F-1 must catch offset_forgotten, fahrenheit
  OBL-2: they are "exact"
  OBL-3: never asked
  F-2 (falsifier of no obligation)

sensor-v1  contracts/sensor-v1.yaml
  proof_obligations[0]: reads the room
    proved by K-1
  S-1 (falsifier of no obligation)
  K-2 (harness of no obligation)

orphans
  contracts/scale-v1.yaml:15:5: obligation OBL-2 is covered by no falsifier (they are "exact")
  contracts/scale-v1.yaml:27:5: falsifier F-2 covers no obligation (nobody asked)
  contracts/sensor-v1.yaml:7:5: falsifier S-1 covers no obligation (reading)
  contracts/sensor-v1.yaml:9:5: obligation proof_obligations[0] is covered by no falsifier (reads the room)

2 contracts, 4 obligations, 3 falsifiers, 2 harnesses, 2 defect classes: 0 cycles, 4 orphans
"""
DOT = """\
digraph contracts {
  rankdir=LR;
  subgraph cluster_0 {
    label="scale-v1";
    n0 [shape=component, label="scale-v1"];
    n2 [shape=box, label="OBL-1\\nreadings are right"];
    n3 [shape=box, label="OBL-2\\nthey are \\"exact\\""];
    n4 [shape=box, label="OBL-3\\nnever asked"];
    n5 [shape=ellipse, label="F-1\\nreadings are right"];
    n8 [shape=ellipse, label="F-2\\nnobody asked"];
  }
  subgraph cluster_1 {
    label="sensor-v1";
    n1 [shape=component, label="sensor-v1"];
    n9 [shape=box, label="proof_obligations[0]\\nreads the room"];
    n10 [shape=ellipse, label="S-1\\nreading"];
    n11 [shape=hexagon, label="K-1"];
    n12 [shape=hexagon, label="K-2"];
  }
  n6 [shape=note, label="offset_forgotten"];
  n7 [shape=note, label="fahrenheit"];
  n0 -> n1 [label="depends on"];
  n0 -> n1 [label="assumes: reading"];
  n2 -> n5;
  n5 -> n6;
  n5 -> n7;
  n9 -> n11;
}
"""
MERMAID = """\
flowchart LR
  subgraph c0["scale-v1"]
    n0[["scale-v1"]]
    n2["OBL-1<br/>readings are right"]
    n3["OBL-2<br/>they are #34;exact#34;"]
    n4["OBL-3<br/>never asked"]
    n5("F-1<br/>readings are right")
    n8("F-2<br/>nobody asked")
  end
  subgraph c1["sensor-v1"]
    n1[["sensor-v1"]]
    n9["proof_obligations#91;0#93;<br/>reads the room"]
    n10("S-1<br/>reading")
    n11(["K-1"])
    n12(["K-2"])
  end
  n6>"offset_forgotten"]
  n7>"fahrenheit"]
  n0 -->|"depends on"| n1
  n0 -->|"assumes#58; reading"| n1
  n2 --> n5
  n5 --> n6
  n5 --> n7
  n9 --> n11
"""
COVERAGE = """\
contracts/scale-v1.yaml:12:3: equation offset is named by no obligation and no falsifier (b = 2 {units})
contracts/scale-v1.yaml:15:5: obligation OBL-2 is covered by no falsifier (they are "exact")
contracts/scale-v1.yaml:27:5: falsifier F-2 has no probe (nobody asked)
contracts/sensor-v1.yaml:5:5: equation noise is named by no obligation and no falsifier (n)
contracts/sensor-v1.yaml:7:5: falsifier S-1 has no probe (reading)
contracts/sensor-v1.yaml:9:5: obligation proof_obligations[0] is covered by no falsifier (reads the room)

CONTRACT   OBLIGATIONS COVERED     EQUATIONS NAMED  FALSIFIERS WITH A PROBE  DEFECT CLASSES
scale-v1   1/2 (1 not applicable)  1/2              1/2                      2
sensor-v1  0/1                     2/3              0/1                      0
total      1/3 (1 not applicable)  3/5              1/3                      2
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with two contracts in ``contracts``."""
    monkeypatch.chdir(write(tmp_path, {"scale-v1": SCALE, "sensor-v1": SENSOR}))
    return tmp_path


@pytest.fixture
def pv(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run ``pv`` in this process; returns the exit code, standard output and standard error."""

    def run(*words: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as end:
            main(words)
        return end.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["graph"], TEXT),
        (["graph", "contracts", "--format", "text"], TEXT),
        (["graph", "--format", "dot"], DOT),
        (["graph", "--format", "mermaid"], MERMAID),
    ],
)
def test_the_graph_in_every_language(words: list[str], expected: str, pv: Any) -> None:
    """What covers what, what rests on what, and what nothing covers, in the order of the files."""
    assert pv(*words) == (0, expected, "")


def test_the_graph_as_json(pv: Any) -> None:
    """Nodes by key with their places, edges between keys."""
    code, out, err = pv("graph", "--json")
    assert (code, out, err) == pv("graph", "--format", "json")
    report = json.loads(out)
    assert (report["format_version"], report["exit_code"], report["cycles"]) == (1, 0, [])
    assert {
        "key": "contracts/scale-v1.yaml#/proof_obligations/1", "kind": "obligation", "name": "OBL-2",
        "text": 'they are "exact"', "contract": "contracts/scale-v1.yaml", "file": "contracts/scale-v1.yaml",
        "line": 15, "column": 5,
    } in report["nodes"]  # fmt: skip
    falsifier = "contracts/scale-v1.yaml#/falsification_tests/0"
    assert {"source": falsifier, "target": "class:fahrenheit", "kind": "must_catch", "note": ""} in report["edges"]
    keys = [node["key"] for node in report["nodes"]]
    assert len(keys) == len(set(keys))
    assert {edge[end] for edge in report["edges"] for end in ("source", "target")} <= set(keys)
    assert report["orphans"][0] == {
        "kind": "uncovered", "name": "OBL-2", "text": 'they are "exact"', "file": "contracts/scale-v1.yaml",
        "line": 15, "column": 5, "by": "",
    }  # fmt: skip


def test_a_cycle_is_named_in_order_and_what_does_not_exist_is_an_orphan(folder: Path, pv: Any) -> None:
    """Old dialect: warnings only, so the exit code is 0."""
    write(folder, IN_A_CIRCLE)
    paths = [f"contracts/{name}.yaml" for name in ("c-v1", "b-v1", "a-v1")]
    code, out, err = pv("graph", *paths)
    assert (code, err) == (0, "")
    assert out.splitlines()[-8:] == [
        "",
        "cycles",
        "  a-v1 -> b-v1 -> c-v1 -> a-v1",
        "",
        "orphans",
        "  contracts/a-v1.yaml:1:93: a-v1 names gone-v1, which does not exist",
        "",
        "3 contracts, 0 obligations, 0 falsifiers, 0 harnesses, 0 defect classes: 1 cycle, 1 orphan",
    ]
    assert json.loads(pv("graph", "--json", *paths)[1])["cycles"] == [[paths[2], paths[1], paths[0]]]


def test_a_contract_that_was_not_read_is_told_from_one_that_does_not_exist(folder: Path, pv: Any) -> None:
    """One stands beside it, the other nowhere."""
    write(folder, IN_A_CIRCLE)
    out = pv("graph", "contracts/a-v1.yaml")[1]
    assert "  depends on b-v1 (not read now)\n  depends on gone-v1 (missing)\n" in out
    assert "0 cycles, 1 orphan\n" in out


def test_a_contract_on_standard_input(pv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its places are in ``<stdin>``; nobody knows where it belongs, so what it names may well exist."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SCALE.encode())))
    code, out, err = pv("graph", "-")
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == ["standard input  <stdin>", "  depends on sensor-v1 (not read now)"]
    assert "  <stdin>:15:5: obligation OBL-2 is covered by no falsifier" in out


def test_an_id_that_no_obligation_has_is_an_orphan_and_an_error(folder: Path, pv: Any) -> None:
    """The error in one line, the graph of the rest, exit code 1."""
    write(folder, {"scale-v1": SCALE.replace("covers: [OBL-1]", "covers: [OBL-9]")})
    code, out, err = pv("graph")
    assert code == 1
    assert err.splitlines() == [
        "pv: contracts/scale-v1.yaml:23:14: error REF-001 no proof obligation 'OBL-9'. Did you mean 'OBL-3'?"
        " Known: OBL-1, OBL-2, OBL-3"
    ]
    assert "  contracts/scale-v1.yaml:23:14: F-1 names OBL-9, which does not exist\n" in out


@pytest.mark.parametrize("command", ["graph", "coverage"])
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("metadata: {\n", "YAML-001"),
        ("metadata: [\x00]\n", "YAML-001"),
        ("[a, list]\n", "SCHEMA-102 the contract must be a mapping, not a list"),
        ("", "YAML-001"),
    ],
)
def test_a_contract_that_can_not_be_read_hides_no_other(
    command: str, broken: str, message: str, folder: Path, pv: Any
) -> None:
    """It is said, it is in no count, and the exit code is 1."""
    whole = pv(command)[1]
    write(folder, {"z-v1": broken})
    code, out, err = pv(command)
    assert (code, out) == (1, whole)
    assert err.startswith("pv: contracts/z-v1.yaml:")
    assert message in err


@pytest.mark.parametrize("command", ["graph", "coverage"])
def test_where_there_is_no_contract_there_is_nothing_to_do(command: str, folder: Path, pv: Any) -> None:
    """Exit code 2, one sentence."""
    (folder / "empty").mkdir()
    code, out, err = pv(command, "empty")
    assert (code, out) == (2, "")
    assert err == "pv: empty: no contract found (looked for *.yaml and *.yml); is this the right folder?\n"


def test_the_paths_of_the_project_hold_here_too(folder: Path, pv: Any) -> None:
    """``[tool.pv]`` as for ``pv validate``."""
    (folder / "contracts").rename(folder / "promises")
    (folder / "pyproject.toml").write_text('[tool.pv]\npaths = ["promises"]\n')
    for command in ("graph", "coverage"):
        code, out, _ = pv(command)
        assert code == 0
        assert "promises/scale-v1.yaml" in out


def test_coverage_has_denominators_and_names_what_is_left_over(pv: Any) -> None:
    """Gaps are no failure."""
    assert pv("coverage") == (0, COVERAGE, "")


def test_coverage_as_json(pv: Any) -> None:
    """The same numbers; what is not applicable is in no denominator."""
    report = json.loads(pv("coverage", "--json")[1])
    assert report["total"] == {
        "obligations_covered": {"held": 1, "total": 3}, "obligations_not_applicable": 1,
        "equations_named": {"held": 3, "total": 5}, "falsifiers_with_probe": {"held": 1, "total": 3},
        "defect_classes": ["fahrenheit", "offset_forgotten"],
    }  # fmt: skip
    assert [one["file"] for one in report["contracts"]] == ["contracts/scale-v1.yaml", "contracts/sensor-v1.yaml"]
    assert report["contracts"][1]["gaps"][0] == {
        "kind": "equation", "name": "noise", "text": "n", "file": "contracts/sensor-v1.yaml", "line": 5, "column": 5,
    }  # fmt: skip
    assert report["exit_code"] == 0


def test_coverage_of_contracts_that_state_nothing_is_nothing_to_do(folder: Path, pv: Any) -> None:
    """0 of 0 is no report."""
    write(folder, IN_A_CIRCLE)
    code, out, err = pv("coverage", "contracts/a-v1.yaml")
    assert (code, out) == (2, "")
    assert err == "pv: no obligation, equation or falsifier in 1 contract: nothing to cover\n"

"""The bench of source mutants: what is mutated and what is not, that mutants are what runs, and how they are counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("mutmut", reason="source mutants are mutmut's: pip install 'aprender[dev]'")

from bench import source_mutants
from bench.mutant import Mutant, modules_below, mutants, stratified
from bench.mutant_runs import PATH, Result
from bench.shares import interval
from bench.source_mutants import Record, equivalents, summary

ROOT = Path(__file__).parents[1]

REFUSING = '''"""A module."""

from __future__ import annotations

Stage = Callable[[int], int]
__all__ = ["f"]


@decorated(1)
def f(x: Literal[1]) -> Literal[2]:
    """Say 1."""
    if x < 1:
        y = x + 1
        raise ValueError(f"{x} is less than {1}")
    check_shape("f", x, 1)
    self._check(1)
    return x


def check_shape(x: int) -> None:
    y = x + 1
'''

RUNS = """
import json, sys, tempfile
from pathlib import Path
from aprender.contracts.load import load
from bench.mutant_runs import Forks, Job
from bench.source_mutants import ROOT, prepared

prepared("cpu")
contract = load([ROOT / "contracts" / "apr-pretrain-cuda-forward-parity-v1.yaml"]).contracts[0]
biases = next(f for f in contract.falsifiers if f.id == "FALSIFY-CUDA-FORWARD-PARITY-002")
build = (ROOT / "aprender/transformer/cuda/build.py").read_text()
edits = {
    "none": {},
    "no biases": {"build.py": build.replace("torch.cat(biases) if biases else None", "None")},
    "crash": {"build.py": build.replace('HEAD = "lm_head.weight"', "HEAD = 1 / 0")},
    "endless": {"build.py": build.replace('HEAD = "lm_head.weight"', "while True: pass")},
    "killed": {"build.py": build.replace('HEAD = "lm_head.weight"', "import os; os.kill(os.getpid(), 9)")},
}
assert all(edit != {"build.py": build} for edit in edits.values())
with tempfile.TemporaryDirectory() as folder:
    forks = Forks(ROOT, Path(folder), "cpu", 2)
    jobs = ((name, Job(edit, [((contract, biases), 4.0 if name == "endless" else 120.0)])) for name, edit in edits.items())
    print(json.dumps({name: result[:3] for name, result in forks.run(jobs)}))
    assert not list(Path(folder).iterdir())
"""


def after(source: str) -> set[str]:
    """The lines that the mutants of a module have."""
    return {mutant.after for mutant in mutants("m.py", source)}


def test_what_computes_is_mutated() -> None:
    assert after("def f(a, b):\n    return a * b if g(a, 1) else -a\n") == {
        *("return a / b if g(a, 1) else -a", "return a * b if g(a, 1) else +a", "return a * b if g(a, 2) else -a"),
        *("return a * b if g(None, 1) else -a", "return a * b if g(a, None) else -a"),
        *("return a * b if g(1) else -a", "return a * b if g(a, ) else -a"),
        *("return a * b if (g(a, 1)) and False else -a", "return a * b if (g(a, 1)) or True else -a"),
    }


def test_refusals_types_and_words_are_not() -> None:
    assert after(REFUSING) == set()
    assert after("if x < 1:\n    y = 1\nelse:\n    raise ValueError(1)\n") == {
        "if x <= 1:",
        "if x < 2:",
        "y = 2",
        "y = None",
    }


def test_a_mutant_says_where_it_is_and_is_told_from_its_twin() -> None:
    source = "class A:\n    def f(self, x):\n        if x:\n            return (1 +\n                x)\n        return (1 +\n            x)\n"
    found = [mutant for mutant in mutants("m.py", source) if mutant.operator == "number"]
    assert [mutant[:6] for mutant in found] == [
        ("m.py", "A.f", "number", "return (1 +", "return (2 +", 0),
        ("m.py", "A.f", "number", "return (1 +", "return (2 +", 1),
    ]
    assert found[1].source == source[::-1].replace("1", "2", 1)[::-1]
    assert found[1].diff(source).splitlines()[-4:] == [
        *("                 x)", "-        return (1 +", "+        return (2 +", "             x)"),
    ]


def test_every_mutant_of_a_kernel_module_is_another_program() -> None:
    source = (ROOT / "aprender/transformer/cuda/ops/rope.py").read_text("utf-8")
    found = mutants("ops/rope.py", source)
    assert len(found) > 150
    assert len({mutant.name for mutant in found}) == len({mutant.source for mutant in found} - {source}) == len(found)
    assert sum(mutant.after.startswith(source_mutants.KNOWN_BAD[1]) for mutant in found) == 1


def test_what_repairs_the_interpreter_is_no_part_of_the_cuda_path() -> None:
    found = modules_below(ROOT / PATH)
    assert {"model.py", "ops/rope.py", "ops/runtime.py"} <= set(found)
    assert not [module for module in found if "interpreter" in module]


def mutant_of(module: str, number: int) -> Mutant:
    return Mutant(module, "f", "number", str(number), str(number + 1), 0, f"{number + 1}\n")


def test_every_beginning_of_a_sample_holds_the_modules_in_proportion() -> None:
    ordered = stratified([[mutant_of("a.py", i) for i in range(30)], [mutant_of("b.py", i) for i in range(10)]])
    assert len(ordered) == 40
    for size in (4, 20, 36):
        assert sum(mutant.module == "b.py" for mutant in ordered[:size]) == size // 4


def test_mutants_are_what_runs_and_what_ends_them_is_told_apart() -> None:
    done = subprocess.run([sys.executable, "-c", RUNS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: result[0] for name, result in found.items()} == {
        "none": "GREEN",
        "no biases": "RED",
        "crash": "ERROR",
        "endless": "TIMEOUT",
        "killed": "ERROR",
    }
    assert {result[1] for result in found.values()} == {"FALSIFY-CUDA-FORWARD-PARITY-002"}
    assert "ZeroDivisionError" in found["crash"][2]
    assert found["killed"][2].startswith("the process ended with -9")


def result(verdict: str) -> Result:
    return Result(verdict, "" if verdict == "GREEN" else "FALSIFY-1", "why", {"FALSIFY-1": 1.0})


def counted(verdicts: str, listed: dict[Any, str]) -> tuple[str, float]:
    """The summary on mutants 0, 1, ... of one module, of which there is one more; they ended as ``verdicts`` say."""
    all_of_them = [mutant_of("a.py", i) for i in range(len(verdicts.split()) + 1)]
    record = Record(None, {})
    for mutant, verdict in zip(all_of_them, verdicts.split(), strict=False):
        record.add(mutant, result(verdict), f"diff of {mutant.before}\n")
    return summary(record, all_of_them, len(all_of_them), listed)


def test_survivors_are_shown_and_equivalent_ones_are_not_counted() -> None:
    text, share = counted("RED ERROR TIMEOUT GREEN GREEN", {("a.py", "f", "4", "5"): "the same"})
    assert "SURVIVED\ndiff of 3\n" in text
    assert "diff of 4" not in text
    assert "5 of 6 mutants run, 1 wanted and not run" in text
    assert "killed: 3 of 4 that are not equivalent, 75.0% (95% interval 30.1% to 95.4%)" in text
    assert "killed by RED alone, without those that crash or never end: 50.0%" in text
    assert share == 0.75


def test_a_killed_mutant_that_is_listed_as_equivalent_fails_the_bench() -> None:
    text, share = counted("RED RED", {("a.py", "f", "0", "1"): "the same"})
    assert "LISTED AS EQUIVALENT AND KILLED a.py f: number: 0 -> 1 #0: RED by FALSIFY-1: why" in text
    assert share == 0.0


def test_the_interval_of_a_share_is_the_published_one() -> None:
    """Brown, Cai and DasGupta 2001: never outside 0 to 1, and not of no width where all are hits."""
    assert interval(0, 0) == (0.0, 0.0, 1.0)
    assert interval(98, 100) == pytest.approx((0.9300, 0.98, 0.9945), abs=1e-4)
    assert interval(100, 100) == pytest.approx((0.9630, 1.0, 1.0), abs=1e-4)


def test_results_on_disk_are_taken_up_again_but_not_those_of_other_code(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.touch()  # as mktemp leaves it
    Record(file, {"code": "1"}).add(mutant_of("a.py", 0), result("GREEN"), "its diff\n")
    again = Record(file, {"code": "1"})
    assert [(entry["verdict"], entry["diff"]) for entry in again.entries.values()] == [("SURVIVED", "its diff\n")]
    with pytest.raises(SystemExit, match="results of other code"):
        Record(file, {"code": "2"})


def test_what_is_listed_as_equivalent_exists_and_is_told_by_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "equivalent.yaml"
    entry = "{reason: the same, device: cpu, mutants: [[a.py, f, '0', '1']]}"
    listed.write_text(f"- {entry}\n", "utf-8")
    monkeypatch.setattr(source_mutants, "EQUIVALENT", listed)
    known = [mutant_of("a.py", 0)]
    assert equivalents("cpu", known) == {("a.py", "f", "0", "1"): "the same"}
    assert equivalents("cuda", known) == {}
    with pytest.raises(SystemExit, match="no such mutant"):
        equivalents("cpu", [mutant_of("a.py", 1)])
    listed.write_text("- {reason: not read, mutants: [[a.py, f, '0']]}\n", "utf-8")
    twin = known[0]._replace(after="2")
    assert equivalents("cpu", [*known, twin, mutant_of("a.py", 1)]) == {
        ("a.py", "f", "0", "1"): "not read",
        ("a.py", "f", "0", "2"): "not read",
    }


def test_the_committed_list_is_of_lines_that_there_are() -> None:
    """That there are such mutants of them the bench checks, before it runs any."""
    for entry in yaml.safe_load(source_mutants.EQUIVALENT.read_text("utf-8")):
        assert entry["reason"]
        for module, _, before, *_ in entry["mutants"]:
            lines = (ROOT / PATH / module).read_text("utf-8").splitlines()
            assert before in " ".join(line.strip() for line in lines)

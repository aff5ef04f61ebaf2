"""A falsifier whose device fails is ERROR with the remedy; the others run, and what was recorded stays."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aprender.falsify.probe import Options
from aprender.falsify.record import FalsifierRun, Outcome
from aprender.falsify.run import Runner
from aprender.falsify.verdict import Verdict
from tests.toy_project import Project

torch = pytest.importorskip("torch")

NOT_ON_A_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled for CUDA in this process")

# The falsifier of the toy project three times: before, with what fails, and after.
THREE = """\
  - id: FALSIFY-T-001
    rule: Readings are right
    prediction: The reading differs from the room by less than a tenth of a degree.
    if_fails: Look at the calibration table.
    ship_blocking: true
    probe: toyprobes.reading:reading
    with: {{room: {room}}}
    expect:
      - abs(reading - room) < 0.1
    guards:
      - samples >= 2
    counter_example_classes:
      - offset_forgotten
"""
HELD = """
class Held:
    alive = 0
    def __init__(self):
        Held.alive += 1
        self.cycle = self  # nothing but the garbage collector frees it
    def __del__(self):
        Held.alive -= 1

"""
OUT_OF_MEMORY = "held = Held(); import torch; torch.empty(2**50, dtype=torch.uint8)"
BUSY = "import torch; raise torch.AcceleratorError('CUDA error: CUDA-capable device(s) is/are busy or unavailable\\nx')"
LOST = "import torch; raise torch.AcceleratorError('CUDA error: an illegal memory access was encountered\\nx')"
BROKEN = (
    "import torch; from aprender.transformer.cuda.ops.runtime import launch; from tests.broken_kernels import "
    "unlike_shapes; launch(unlike_shapes, (1,), torch.ones(64))"
)


def three(project: Project, statement: str) -> tuple[Runner, list[FalsifierRun]]:
    """Three falsifiers of one run; ``statement`` runs in the second one's probe."""
    path = project.contract_path
    head, _, _ = path.read_text().partition("  - id: FALSIFY-T-001")
    blocks = [THREE.format(room=room).replace("T-001", f"T-00{i}") for i, room in enumerate((21.5, 13.0, 17.0), 1)]
    path.write_text(head + "".join(blocks))
    project.edit_probes("class Room:", f"{HELD}\nclass Room:")
    project.edit_probes("    value =", f"    if room == 13.0:\n        {statement}\n    value =")
    contract = project.contract()
    runner, runs = Runner(Options("cpu", None)), []
    for falsifier in contract.falsifiers:
        runs.append(runner.run(contract, falsifier))
        runner.record(runs[-1])
    return runner, runs


@pytest.mark.parametrize(
    ("statement", "said", "remedy"),
    [
        (OUT_OF_MEMORY, "out of memory (1125899906842624 bytes were asked for)", "use fewer rows or positions"),
        ("raise MemoryError", "out of memory", "a machine with more memory"),
        (BUSY, "the GPU is busy", "CUDA_VISIBLE_DEVICES"),
        (LOST, "a kernel failed on the GPU", "start it anew"),
        pytest.param(
            BROKEN, "unlike_shapes: the kernel fails in triton's interpreter", "install a triton", marks=NOT_ON_A_GPU
        ),
    ],
)
def test_one_falsifier_is_error_and_the_others_go_on(statement: str, said: str, remedy: str, project: Project) -> None:
    _, runs = three(project, statement)
    assert [run.verdict for run in runs] == [Verdict.GREEN, Verdict.ERROR, Verdict.GREEN], [r.reason for r in runs]
    assert said in runs[1].reason
    assert remedy in runs[1].reason
    assert "\n" not in runs[1].reason
    ledgers = list((project.root / "evidence").rglob("*.jsonl"))
    recorded = "".join(path.read_text() for path in ledgers)
    assert [f'"FALSIFY-T-00{i}"' in recorded for i in (1, 2, 3)] == [True] * 3, "what was found out is kept, each of it"


def test_what_the_failed_probe_held_is_free_for_the_next(project: Project) -> None:
    """Though Python's garbage collector did not happen to run; the falsifier after it has a system opened anew."""
    gc.disable()
    try:
        runner, runs = three(project, OUT_OF_MEMORY)
        assert sys.modules["toyprobes.reading"].Held.alive == 0
    finally:
        gc.enable()
    assert runs[2].verdict is Verdict.GREEN
    assert len(runner.observer._systems) == 1


def test_systems_are_let_go_when_the_device_fails(project: Project) -> None:
    """Right after the fault nothing is open; an ordinary crash leaves the system open for the next falsifier."""
    for statement, left in ((OUT_OF_MEMORY.partition("; ")[2], 0), ("raise ValueError('mine')", 1)):
        project.edit_probes("    value =", f"    {statement}\n    value =")
        contract = project.contract()
        runner = Runner(Options("cpu", None))
        run = runner.run(contract, contract.falsifiers[0])
        assert run.verdict is Verdict.ERROR
        assert len(runner.observer._systems) == left, run.reason
        project.edit_probes(f"    {statement}\n    value =", "    value =")


def test_out_of_memory_under_a_planted_defect_is_a_crash_and_no_catch(project: Project) -> None:
    project.edit_probes("    value =", f"    if system.offset == 0: {OUT_OF_MEMORY.partition('; ')[2]}\n    value =")
    run = project.run()
    assert run.verdict is Verdict.UNPROVEN
    crashed, caught = run.witnesses
    assert (crashed.outcome, caught.outcome) == (Outcome.CRASHED, Outcome.CAUGHT)
    assert "out of memory (1125899906842624 bytes were asked for)" in crashed.detail


def test_out_of_memory_when_the_system_is_opened(project: Project) -> None:
    project.edit_probes("return Room(options.device)", f"{OUT_OF_MEMORY.partition('; ')[2]}")
    run = project.run()
    assert run.verdict is Verdict.ERROR
    assert "the probe's system failed: out of memory (1125899906842624 bytes" in run.reason
    assert "toyprobes/reading.py:" in run.reason


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
from pathlib import Path
from aprender.contracts.load import load
from aprender.falsify.cache import ObservationCache
from aprender.falsify.probe import Options
from aprender.falsify.run import Runner
ObservationCache.get = lambda *arguments: None  # what an earlier run observed with triton says nothing here
ObservationCache.put = lambda *arguments: None
loaded = load(sorted(Path("contracts").glob("*.yaml")))
runner = Runner(Options("cpu", None))
for contract in loaded.contracts:
    for falsifier in contract.falsifiers:
        if falsifier.id in sys.argv:
            run = runner.run(contract, falsifier)
            print(falsifier.id, run.verdict, run.reason)
"""


def test_without_triton_what_needs_it_is_error_and_the_rest_runs() -> None:
    root = Path(__file__).parents[2]
    need = ["FALSIFY-CUDA-FORWARD-PARITY-002", "FALSIFY-CUDA-LAWS-001", "FALSIFY-CUDA-OPERATOR-PARITY-001"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRITON, *need, "FALSIFY-WEIGHT-LOADING-004"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    for line in lines[:3]:
        assert " ERROR " in line
        assert "triton" in line
        assert "pip install" in line
    assert lines[3].split()[1] == "GREEN"

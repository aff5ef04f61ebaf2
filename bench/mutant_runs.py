"""One mutant, one process: a copy of the CUDA path with the edit in it, imported afresh, and the contracts run on it.

The process that forks has imported torch and triton, and nothing that imports the CUDA path; it never touches a GPU.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aprender.contracts.contract import Contract, Falsifier
from aprender.falsify.bind import bind
from aprender.falsify.judge import judge
from aprender.falsify.probe import Options, System
from aprender.falsify.verdict import Verdict

PACKAGE = "aprender.transformer.cuda"
PATH = "aprender/transformer/cuda"

Check = tuple[Contract, Falsifier]


class Result(NamedTuple):
    """GREEN, RED, ERROR or TIMEOUT; which falsifier said so, and why; the seconds of each that ran."""

    verdict: str
    falsifier: str
    reason: str
    seconds: Mapping[str, float]


class Job(NamedTuple):
    """One process's work: the files that differ from the tree's, and the falsifiers, with the seconds each may take."""

    edits: Mapping[str, str]
    checks: Sequence[tuple[Check, float]]


class Forks:
    """Runs up to ``processes`` jobs at a time, each in a child with a folder of its own below ``folder``."""

    def __init__(self, root: Path, folder: Path, device: str, processes: int) -> None:
        self.root, self.folder, self.device, self.processes = root, folder, device, processes
        self._running: dict[int, tuple[Any, Path]] = {}
        self._started = 0

    def run(self, jobs: Iterable[tuple[Any, Job]]) -> Iterator[tuple[Any, Result]]:
        """Each job's key and result, as they end. A job is asked for when a process is free."""
        for key, job in jobs:
            self._start(key, job)
            if len(self._running) == self.processes:
                yield self._ended()
        while self._running:
            yield self._ended()

    def _start(self, key: Any, job: Job) -> None:
        self._started += 1
        folder = self.folder / str(self._started)
        shutil.copytree(self.root / PATH, folder / "cuda", ignore=shutil.ignore_patterns("__pycache__"))
        for module, source in job.edits.items():
            (folder / "cuda" / module).write_text(source, "utf-8")
        if child := os.fork():
            self._running[child] = key, folder
            return
        code = 1
        try:
            _child(job, folder, self.device)
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it was, this process must not go on as its parent
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _ended(self) -> tuple[Any, Result]:
        child, status = os.wait()
        key, folder = self._running.pop(child)
        result = _result(folder, os.waitstatus_to_exitcode(status))
        shutil.rmtree(folder)
        return key, result


def _result(folder: Path, code: int) -> Result:
    """What the child wrote before it ended, or what ended it."""
    file = folder / "steps.jsonl"
    steps = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    seconds = {step["id"]: step["seconds"] for step in steps if "seconds" in step}
    last = steps[-1] if steps else {"id": "no falsifier began"}
    if code == -signal.SIGALRM:
        return Result("TIMEOUT", last["id"], "took longer than it may", seconds)
    if code or "verdict" not in last:
        said = (folder / "output.txt").read_text(errors="replace").strip().splitlines()[-1:]
        return Result("ERROR", last["id"], f"the process ended with {code}: {' '.join(said)}", seconds)
    return Result(last["verdict"], last["id"], last["reason"], seconds)


def _child(job: Job, folder: Path, device: str) -> None:
    """Run the falsifiers in order, up to the first that is not GREEN; a line is written before and after each."""
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.dont_write_bytecode = True
    importlib.import_module("aprender.transformer").__path__.insert(0, str(folder))
    systems: dict[int, System] = {}
    with (folder / "steps.jsonl").open("w", buffering=1) as steps:
        for (contract, falsifier), limit in job.checks:
            steps.write(json.dumps({"id": falsifier.id}) + "\n")
            signal.setitimer(signal.ITIMER_REAL, limit)
            start = time.monotonic()
            verdict, reason = _verdict(contract, falsifier, device, systems)
            signal.setitimer(signal.ITIMER_REAL, 0)
            step = {"id": falsifier.id, "verdict": verdict, "reason": reason, "seconds": time.monotonic() - start}
            steps.write(json.dumps(step) + "\n")
            if verdict != Verdict.GREEN.value:
                return
        own = Path(str(sys.modules[PACKAGE].__file__))
        if not own.is_relative_to(folder):
            raise RuntimeError(f"{own} ran, not the mutant in {folder}")


def _verdict(contract: Contract, falsifier: Falsifier, device: str, systems: dict[int, System]) -> tuple[str, str]:
    """What ``pv run`` makes of the clean system, without evidence and without planting anything."""
    try:
        probe = bind(contract, falsifier)
        if id(probe.system) not in systems:
            systems[id(probe.system)] = probe.system.open(Options(device, None))
        system = systems[id(probe.system)]
        observation = probe.function(system, **falsifier.arguments)
        system.facts()
        judgement = judge(falsifier, observation.values, probe.observes)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a mutant may raise anything
        return Verdict.ERROR.value, f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    return judgement.verdict.value, judgement.reason[:300]

"""Hold the contracts of the CUDA path against arbitrary edits: mutmut's mutants of its source, one at a time.

python -m bench.source_mutants [--device cpu|cuda] [--processes N] [--sample N] [--seed S] [--seconds LIMIT]
                               [--module NAME]... [--json OUT]

Every mutant is a copy of aprender/transformer/cuda with one edit. The falsifiers of the five contracts observe it as
``pv run`` would, without planted defects, in the order of what they cost and have killed, up to the first that is not
GREEN. A survivor is printed as a diff. Those that compute the same are listed in bench/equivalent_mutants.yaml, each
with the reason of someone who looked; they are run all the same, and one that is killed is an error in that file.
``--sample`` takes N mutants, from every module in proportion; so is what ``--seconds`` leaves undone. Results in OUT
(JSON lines) are not run again. Needs: pip install 'aprender[dev]'. Exits with 1 when less than 95% was killed, or a
listed one was.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from aprender.contracts.load import load
from aprender.falsify.digest import files_digest
from bench.mutant import Mutant, modules_below, mutants, stratified
from bench.mutant_runs import PATH, Check, Forks, Job, Result
from bench.shares import interval

ROOT = Path(__file__).parents[1]
CONTRACTS = ("apr-pretrain-cuda-forward-parity", "cuda-composition", "cuda-decode", "cuda-laws", "cuda-operator-parity")
EQUIVALENT = ROOT / "bench" / "equivalent_mutants.yaml"
WANTED = 0.95
LONGEST = 400.0  # seconds that a falsifier may take at first, with its kernels to compile
# A mutant that must be RED, or the mutants' source is not what runs.
KNOWN_BAD = ("ops/rope.py", "tl.store(target, (a * angle_cos + b * angle_sin)")
# Imported once, before any process is forked. Nothing of it imports the CUDA path.
SHARED = ("torch", "triton", "aprender.formats", "aprender.parity.compare", "aprender.transformer.oracle")
OUTCOMES = ("RED", "ERROR", "TIMEOUT", "SURVIVED", "EQUIVALENT")
# What results hold for: the code that is mutated, and all that judges it.
WATCHED = (
    *("aprender/transformer/**/*.py", "aprender/formats/**/*.py", "aprender/falsify/**/*.py"),
    *("aprender/parity/**/*.py", "aprender/parity/*.json", "falsifiers/*.py", "contracts/*cuda*.yaml"),
)
Key = tuple[str, str, str, str]


def equivalents(device: str, known: Iterable[Mutant]) -> dict[Key, str]:
    """Why mutants that are listed compute the same on ``device``. Exits where one is listed that is not ``known``."""
    reasons: dict[Key, str] = {}
    keys = {key_of(mutant) for mutant in known}
    for entry in yaml.safe_load(EQUIVALENT.read_text("utf-8")):
        for listed in entry["mutants"]:
            found = [key for key in keys if key[: len(listed)] == tuple(listed)]
            if not found:
                sys.exit(f"{EQUIVALENT.name}: no such mutant, look again: {' | '.join(listed)}")
            if entry.get("device", device) == device:
                reasons |= dict.fromkeys(found, entry["reason"])
    return reasons


def key_of(mutant: Mutant) -> Key:
    """How a mutant is named in the list of equivalent ones."""
    return mutant.module, mutant.function, mutant.before, mutant.after


def shuffled(of: Sequence[Mutant], seed: int) -> list[Mutant]:
    """A module's mutants in an order that no other module has a say in."""
    draw = random.Random(f"{seed} {of[0].module if of else ''}")  # noqa: S311 - the order is no secret
    return draw.sample(of, len(of))


class Session:
    """The falsifiers, and what each cost and killed."""

    def __init__(self, forks: Forks, checks: Sequence[Check]) -> None:
        self.forks, self.checks = forks, checks
        self.limits: dict[str, float] = {check[1].id: LONGEST for check in checks}
        self.seconds: dict[str, float] = {}
        self.kills: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def control(self, known_bad: Mutant) -> None:
        """Run every falsifier on the unmutated tree, and all on the mutant that must be RED. Exits where they differ.

        On a GPU every falsifier runs twice: the first time also compiles kernels, as a mutant may have to.
        """
        cold = self._unmutated()
        self.limits = {falsifier: 30 + 5 * seconds for falsifier, seconds in cold.items()}
        self.seconds = self._unmutated() if self.forks.device == "cuda" else cold
        print(f"{len(self.checks)} falsifiers GREEN without mutants, in {sum(self.seconds.values()):.0f} s", flush=True)
        ((_, result),) = self.forks.run([(None, self.job(known_bad))])
        print(f"{result.verdict} by {result.falsifier}: {known_bad.name}", flush=True)
        if result.verdict != "RED":
            sys.exit("this mutant must be RED and is not: mutants are not what runs")

    def _unmutated(self) -> dict[str, float]:
        """The seconds of each falsifier, in a process of its own."""
        jobs = ((check[1].id, Job({}, [(check, self.limits[check[1].id])])) for check in self.checks)
        seconds: dict[str, float] = {}
        for falsifier, result in self.forks.run(jobs):
            if result.verdict != "GREEN":
                sys.exit(f"{falsifier} is {result.verdict} without any mutant: {result.reason}")
            seconds |= result.seconds
        return seconds

    def job(self, mutant: Mutant) -> Job:
        """All falsifiers on a mutant: first what is cheap and has killed in its module."""
        kills = self.kills[mutant.module]
        order = sorted(self.checks, key=lambda check: self.seconds[check[1].id] / (1 + kills[check[1].id]))
        return Job({mutant.module: mutant.source}, [(check, self.limits[check[1].id]) for check in order])

    def run(self, wanted: Sequence[Mutant], seconds: float) -> Iterator[tuple[Mutant, Result]]:
        """Results as they come; after ``seconds`` no further mutant is begun."""
        end = time.monotonic() + seconds
        jobs = ((mutant, self.job(mutant)) for mutant in wanted if time.monotonic() < end)
        for mutant, result in self.forks.run(jobs):
            if result.verdict != "GREEN":
                self.kills[mutant.module][result.falsifier] += 1
            yield mutant, result


class Record:
    """What became of each mutant, also on disk: a line of JSON each, after one that says of which code."""

    def __init__(self, file: Path | None, header: Mapping[str, str]) -> None:
        self.file = file
        self.entries: dict[str, dict[str, Any]] = {}
        if file is None:
            return
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
        if not lines:
            file.write_text(json.dumps(header) + "\n", "utf-8")
        elif lines[0] != header:
            sys.exit(f"{file} holds results of other code, or of another device: remove it")
        self.entries = {entry["name"]: entry for entry in lines[1:]}

    def add(self, mutant: Mutant, result: Result, diff: str) -> None:
        """Keep one result, of a survivor with its diff."""
        verdict = "SURVIVED" if result.verdict == "GREEN" else result.verdict
        entry: dict[str, Any] = {
            "name": mutant.name,
            "module": mutant.module,
            "verdict": verdict,
            "falsifier": result.falsifier,
        }
        entry |= {"reason": result.reason, "seconds": round(sum(result.seconds.values()), 1)}
        if result.verdict == "GREEN":
            entry |= {"falsifier": "", "reason": "", "diff": diff}
        self.entries[mutant.name] = entry
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(entry) + "\n")


def summary(record: Record, wanted: Sequence[Mutant], of: int, listed: Mapping[Key, str]) -> tuple[str, float]:
    """The report on ``wanted``, chosen from ``of`` mutants, and the share of those not equivalent that was killed."""
    found = [(mutant, record.entries[mutant.name]) for mutant in wanted if mutant.name in record.entries]
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    survivors, refuted = [], []
    for mutant, entry in found:
        verdict, equivalent = entry["verdict"], listed.get(key_of(mutant))
        if equivalent and verdict != "SURVIVED":
            refuted.append(f"{mutant.name}: {verdict} by {entry['falsifier']}: {entry['reason']}")
        if verdict == "SURVIVED" and not equivalent:
            survivors.append(entry["diff"])
        counted[mutant.module]["EQUIVALENT" if equivalent and verdict == "SURVIVED" else verdict] += 1
    total = sum(counted.values(), Counter[str]())
    lines = [f"{'module':28}" + "".join(f"{what:>11}" for what in OUTCOMES)]
    for module, counts in [*sorted(counted.items()), ("all", total)]:
        lines.append(f"{module:28}" + "".join(f"{counts[what]:11}" for what in OUTCOMES))
    killed = total["RED"] + total["ERROR"] + total["TIMEOUT"]
    low, share, high = interval(killed, killed + total["SURVIVED"])
    _, by_red, _ = interval(total["RED"], total["RED"] + total["SURVIVED"])
    sampled = f" (95% interval {low:.1%} to {high:.1%})" if len(found) < of else ""
    lines.append(f"{len(found)} of {of} mutants run, {len(wanted) - len(found)} wanted and not run")
    lines.append(f"killed: {killed} of {killed + total['SURVIVED']} that are not equivalent, {share:.1%}{sampled}")
    lines.append(f"killed by RED alone, without those that crash or never end: {by_red:.1%}")
    lines += [f"LISTED AS EQUIVALENT AND KILLED {what}" for what in refuted]
    return "\n".join([*(f"SURVIVED\n{diff}" for diff in survivors), *lines]), 0.0 if refuted else share


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--module", action="append", help="relative to aprender/transformer/cuda, such as ops/rope.py")
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    known = modules_below(ROOT / PATH)
    if unknown := set(a.module or ()) - set(known):
        parser.error(f"no module {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if a.processes < 1 or (a.sample is not None and a.sample < 1):
        parser.error("--processes and --sample must be at least 1")
    return a


def prepared(device: str) -> None:
    """Import once what every child needs, with the kernels' interpreter on for the CPU."""
    os.environ |= {"OMP_NUM_THREADS": "1"} | (
        {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    )
    for module in SHARED:
        importlib.import_module(module)
    if early := [name for name in sys.modules if name.startswith(("falsifiers", "aprender.transformer.cuda"))]:
        sys.exit(f"imported before any mutant was made: {', '.join(early)}")


def main() -> None:
    """Make mutants, run controls, run mutants, report."""
    a = arguments()
    start = time.monotonic()
    sources = {module: (ROOT / PATH / module).read_text("utf-8") for module in modules_below(ROOT / PATH)}
    made = {module: mutants(module, source) for module, source in sources.items()}
    chosen = stratified(shuffled(of, a.seed) for module, of in made.items() if module in (a.module or made))
    every = [mutant for of in made.values() for mutant in of]
    listed = equivalents(a.device, every)
    (known_bad,) = (mutant for mutant in made[KNOWN_BAD[0]] if mutant.after.startswith(KNOWN_BAD[1]))
    wanted = chosen[: a.sample]
    print(
        f"{len(chosen)} mutants, {len(wanted)} wanted, seed {a.seed}, {a.device}, {a.processes} processes", flush=True
    )
    digests = files_digest(ROOT, sorted(path for part in WATCHED for path in ROOT.glob(part)))
    record = Record(a.json, {"device": a.device, "code": digests})
    prepared(a.device)
    loaded = load([ROOT / "contracts" / f"{name}-v1.yaml" for name in CONTRACTS])
    checks = [(contract, falsifier) for contract in loaded.contracts for falsifier in contract.falsifiers]
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Forks(ROOT, Path(folder), a.device, a.processes), checks)
        session.control(known_bad)
        todo = [mutant for mutant in wanted if mutant.name not in record.entries]
        for count, (mutant, result) in enumerate(session.run(todo, a.seconds - (time.monotonic() - start)), 1):
            record.add(mutant, result, mutant.diff(sources[mutant.module]))
            said = "SURVIVED" if result.verdict == "GREEN" else f"{result.verdict} by {result.falsifier}"
            print(f"{count}/{len(todo)} {time.monotonic() - start:.0f} s {said} | {mutant.name[:200]}", flush=True)
    text, share = summary(record, wanted, len(chosen), listed)
    print(text)
    raise SystemExit(0 if share >= WANTED else 1)


if __name__ == "__main__":
    main()

"""What it costs to check every operator of Qwen2.5-0.5B at its real shape, forward and backward, laws and optimizer.

python -m bench.operator_cost [--device cuda] [--dtype both] [--small]

24 layers and 512 tokens, the loss over the whole vocabulary, every legal rounding plan of the falsifiers, AdamW on all
494,032,768 parameters. Each dtype is warmed up on one layer first, which compiles the kernels: its seconds are apart.
``--small`` is two narrow layers, for a CPU. Exits with 1 when anything is RED, else with 3 when anything is ERROR.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch

from aprender.falsify.probe import RequirementNotMet
from aprender.parity.compare import compare_stage
from aprender.parity.laws import LawRecord
from aprender.parity.record import StageRecord, Verdict
from aprender.transformer.cuda import ops
from bench import operator_laws
from bench.operator_stages import QWEN2_5_05B, SEED, SMALL, Draw, Shape, pairs
from falsifiers.cuda_operator_system import DTYPES, require_kernels
from falsifiers.cuda_optimizer_parity import (
    BETA1,
    BETA2,
    DECAY,
    EPS,
    LR,
    ROUNDINGS,
    STEP,
    State,
    error_in_roundings,
    exact_step,
)

CLIP = 0.125  # with a smaller one gradients would hardly move m' and v'
NORM_ERROR = 1e-12  # what FALSIFY-CUDA-OPERATOR-PARITY-004 allows
MOST_LINES = 40


@dataclass
class Tally:
    """What was compared of one kind of stage, law or parameter, and how long it took."""

    count: int = 0
    tensors: int = 0
    elements: int = 0
    worst: float = 0.0
    seconds: float = 0.0
    verdicts: Counter[str] = field(default_factory=Counter)

    def add(self, verdict: Verdict, ratio: float, elements: int) -> None:
        """One tensor, or one law; a ratio that could not be measured is not the worst."""
        self.tensors += elements > 0
        self.elements += elements
        self.verdicts[verdict] += 1
        if verdict != "ERROR":
            self.worst = max(self.worst, math.inf if math.isnan(ratio) else ratio)


class Costs:
    """Tallies by kind, in the order in which kinds came up, and what was not GREEN."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.tallies: dict[str, Tally] = {}
        self.bad: list[str] = []
        self._last = self._now()

    def of_stage(self, kind: str, records: tuple[StageRecord, ...]) -> None:
        """All tensors of one stage."""
        tally = self._timed(kind)
        for r in records:
            tally.add(r.verdict, r.ratio, r.elements)
            self._note(r.verdict, f"{r.stage} {r.tensor}", r.reason or f"{r.statistic} at {r.block}: {r.ratio:.3g}")

    def of_law(self, record: LawRecord) -> None:
        """One law: its ratio is what differs most over what is allowed, infinite where bits should be equal."""
        small = record.largest / record.allowed if record.allowed else math.inf if record.differing else 0.0
        verdict: Verdict = "GREEN" if record.holds else "RED" if record.compared and not record.vacuous else "ERROR"
        kind = f"law: {record.law}"
        self._timed(kind).add(verdict, small, record.compared)
        self._note(verdict, kind, record.vacuous or f"{record.differing} of {record.compared} differ, {small:.3g}")

    def of_optimizer(self, name: str, ratios: dict[str, float], elements: int) -> None:
        """One parameter's step, or the global norm: each ratio is an error over what it may be."""
        tally = self._timed("AdamW" if "w" in ratios else name)
        for what, ratio in ratios.items():
            verdict: Verdict = "GREEN" if ratio <= 1 else "RED"
            tally.add(verdict, ratio, elements)
            self._note(verdict, f"AdamW {name} {what}", f"{ratio:.3g} of what is allowed")

    def total(self) -> Tally:
        """All kinds together."""
        found = Tally()
        for tally in self.tallies.values():
            for verdict, count in tally.verdicts.items():
                found.verdicts[verdict] += count
            found.count += tally.count
            found.tensors += tally.tensors
            found.elements += tally.elements
            found.worst = max(found.worst, tally.worst)
            found.seconds += tally.seconds
        return found

    def _timed(self, kind: str) -> Tally:
        tally, now = self.tallies.setdefault(kind, Tally()), self._now()
        tally.count += 1
        tally.seconds += now - self._last
        self._last = now
        return tally

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _note(self, verdict: Verdict, where: str, what: str) -> None:
        if verdict != "GREEN":
            self.bad.append(f"{verdict} {where}: {what}")


def measured(shape: Shape, dtype: torch.dtype, device: torch.device) -> Costs:
    """Every stage, every law and the optimizer once; drawing the inputs counts as well."""
    costs = Costs(device)
    for kind, reference, candidate in pairs(shape, dtype, device):
        costs.of_stage(kind, compare_stage(reference, candidate).records)
    for record in operator_laws.of_layers(shape, dtype, device):
        costs.of_law(record)
    for name, ratios, elements in optimizer(shape, dtype, device):
        costs.of_optimizer(name, ratios, elements)
    return costs


def optimizer(shape: Shape, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[str, dict[str, float], int]]:
    """One step of AdamW on every parameter, clipped by the norm of all gradients, judged as in the contract.

    Yields a name, ratios, and the elements of each tensor. In bfloat16 the copy that is made must be w' rounded.
    """
    states = {
        name: _state(Draw(SEED + i, torch.float32, device), of)
        for i, (name, of) in enumerate(shape.parameters().items())
    }
    exact_norm = float(torch.stack([state.g.double().square().sum() for state in states.values()]).sum().sqrt())
    norm = ops.global_norm([state.g for state in states.values()])
    clip = ops.clip_scale(norm, CLIP * exact_norm)
    yield "global norm", {"norm": abs(float(norm) / exact_norm - 1) / NORM_ERROR}, 1
    adamw = ops.AdamW(LR, BETA1, BETA2, EPS, DECAY)
    for name, state in states.items():
        exact, units = exact_step(state, CLIP)
        w, g, m, v = state
        copy = None if dtype == torch.float32 else torch.empty_like(w, dtype=dtype)
        adamw.update(w, g, m, v, STEP, clip, copy)
        found = {"w": w, "m": m, "v": v}
        ratios = {
            what: error_in_roundings(found[what], exact[what], units[what]) / allowed
            for what, allowed in ROUNDINGS.items()
        }
        if copy is not None:
            ratios["copy"] = 0.0 if bool((copy == w.to(dtype)).all()) else math.inf
        yield name, ratios, w.numel()


def _state(d: Draw, of: tuple[int, ...]) -> State:
    """As the contract's: gradients range over nine decades, and some are zero."""
    w, g, m, size = (torch.randn(of, generator=d.generator, device=d.device) for _ in range(4))
    g *= 10.0 ** -d.integers(10, *of)
    g[torch.rand(of, generator=d.generator, device=d.device) < 0.05] = 0
    v = (size * g).square() + 1e-14
    return State(w, g, m * v.sqrt(), v)


def table(costs: Costs) -> Iterator[str]:
    """A line for each kind: how often it came, its worst ratio, its seconds."""
    yield f"{'kind':40} {'count':>6} {'tensors':>8} {'elements':>14} {'worst':>7} {'seconds':>8}  verdicts"
    for kind, t in (*costs.tallies.items(), ("total", costs.total())):
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in t.verdicts.items())
        yield f"{kind:40} {t.count:6} {t.tensors:8} {t.elements:14,} {t.worst:7.3f} {t.seconds:8.2f}  {verdicts}"


def report(shape: Shape, dtype: str, device: torch.device) -> set[str]:
    """Warm up, measure and print one dtype; returns the verdicts that occurred."""
    warm_up = measured(replace(shape, layers=1), DTYPES[dtype], device).total().seconds
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    costs = measured(shape, DTYPES[dtype], device)
    print(f"\n{dtype}, {shape.layers} layers, {shape.T} tokens")
    print("\n".join(table(costs)))
    for line in costs.bad[:MOST_LINES]:
        print(f"  {line}")
    if len(costs.bad) > MOST_LINES:
        print(f"  and {len(costs.bad) - MOST_LINES} more")
    print(f"{costs.total().seconds:.1f} s, after a warm-up on one layer of {warm_up:.1f} s, compilation included")
    if device.type == "cuda":
        print(f"at most {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB of the device's memory")
    return set(costs.total().verdicts)


def main() -> None:
    """Measure, print and exit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="both", choices=(*DTYPES, "both"))
    parser.add_argument("--small", action="store_true", help="two narrow layers, for Triton's interpreter on a CPU")
    a = parser.parse_args()
    try:
        require_kernels(a.device)
    except RequirementNotMet as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    device, shape = torch.device(a.device), SMALL if a.small else QWEN2_5_05B
    print(torch.cuda.get_device_name(device) if a.device == "cuda" else "CPU, Triton's interpreter")
    verdicts = set[str]()
    for dtype in DTYPES if a.dtype == "both" else (a.dtype,):
        verdicts |= report(shape, dtype, device)
    raise SystemExit(1 if "RED" in verdicts else 3 if verdicts != {"GREEN"} else 0)


if __name__ == "__main__":
    main()

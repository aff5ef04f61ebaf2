"""Clean runs of the CUDA path's own stages: other seeds, shapes and dtypes than the contracts use; no alarm may sound.

python -m bench.clean_runs [--seeds 1000] [--first 0] [--device cpu] [--processes 2] [--longest 4096]

Every run draws a length (uneven, prime, a tile less or more one, up to ``--longest``), widths, heads, windows,
documents and values, and compares every stage in float32 and bfloat16, forward and backward, with the float64 oracle.
On a GPU several processes need its MPS daemon to run at the same time. Exits with 1 when anything was RED, else with 3
when anything could not be compared.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterable
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import RequirementNotMet
from aprender.parity.compare import compare_stage
from aprender.parity.stages import ReferenceStage
from aprender.transformer.cuda import ops
from aprender.transformer.oracle import rope
from aprender.transformer.oracle.attention import Places
from falsifiers import cuda_operator_references, oracle_attention_stage, oracle_stages
from falsifiers.cuda_operator_cases import Leading
from falsifiers.cuda_operator_system import require_kernels

DTYPES = (torch.float32, torch.bfloat16)
LENGTHS = (29, 31, 32, 33, 61, 63, 64, 65, 127, 128, 129, 255, 256, 257, 509)
LONG = (1021, 2047, 2048, 2049, 4095, 4096)  # in one run of twelve: the oracle's float64 scores grow with the square
WIDTHS = (48, 60, 77, 96, 130, 257)
HEADS = ((7, 1, 12), (6, 2, 18), (14, 2, 16), (9, 3, 32), (4, 4, 20), (4, 1, 64), (2, 1, 128))  # H, G, C
EPS, THETA, IGNORED = 3e-4, 7e4, -100
LEAST_ROWS = 127  # with fewer, eps and the tables show too little in bfloat16, and the comparison says so

Pair = tuple[ReferenceStage, Any]
Counts = tuple[int, int, float, Counter[str]]


class Draw:
    """Seeded on the CPU, so that every device and dtype sees the same shapes and numbers."""

    def __init__(self, seed: int, dtype: torch.dtype, device: str, longest: int) -> None:
        self.seed, self.dtype, self.device = seed, dtype, device
        self.generator = torch.Generator().manual_seed(seed)
        lengths = LONG if self.one_of(range(12)) == 0 and longest >= max(LONG) else LENGTHS
        self.T = self.one_of([T for T in lengths if longest >= T])
        self.B = 1 if self.T > 512 else self.one_of((1, 2, 3))
        self.D, self.F = self.one_of(WIDTHS), self.one_of(WIDTHS)
        self.H, self.G, self.C = self.one_of(HEADS if self.T <= 512 else [h for h in HEADS if h[0] <= 4])
        self.window = self.one_of((None, 1 + self.T // 3, 17))
        self.packed = self.one_of((False, True))

    def one_of(self, choices: Any) -> Any:
        return choices[int(torch.randint(len(choices), (), generator=self.generator))]

    def normal(self, *shape: int, sd: float = 1.0) -> Tensor:
        return (sd * torch.randn(shape, generator=self.generator)).to(self.device, self.dtype)

    def gain(self, width: int) -> Tensor:
        return (1 + 0.3 * torch.randn(width, generator=self.generator)).to(self.device, self.dtype)

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator).to(self.device)

    def places(self) -> Places:
        """One document a row, or two and four positions of padding."""
        first, T = self.T // 3, self.T
        positions, documents = torch.arange(T), torch.zeros(T, dtype=torch.int64)
        if self.packed:
            positions = torch.cat((torch.arange(first), torch.arange(T - first)))
            documents = (torch.arange(T) >= first).long()
            documents[-4:] = -1
        return Places(*(x.expand(self.B, -1).contiguous().to(self.device) for x in (positions, documents)))


def embedding(d: Draw) -> Pair:
    weight, tokens = d.normal(211, d.D), d.integers(211, d.B, d.T)
    return oracle_stages.embed("embed_tokens", tokens, weight, d.seed, torch.float32), ops.Embedding(weight)


def linear(d: Draw) -> Pair:
    x, weight = d.normal(d.B, d.T, d.D), d.normal(d.F, d.D, sd=1.5 / d.D**0.5)
    bias = d.one_of((None, d.normal(d.F, sd=0.5)))
    return oracle_stages.linear("linear", x, weight, bias, d.seed, torch.float32), ops.Linear(weight, bias)


def projections(d: Draw) -> Pair:
    widths = (d.H * d.C, d.G * d.C, d.G * d.C)
    x, weights = d.normal(d.B, d.T, d.D), [d.normal(N, d.D, sd=1.5 / d.D**0.5) for N in widths]
    biases = d.one_of((None, [d.normal(N, sd=0.5) for N in widths]))
    reference = cuda_operator_references.projections("qkv_proj", x, weights, biases, d.seed, torch.float32)
    return reference, ops.FusedLinear(torch.cat(weights), None if biases is None else torch.cat(biases), widths)


def rms_norm(d: Draw) -> Pair:
    x = oracle_stages.small_rows_scaled(d.normal(d.B, max(d.T, LEAST_ROWS), d.D), EPS**0.5)
    gain = d.gain(d.D)
    return oracle_stages.rms_norm("norm", x, gain, EPS, d.seed, torch.float32), ops.RMSNorm(gain, EPS)


def add_rms_norm(d: Draw) -> Pair:
    shape = (d.B, max(d.T, LEAST_ROWS), d.D)
    x, branch = (oracle_stages.small_rows_scaled(d.normal(*shape), EPS**0.5) for _ in range(2))
    gain = d.gain(d.D)
    return cuda_operator_references.add_rms_norm("add_norm", x, branch, gain, EPS, d.seed), ops.AddRMSNorm(gain, EPS)


def rotate(d: Draw) -> Pair:
    T = max(d.T, LEAST_ROWS)
    positions = torch.arange(T).expand(d.B, -1).contiguous().to(d.device)
    cos, sin = (
        x[0].to(d.device).contiguous() for x in rope.tables(torch.arange(T)[None], d.C, THETA, None, torch.float32)
    )
    x = d.normal(d.B, T, d.H, d.C)
    return oracle_stages.rotate_at("rope_q", x, positions, THETA, seed=d.seed), ops.Rope(cos, sin)


def attention(d: Draw) -> Pair:
    q, k, v = (d.normal(d.B, d.T, heads, d.C, sd=1.5) for heads in (d.H, d.G, d.G))
    places, scale = d.places(), d.C**-0.5
    reference = oracle_attention_stage.attend("attention", (q, k, v), places, places, scale, d.window, d.seed)
    stage = ops.Attention(scale, d.window)
    return reference, stage if d.packed else Leading(stage, 5)


def swiglu(d: Draw) -> Pair:
    gate, up = (d.normal(d.B, d.T, d.F, sd=1.5) for _ in range(2))
    return oracle_stages.swiglu("swiglu", gate, up, d.seed), ops.SwiGLU()


def residual(d: Draw) -> Pair:
    x, y = (d.normal(d.B, d.T, d.D) for _ in range(2))
    return oracle_stages.add("residual", x, y, d.seed), ops.ResidualAdd()


def loss(d: Draw) -> Pair:
    x, head, targets = d.normal(d.B, d.T, d.D, sd=1.5), d.normal(211, d.D, sd=0.4), d.integers(211, d.B, d.T)
    targets[:, 5:9] = IGNORED
    reference = cuda_operator_references.linear_cross_entropy("loss", x, targets, head, IGNORED, d.seed)
    return reference, ops.LinearCrossEntropy(head, IGNORED, logits_at_once=211 * 31)


STAGES: tuple[Callable[[Draw], Pair], ...] = (
    *(embedding, linear, projections, rms_norm, add_rms_norm, rotate, attention, swiglu, residual, loss),
)


def runs(seeds: Iterable[int], device: str, longest: int) -> Counts:
    """How many stages and tensors were compared, the largest ratio, and what was not GREEN."""
    torch.set_num_threads(1)
    ops.use_float32_accumulation()
    stages = tensors = 0
    largest, alarms = 0.0, Counter[str]()
    for seed in seeds:
        for dtype in DTYPES:
            for make in STAGES:
                draw = Draw(seed, dtype, device, longest)
                reference, stage = make(draw)
                stages += 1
                for record in compare_stage(reference, stage).records:
                    tensors += record.elements > 0
                    if record.verdict != "ERROR":
                        largest = max(largest, record.ratio if record.statistic != "bitwise" else 0.0)
                    if record.verdict != "GREEN":
                        what = record.reason or f"{record.statistic} {record.ratio:.2f}"
                        where = f"{record.stage} {record.tensor} {record.dtype} {record.shape} seed {seed}"
                        alarms[f"{record.verdict} {where}: {what}"] += 1
    return stages, tensors, largest, alarms


def main() -> None:
    """Run, print the denominators; exit with 1 when anything was RED, with 3 when anything could not be compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--longest", type=int, default=4096)
    a = parser.parse_args()
    if min(a.seeds, a.processes) < 1 or a.longest < min(LENGTHS):
        parser.error(f"--seeds and --processes must be at least 1, --longest at least {min(LENGTHS)}")
    try:
        require_kernels(a.device)
    except RequirementNotMet as error:
        parser.error(str(error))
    start = time.monotonic()
    seeds = range(a.first, a.first + a.seeds)
    jobs = [(seeds[i :: a.processes], a.device, a.longest) for i in range(a.processes)]
    with get_context("spawn").Pool(a.processes) as pool:
        parts = pool.starmap(runs, jobs)
    alarms = sum((part[3] for part in parts), Counter[str]())
    red = sum(n for what, n in alarms.items() if what.startswith("RED"))
    name = torch.cuda.get_device_name() if a.device == "cuda" else "CPU, Triton's interpreter"
    counted = f"{a.seeds} runs, {sum(p[0] for p in parts)} stages, {sum(p[1] for p in parts)} tensors"
    print(f"{name}: {counted} in {time.monotonic() - start:.0f} s")
    print(f"largest ratio {max(p[2] for p in parts):.3f}; RED: {red}; ERROR: {sum(alarms.values()) - red}")
    for what, count in alarms.most_common(40):
        print(f"  {count} x {what}")
    raise SystemExit(1 if red else 3 if alarms else 0)


if __name__ == "__main__":
    main()

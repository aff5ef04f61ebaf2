"""Clean runs of the parity engine: honest implementations of every operator, on many seeds and shapes.

python -m bench.parity_null [--seeds 1000] [--device cpu] [--processes 2] [--write]

Without --write: how many false alarms the engine raises as it is calibrated; exit code 1 when any, else 3 when a tensor
could not be compared. With --write: the largest null ratio of
every statistic by the plain formulas goes into aprender/parity/calibration.json, for this kind of device.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable
from multiprocessing import get_context
from pathlib import Path

import torch

from aprender.parity import calibration
from aprender.parity.compare import compare_stage
from aprender.parity.stages import Differentiated
from tests.parity.operators_in_torch import STAGES, Draw, honest

TABLE = Path(calibration.__file__).with_name("calibration.json")
DTYPES = (torch.float32, torch.bfloat16)

Found = tuple[dict[str, dict[str, float]], Counter[str], int, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument(
        "--first", type=int, default=0, help="the first seed: another than the calibration's, to check it"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="calibrate: write the table")
    arguments = parser.parse_args()
    if min(arguments.seeds, arguments.processes) < 1:
        parser.error("--seeds and --processes must be at least 1")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"torch {torch.__version__} can't use the CUDA device of this host")
    start = time.monotonic()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    jobs = [(seeds[i :: arguments.processes], arguments.device, arguments.write) for i in range(arguments.processes)]
    if arguments.processes == 1:
        parts = [clean_runs(*jobs[0])]
    else:
        with get_context("spawn").Pool(arguments.processes) as pool:
            parts = pool.starmap(clean_runs, jobs)
    largest: dict[str, dict[str, float]] = {}
    alarms: Counter[str] = Counter()
    for found, raised, _, _ in parts:
        alarms += raised
        for dtype, ratios in found.items():
            own = largest.setdefault(dtype, {})
            own |= {name: max(ratio, own.get(name, 0.0)) for name, ratio in ratios.items()}
    report(
        largest,
        alarms,
        [sum(part[2] for part in parts), sum(part[3] for part in parts)],
        time.monotonic() - start,
        arguments,
    )
    if arguments.write:
        write(largest, arguments.device, arguments.seeds)
    elif alarms:
        raise SystemExit(1 if any(what.startswith("RED") for what in alarms) else 3)


def clean_runs(seeds: Iterable[int], device: str, plain: bool) -> Found:
    """Largest ratios by dtype and statistic, alarms by what raised them, and how many stages and tensors ran."""
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False  # not legal: sums are float32
    table = calibration.uncalibrated() if plain else calibration.packaged()
    largest: dict[str, dict[str, float]] = {str(dtype).removeprefix("torch."): {} for dtype in DTYPES}
    alarms: Counter[str] = Counter()
    stages = tensors = 0
    for seed in seeds:
        for dtype in DTYPES:
            for operator, make in STAGES.items():
                stage = make(Draw(seed, dtype, device))
                function = honest(operator, seed)
                candidate = Differentiated(function, stage.parameters, stage.constants | stage.masks)
                stages += 1
                for record in compare_stage(stage, candidate, calibration=table).records:
                    tensors += 1
                    if record.verdict != "GREEN":
                        what = record.reason or f"{record.statistic} {record.ratio:.2f}"
                        alarms[f"{record.verdict} {function.__name__} {record.tensor} {record.dtype}: {what}"] += 1
                    if record.dtype in largest:
                        own = largest[record.dtype]
                        for name, ratio in record.ratios.items():
                            kind = name.split(":")[0]
                            own[kind] = max(own.get(kind, 0.0), ratio)
    return largest, alarms, stages, tensors


def report(
    largest: dict[str, dict[str, float]],
    alarms: Counter[str],
    counts: list[int],
    seconds: float,
    arguments: argparse.Namespace,
) -> None:
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    print(f"{name}: {arguments.seeds} seeds, {counts[0]} stages, {counts[1]} tensors in {seconds:.0f} s")
    for dtype, ratios in largest.items():
        print(dtype, ", ".join(f"{kind} {ratio:.3f}" for kind, ratio in sorted(ratios.items()) if kind != "bitwise"))
    red = sum(count for what, count in alarms.items() if what.startswith("RED"))
    print(f"false alarms: {red}; inconclusive: {sum(alarms.values()) - red}")
    for what, count in alarms.most_common(40):
        print(f"  {count} x {what}")


def write(largest: dict[str, dict[str, float]], device: str, seeds: int) -> None:
    table = json.loads(TABLE.read_text("utf-8")) if TABLE.exists() else {"seeds": {}, "largest": {}}
    table["seeds"][device] = seeds
    table["largest"][device] = {
        dtype: {name: round(ratio, 4) for name, ratio in sorted(ratios.items()) if name != "bitwise"}
        for dtype, ratios in largest.items()
    }
    TABLE.write_text(json.dumps(table, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

"""How fast and in how much memory models are loaded, as ratios in one run on the same files.

    python bench/load_speed.py [MODEL.gguf ...] [--rounds N]

Each GGUF file (default: all in ../real) is loaded by this package and by transformers (gguf_file=, float32, tokenizer
included on both sides; it needs the package accelerate), and a bfloat16 safetensors folder of Qwen2.5-0.5B's shape,
about 1 GB and made for the occasion, by this package and by safetensors.torch.load_file, whose tensors are then looked
at once, as this package looks at its own for NaN. Each measurement is a process of its own and gives the seconds of the
call and the peak of resident memory during it, both without the imports; of several, medians are compared. What merely
touching as much memory takes is printed, too: on a virtual machine whose host takes memory back, that is most of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

MEASURE = """
import sys, time, warnings
from pathlib import Path
{imports}
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
path = Path(sys.argv[1])
before = peak()
started = time.perf_counter()
{load}
seconds = time.perf_counter() - started
print(seconds, peak() - before, sum(t.nbytes for t in {{t.data_ptr(): t for t in tensors}}.values()) / 2**20)
"""
OURS = MEASURE.format(
    imports="import torch, gguf, tokenizers, aprender.formats.load as formats",
    load="checkpoint = formats.load_checkpoint(path)\ntensors = list(checkpoint.tensors.values())",
)
TRANSFORMERS = MEASURE.format(
    imports="import torch, gguf, tokenizers\nfrom transformers import AutoModelForCausalLM, AutoTokenizer",
    load="how = dict(gguf_file=path.name)\n"
    "tokenizer = AutoTokenizer.from_pretrained(path.parent, **how)\n"
    "model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **how)\n"
    "tensors = [p.data for p in model.parameters()]",
)
LOAD_FILE = MEASURE.format(
    imports="import torch\nfrom safetensors.torch import load_file",
    load="tensors = list(load_file(path / 'model.safetensors').values())\n"
    "assert all(bool(bound.isfinite()) for t in tensors for bound in torch.aminmax(t))",
)

TOUCH = MEASURE.format(
    imports="import numpy as np",
    load="size = int(sys.argv[2]) // 100\n"
    "tensors = [np.empty(size, np.uint8) for _ in range(100)]\n"
    "for array in tensors: array[::4096] = 1\n"
    "tensors = []",
)


class Measured(NamedTuple):
    """Medians over the rounds: seconds, peak of resident memory above the start, and the weights, in MiB."""

    seconds: float
    peak: float
    weights: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: 3; of transformers: 1)")
    arguments = parser.parse_args()
    for path in arguments.models or sorted((ROOT.parent / "real").glob("*.gguf"), key=lambda path: path.stat().st_size):
        ours = measured(OURS, path, arguments.rounds)
        report(path, "transformers", ours, measured(TRANSFORMERS, path, 1))
        floor = medians([once(TOUCH, path, str(int(ours.weights * 2**20))) for _ in range(arguments.rounds)])
        print(f"  merely touching as much fresh memory: {floor.seconds:.2f} s")
    with tempfile.TemporaryDirectory() as scratch:
        folder = safetensors_folder(Path(scratch))
        measured(OURS, folder, 1)  # warms the file up
        report(folder, "load_file", *alternating(folder, arguments.rounds))


def safetensors_folder(folder: Path) -> Path:
    """Qwen2.5-0.5B's shape in bfloat16: 290 tensors, 988 MB."""
    import torch
    from safetensors.torch import save_file

    from falsifiers.weight_checkpoints import QWEN2, config_json
    from falsifiers.weight_tokenizer import tiny_tokenizer

    config = replace(
        QWEN2,
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        windows=(None,) * 24,
        num_attention_heads=14,
        num_key_value_heads=2,
        head_dim=64,
        tie_word_embeddings=True,
    )
    generator = torch.Generator().manual_seed(0)
    tensors = {n: torch.randn(s, generator=generator).bfloat16() for n, s in config.tensor_shapes().items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config_json(config)))
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def measured(code: str, path: Path, rounds: int) -> Measured:
    return medians([once(code, path) for _ in range(rounds)])


def alternating(path: Path, rounds: int) -> tuple[Measured, Measured]:
    pairs = [(once(OURS, path), once(LOAD_FILE, path)) for _ in range(rounds)]
    return medians([ours for ours, _ in pairs]), medians([theirs for _, theirs in pairs])


def medians(taken: list[Measured]) -> Measured:
    return Measured(*(statistics.median(column) for column in zip(*taken, strict=True)))


def once(code: str, path: Path, *more: str) -> Measured:
    words = (sys.executable, "-c", code, str(path), *more)
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"{path}: {done.stderr.strip().splitlines()[-1]}")
    return Measured(*map(float, done.stdout.split()[-3:]))


def report(path: Path, peer: str, ours: Measured, theirs: Measured) -> None:
    """Two lines: time, and memory against the weights themselves."""
    print(
        f"{path.name}: {ours.seconds:.2f} s, {peer} {theirs.seconds:.2f} s: ratio {ours.seconds / theirs.seconds:.3f}\n"
        f"  peak {ours.peak:.0f} MiB for {ours.weights:.0f} MiB of weights: {ours.peak / ours.weights:.3f}; "
        f"{peer} {theirs.peak:.0f} MiB: {theirs.peak / theirs.weights:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()

"""How long the oracle takes in float32, as a ratio to transformers in one run on the same weights.

    python -m bench.oracle_speed MODEL [--tokens 512] [--rounds 3]

MODEL is a checkpoint that this repository loads. Both sides compute all logits of one row of tokens; transformers
in its own default way (fused attention), over the same tensors, so that one copy of the weights is in memory.
Measurements alternate, and medians are compared. Aim: at most 1.5 on a CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aprender.formats import load_checkpoint
from aprender.formats.checkpoint import Checkpoint
from aprender.transformer.oracle import Batch, Oracle
from falsifiers.third_party import as_stored, configured

TEXT = Path(__file__).parents[1] / "models" / "qwen2-stdlib-tiny" / "held_out.txt"
AIM = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=512, help="length of the row (default: 512)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (default: 3)")
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.model)
    tokens_BT = torch.tensor([checkpoint.tokenizer.encode(TEXT.read_text("utf-8")).ids[: arguments.tokens]])
    oracle, model = Oracle(checkpoint.config, checkpoint.tensors, torch.float32), third_party(checkpoint)
    batch = Batch.of(tokens_BT)
    ours, theirs, difference = compare(lambda: oracle.logits(batch), lambda: model(tokens_BT).logits, arguments.rounds)
    print(f"{arguments.model.name}, {tokens_BT.shape[1]} tokens, float32, {torch.get_num_threads()} threads")
    print(f"oracle {ours:.2f} s, transformers {theirs:.2f} s: ratio {ours / theirs:.2f}, aim {AIM}")
    print(f"largest difference of logits {difference:.1e}")


def third_party(checkpoint: Checkpoint) -> Any:
    """Transformers' model over the checkpoint's own tensors: nothing is copied."""
    model_class, config = configured(checkpoint.config)
    with torch.device("meta"):
        model = model_class(config)
    model.load_state_dict(as_stored(checkpoint.config, checkpoint.tensors), assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # its tables are no weights: made anew, not on meta
    return model.eval()


@torch.no_grad()
def compare(ours: Callable[[], Tensor], theirs: Callable[[], Tensor], rounds: int) -> tuple[float, float, float]:
    """Median seconds of each, and the largest absolute difference of what they return."""
    difference = float((ours() - theirs()).abs().max())  # also the warm-up
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for run, measured in zip((ours, theirs), seconds, strict=True):
            started = time.perf_counter()
            run()
            measured.append(time.perf_counter() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1]), difference


if __name__ == "__main__":
    main()

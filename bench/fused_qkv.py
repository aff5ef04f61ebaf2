"""Three projections (q, k, v) against one over their stacked weights: what fusing them would gain.

python -m bench.fused_qkv [--rounds 50]

On a GPU, at Qwen2.5-0.5B's widths: forward and backward of the CUDA path's own ``Linear``, three times or once. The
one gets its output split for nothing, so the ratio is the most that fusing could gain; the last column says what share
of a whole layer's forward and backward that is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from aprender.transformer.cuda import ops
from bench.operator_stages import QWEN2_5_05B, SEED, Draw

TOKENS = (1, 512, 4096, 16_384)
SHAPE = QWEN2_5_05B


def projections(d: Draw) -> list[ops.Linear]:
    """q, k and v, each with its bias."""
    widths = [heads * SHAPE.C for heads in (SHAPE.H, SHAPE.G, SHAPE.G)]
    return [ops.Linear(d.weight(width, SHAPE.D), d.normal(width)) for width in widths]


def wide(d: Draw) -> list[ops.Linear]:
    """The layer's other products."""
    shapes = ((SHAPE.D, SHAPE.H * SHAPE.C), (SHAPE.F, SHAPE.D), (SHAPE.F, SHAPE.D), (SHAPE.D, SHAPE.F))
    return [ops.Linear(d.weight(N, K), None) for N, K in shapes]


def stacked(linears: list[ops.Linear]) -> ops.Linear:
    """One projection over all of their rows."""
    return ops.Linear(
        torch.cat([linear.weight for linear in linears]), torch.cat([torch.as_tensor(p.bias) for p in linears])
    )


def both_ways(linears: list[ops.Linear], d: Draw, tokens: int) -> Callable[[], None]:
    """Forward and backward of each, on inputs drawn once."""
    inputs = {linear.weight.shape[1]: d.normal(1, tokens, linear.weight.shape[1]) for linear in linears}
    gradients: list[Tensor] = [d.normal(1, tokens, len(linear.weight)) for linear in linears]

    def run() -> None:
        for linear, d_output in zip(linears, gradients, strict=True):
            _, saved = linear.forward(inputs[linear.weight.shape[1]])
            linear.backward(saved, d_output)

    return run


def microseconds(run: Callable[[], None], rounds: int) -> float:
    """The median of ``rounds``, from CUDA events."""
    times = []
    for i in range(rounds + 5):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        run()
        stop.record()
        stop.synchronize()
        if i >= 5:
            times.append(1000 * start.elapsed_time(stop))
    return float(median(times))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    if not torch.cuda.is_available() or rounds < 1:
        parser.error("this needs a CUDA device, and --rounds of at least 1")
    ops.use_float32_accumulation()
    print(f"{torch.cuda.get_device_name()}, forward and backward, microseconds")
    print(f"{'dtype':10} {'tokens':>7} {'three':>9} {'one':>9} {'ratio':>6} {'other products':>15} {'gain':>6}")
    for dtype in (torch.float32, torch.bfloat16):
        for tokens in TOKENS:
            d = Draw(SEED, dtype, torch.device("cuda"))
            three = projections(d)
            apart = microseconds(both_ways(three, d, tokens), rounds)
            one = microseconds(both_ways([stacked(three)], d, tokens), rounds)
            others = microseconds(both_ways(wide(d), d, tokens), rounds)
            gain = (apart - one) / (apart + others)
            name = str(dtype).removeprefix("torch.")
            print(f"{name:10} {tokens:7} {apart:9.0f} {one:9.0f} {one / apart:6.2f} {others:15.0f} {gain:6.1%}")


if __name__ == "__main__":
    main()

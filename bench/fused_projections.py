"""Projections of one input, apart and as one product: what fusing gains for q, k and v, and for gate and up.

python -m bench.fused_projections [--rounds 50]

On a GPU, at Qwen2.5-0.5B's widths: forward and backward of the CUDA path's own ``Linear`` for each, their input's
gradients added up, against its ``FusedLinear``. The last column says what share of all of a layer's products the gain
is. q, k and v have biases.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import reduce
from statistics import median

import torch

from aprender.transformer.cuda import ops
from bench.operator_stages import QWEN2_5_05B, SEED, Draw

TOKENS = (1, 512, 4096, 16_384)
SHAPE = QWEN2_5_05B
GROUPS = {
    "q, k, v": ((SHAPE.H * SHAPE.C, SHAPE.G * SHAPE.C, SHAPE.G * SHAPE.C), True),
    "gate, up": ((SHAPE.F,) * 2, False),
}
ALONE = ((SHAPE.D, SHAPE.H * SHAPE.C), (SHAPE.D, SHAPE.F))  # o_proj and down_proj, [N, K]


def apart(linears: Sequence[ops.Linear], d: Draw, tokens: int) -> Callable[[], None]:
    """Each by itself; where there are several they have one input, whose gradient is a sum."""
    x = d.normal(1, tokens, linears[0].weight.shape[1])
    gradients = [d.normal(1, tokens, len(linear.weight)) for linear in linears]

    def run() -> None:
        saved = [linear.forward(x)[1] for linear in linears]
        passes = zip(linears, saved, gradients, strict=True)
        reduce(torch.add, [linear.backward(kept, d_y)[0][0] for linear, kept, d_y in passes])

    return run


def together(linears: Sequence[ops.Linear], d: Draw, tokens: int) -> Callable[[], None]:
    """One product over all of their rows."""
    weight = torch.cat([linear.weight for linear in linears])
    biases = [linear.bias for linear in linears if linear.bias is not None]
    fused = ops.FusedLinear(
        weight, torch.cat(biases) if biases else None, tuple(len(linear.weight) for linear in linears)
    )
    x, gradients = d.normal(1, tokens, weight.shape[1]), tuple(d.normal(1, tokens, N) for N in fused.widths)

    def run() -> None:
        _, saved = fused.forward(x)
        fused.backward(saved, gradients)

    return run


def microseconds(run: Callable[[], None], rounds: int) -> float:
    """The median of ``rounds``, from CUDA events."""
    times = []
    for i in range(rounds + 5):
        # torch declares no types for its events
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
    print(f"{'dtype':10} {'tokens':>7} {'':10} {'apart':>9} {'fused':>9} {'ratio':>6} {'of a layer':>11}")
    for dtype in (torch.float32, torch.bfloat16):
        for tokens in TOKENS:
            d = Draw(SEED, dtype, torch.device("cuda"))
            linears = {
                name: [ops.Linear(d.weight(N, SHAPE.D), d.normal(N) if biased else None) for N in widths]
                for name, (widths, biased) in GROUPS.items()
            }
            each = {name: microseconds(apart(found, d, tokens), rounds) for name, found in linears.items()}
            alone = sum(microseconds(apart([ops.Linear(d.weight(*shape), None)], d, tokens), rounds) for shape in ALONE)
            layer = sum(each.values()) + alone
            for name, found in linears.items():
                one = microseconds(together(found, d, tokens), rounds)
                shown = f"{each[name]:9.0f} {one:9.0f} {one / each[name]:6.2f} {(each[name] - one) / layer:11.1%}"
                print(f"{str(dtype).removeprefix('torch.'):10} {tokens:7} {name:10} {shown}")


if __name__ == "__main__":
    main()

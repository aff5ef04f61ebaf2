"""Output controls: the comparison is shown able to go RED on this very input, and how sharp it is.

One element corrupted, zeros, a constant, a shuffled batch, the input passed through: RED, each. The oracle itself,
rounded once: GREEN. Bisecting the corruption gives the detection limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from aprender.parity.envelope import Envelope
from aprender.parity.exact import Exact, equal_bits
from aprender.parity.stages import Tensors

CORRUPTION = 2.0  # in envelopes of one element: what the coarsest statistic, the max net, allows

# Where detection limits are looked for: in powers of two of an element's envelope, four steps (of 19%) to each; and
_SMALLEST, _LARGEST, _PER_OCTAVE = -6, 2, 4
# by place, in powers of two of the tensor's root mean square.
_LOWEST, _HIGHEST = -40, 40


@dataclass(frozen=True, slots=True)
class Control:
    """One deliberately wrong (or right) candidate, what it must be and what it was; ``holds`` when they agree.

    ``inert``: it is bit for bit what is right (a batch of one shuffled), so it shows nothing either way.
    """

    name: str
    expected: Literal["RED", "GREEN"]
    ratio: float
    inert: bool = False

    @property
    def holds(self) -> bool:
        """Whether the comparison did what it must."""
        return self.inert or (self.ratio > 1) == (self.expected == "RED")


def output_controls(yardstick: Envelope | Exact, inputs: Tensors, seed: int) -> list[Control]:
    """Run all controls of one tensor: every one must hold, or the comparison can't be believed."""
    right = yardstick.rounded()
    found = [Control("oracle rounded", "GREEN", yardstick.judge(right).ratio)]
    for name, wrong in _null_candidates(right, inputs):
        found.append(Control(name, "RED", yardstick.judge(wrong).ratio, inert=equal_bits(wrong, right)))
    for name, place in places(yardstick, seed).items():
        size = CORRUPTION * _element_envelope(yardstick, place)
        found.append(Control(f"corrupted {name}", "RED", yardstick.judge(corrupted(right, place, size)).ratio))
    return found


def detection_limit(yardstick: Envelope | Exact, seed: int) -> dict[str, float]:
    """The smallest error of one element that is RED, by place, in root mean squares of the tensor; to a factor of 2.

    Empty for tensors that hold no floats.
    """
    if not yardstick.z.is_floating_point():
        return {}
    right = yardstick.rounded()
    rms = float(yardstick.z.double().square().mean().sqrt())

    def red(place: tuple[int, ...], exponent: int) -> bool:
        return yardstick.judge(corrupted(right, place, rms * 2.0**exponent)).ratio > 1

    found = {}
    for name, place in places(yardstick, seed).items():
        low, high = _LOWEST, _HIGHEST
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if red(place, middle) else (middle, high)
        found[name] = 2.0**high if high < _HIGHEST else math.inf
    return found


class Limit(NamedTuple):
    """The smallest error of one element that is RED, where it shows least: in envelopes of an element, and itself.

    0 envelopes where nothing was tried; infinite where not even the largest that was tried is RED.
    """

    envelopes: float
    size: float
    where: str


def least_visible(yardsticks: Mapping[str, Envelope | Exact], seed: int) -> Limit:
    """The largest ``Limit`` of several tensors, by name, over the ``places`` of each; to a quarter of an octave.

    Whatever is no worse than what was found before costs one comparison. Exact tensors have no limit: any bit is RED.
    """
    worst = Limit(0.0, 0.0, "")
    for name, yardstick in yardsticks.items():
        if isinstance(yardstick, Exact):
            continue
        right, envelope = yardstick.rounded(), yardstick.element_allowance()
        for place, at in places(yardstick, seed).items():
            red = partial(_is_red, yardstick, right, at, envelope)
            if not red(worst.envelopes):
                found = smallest(red)
                worst = Limit(found, found * envelope, f"{name}, {place}")
    return worst


def smallest(red: Callable[[float], bool]) -> float:
    """The smallest size, from 1/64 to 4 in quarters of an octave, that is ``red``; infinite where not even 4 is."""
    low, high = _SMALLEST * _PER_OCTAVE - 1, _LARGEST * _PER_OCTAVE
    if not red(2.0**_LARGEST):
        return math.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if red(2.0 ** (middle / _PER_OCTAVE)) else (middle, high)
    return float(2.0 ** (high / _PER_OCTAVE))


def _is_red(yardstick: Envelope, right: Tensor, at: tuple[int, ...], envelope: float, size: float) -> bool:
    judgement = yardstick.judge(corrupted(right, at, size * envelope))
    return judgement.worst is not None and judgement.ratio > 1  # what is not calibrated sees nothing


def places(yardstick: Envelope | Exact, seed: int) -> dict[str, tuple[int, ...]]:
    """Where one element is corrupted: first, last, of the last head, of the last row, and anywhere."""
    shape, layout = yardstick.z.shape, yardstick.blocks.layout
    generator = torch.Generator().manual_seed(seed)
    anywhere = tuple(int(torch.randint(size, (), generator=generator)) for size in shape)
    found = {"first": (0,) * len(shape), "last": tuple(size - 1 for size in shape), "random": anywhere}
    if layout.rows:
        found["last row"] = (*(size - 1 for size in shape[: layout.rows]), *anywhere[layout.rows :])
    if layout.heads is not None:
        axis = layout.heads
        found["last head"] = (*anywhere[:axis], shape[axis] - 1, *anywhere[axis + 1 :])
    return found


def corrupted(y: Tensor, place: tuple[int, ...], size: float) -> Tensor:
    """A copy with one element wrong by ``size``, away from zero; integers and booleans by the least there is."""
    wrong = y.clone()
    if y.dtype == torch.bool:
        wrong[place] = ~y[place]
    elif not y.is_floating_point():
        wrong[place] = y[place] + 1
    else:
        value = float(y[place])
        moved = torch.tensor(value + math.copysign(size, value), dtype=torch.float64).to(y)
        wrong[place] = moved
    return wrong


def _element_envelope(yardstick: Envelope | Exact, place: tuple[int, ...]) -> float:
    if isinstance(yardstick, Exact):
        return (
            float(torch.finfo(yardstick.dtype).eps * yardstick.z[place].double().abs().clamp_min(1))
            if (yardstick.dtype.is_floating_point)
            else 1.0
        )
    return yardstick.element_allowance()


def _null_candidates(right: Tensor, inputs: Tensors) -> Iterator[tuple[str, Tensor]]:
    yield "zeros", torch.zeros_like(right)
    if right.is_floating_point():
        yield "constant", torch.full_like(right, float(right.double().mean()))
    axis = next((i for i, size in enumerate(right.shape) if size > 1), 0)
    yield "batch shuffled", right.roll(1, axis)
    if inputs and inputs[0].shape == right.shape and inputs[0].dtype == right.dtype:
        yield "identity", inputs[0]

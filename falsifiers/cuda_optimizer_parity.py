"""Probe of FALSIFY-CUDA-OPERATOR-PARITY-004: steps of the CUDA path's AdamW against the formula in float64.

Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2, eps outside of the root, the decay times the learning rate;
gradients clipped before by the norm of all of them together (Pascanu et al. 2013, arXiv 1211.5063).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aprender.falsify.probe import Observation, probe
from aprender.parity.controls import corrupted, smallest
from aprender.transformer.cuda import ops
from aprender.transformer.cuda.ops.blocks import small_tiles
from falsifiers.cuda_operator_system import LARGEST, OPERATORS, OperatorsUnderContract
from falsifiers.cuda_optimizer_defects import DEFECTS
from falsifiers.digests import digest_of
from falsifiers.threads import on_one_thread

LR, BETA1, BETA2, EPS, DECAY, MAX_NORM, STEP = 3e-3, 0.87, 0.96, 1e-8, 0.13, 2.5, 7
SHAPES = ((67, 45), (131,), (3, 5, 11))  # a matrix, a bias, and an odd one
U = 2.0**-24  # half a unit in the last place of 1, in float32
# Roundings counted along the formula, each at most one unit: m' has the clip scale, 1 - b1, two products and a sum; v'
# the clip scale and the clipped gradient twice each, the square, 1 - b2, a product and a sum; w' those of m', half
# those of v', and nine of its own.
ROUNDINGS = {"w": 16, "m": 5, "v": 8}


class State(NamedTuple):
    """One parameter before or after a step."""

    w: Tensor
    g: Tensor
    m: Tensor
    v: Tensor


@probe(
    system=OPERATORS,
    observes={
        "w_error": "",
        "m_error": "",
        "v_error": "",
        "copy_differing": "elements",
        "norm_error": "",
        "clip_scale": "",
        "parameters": "tensors",
        "elements_compared": "elements",
        "least_step": "",
        "detection_limit": "envelopes",
        "detection_limit_size": "",
    },
    defects=DEFECTS,
)
@small_tiles()
@on_one_thread
def step(system: OperatorsUnderContract) -> Observation:
    """Step 7 from given w, g, m and v: the largest error of w', m' and v' in roundings, and of the global norm.

    One rounding of w' is 2^-24 of the larger of w and the step; of m' and v' 2^-24 of the terms that are added up.
    Gradients range over nine decades, and some are zero. ``copy_differing`` elements of the bfloat16 copy are not w'
    rounded. ``least_step``: how far the step moves w, in roundings, in root mean square; below 100 nothing is shown.
    ``detection_limit``: the smallest error of one element that exceeds ``ROUNDINGS``, where it shows least, in these.
    """
    before = _states(system.device)
    norm = system.global_norm([state.g for state in before])
    clip = system.clip_scale(norm, MAX_NORM)
    errors: dict[str, list[float]] = {"w": [], "m": [], "v": []}
    outputs, copies, moved, limits = [norm, clip], 0, [], []
    exact_norm = torch.stack([state.g.double().square().sum() for state in before]).sum().sqrt()
    factor = min(1.0, MAX_NORM / float(exact_norm))
    for state in before:
        w, g, m, v = (x.clone() for x in state)
        copy = torch.empty_like(w, dtype=torch.bfloat16)
        optimizer = ops.AdamW(LR, BETA1, BETA2, EPS, DECAY)
        system.update(optimizer, w, g, m, v, STEP, clip, copy)
        copies += int((copy != w.bfloat16()).sum())
        outputs += [w, m, v, copy]
        exact, units = exact_step(state, factor)
        for name, found in (("w", w), ("m", m), ("v", v)):
            errors[name].append(error_in_roundings(found, exact[name], units[name]))
            limits.append(_detection_limit(exact[name], units[name], ROUNDINGS[name]))
        moved.append(float(((exact["w"] - state.w.double()) / (U * state.w.abs())).square().mean().sqrt()))
    values = {
        **{f"{name}_error": max(found) for name, found in errors.items()},
        "copy_differing": copies,
        "norm_error": abs(float(norm) / float(exact_norm) - 1),
        "clip_scale": float(clip),
        "parameters": len(before),
        "elements_compared": sum(3 * state.w.numel() for state in before),
        "least_step": min(moved),
        "detection_limit": min(max(limits)[0], LARGEST),
        "detection_limit_size": min(max(limits)[1], LARGEST),
    }
    return Observation(values, digest_of(outputs))


def error_in_roundings(found: Tensor, exact: Tensor, unit: Tensor) -> float:
    """The largest error of ``found``, float32, beside ``exact``, float64, in units of ``unit``, all of one shape."""
    return float(((found.double() - exact).abs() / unit).max())


def _detection_limit(exact: Tensor, unit: Tensor, roundings: int) -> tuple[float, float]:
    """Of the right result with its first or last element corrupted: in ``roundings`` of it, and itself."""
    right, found = exact.float(), []
    for at in ((0,) * exact.dim(), tuple(size - 1 for size in exact.shape)):
        envelope = roundings * float(unit[at])

        def red(size: float, at: tuple[int, ...] = at, envelope: float = envelope) -> bool:
            return error_in_roundings(corrupted(right, at, size * envelope), exact, unit) > roundings

        found.append((limit := smallest(red), limit * envelope))
    return max(found)


def _states(device: torch.device) -> list[State]:
    generator = torch.Generator().manual_seed(20261124)
    found = []
    for shape in SHAPES:
        w, g, m, size = (torch.randn(shape, generator=generator) for _ in range(4))
        g = g * 10.0 ** torch.randint(-9, 1, shape, generator=generator)
        g[torch.rand(shape, generator=generator) < 0.05] = 0
        v = (size * g).square() + 1e-14
        found.append(State(*(x.to(device) for x in (w, g, m * v.sqrt(), v))))
    return found


def exact_step(state: State, factor: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Step 7 of ``state``, its gradient times ``factor``: w', m' and v' in float64, and one float32 rounding of each.

    Both by "w", "m" and "v", in the shape of the parameter. No rounding is 0: the least is float32's smallest number.
    """
    w, g, m, v = (x.double() for x in state)
    g = g * factor
    terms_m, terms_v = (BETA1 * m, (1 - BETA1) * g), (BETA2 * v, (1 - BETA2) * g * g)
    first, second = sum(terms_m), sum(terms_v)
    assert isinstance(first, Tensor)  # noqa: S101 - sum() might return 0 for all that its type says
    assert isinstance(second, Tensor)  # noqa: S101
    moved = LR * (first / (1 - BETA1**STEP)) / ((second / (1 - BETA2**STEP)).sqrt() + EPS) + LR * DECAY * w
    sizes = {"w": w.abs() + moved.abs(), "m": terms_m[0].abs() + terms_m[1].abs(), "v": second}
    # A step is a quotient of two small numbers: its own error is that of m', relative to what was added up.
    cancelled = moved.abs() + LR / (1 - BETA1**STEP) * sizes["m"] / ((second / (1 - BETA2**STEP)).sqrt() + EPS)
    units = {"w": U * (sizes["w"] + cancelled), "m": U * sizes["m"], "v": U * sizes["v"]}
    return {"w": w - moved, "m": first, "v": second}, {name: unit.clamp_min(2.0**-149) for name, unit in units.items()}

"""Laws of attention: each isolates one thing that a wrong kernel gets wrong, without an oracle.

``attend(q_BTHC, k_BSGC, v_BSGC)`` returns out_BTHC; it is causal over T = S positions in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from aprender.parity.exact import bits
from aprender.parity.laws import LawRecord, compared
from aprender.parity.rounding import unit_roundoff
from aprender.parity.tails import NORMAL

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def head_isolation(attend: Attend, q_BTHC: Tensor, k_BSGC: Tensor, v_BSGC: Tensor) -> LawRecord:
    """Zeroing V of one key/value head zeroes the outputs of exactly its H / G query heads; all others keep their bits.

    Proves the grouped-query mapping, whatever the numbers. Vacuous with one key/value head: no mapping is wrong then.
    """
    H, G = q_BTHC.shape[2], v_BSGC.shape[2]
    whole = attend(q_BTHC, k_BSGC, v_BSGC) + 0.0  # -0.0 becomes 0.0, here and below
    differing, compared_elements, largest = 0, 0, 0.0
    for g in range(G):
        v = v_BSGC.clone()
        v[:, :, g] = 0
        expected = whole.clone()
        expected[:, :, g * (H // G) : (g + 1) * (H // G)] = 0
        record = compared("head isolation", expected, attend(q_BTHC, k_BSGC, v) + 0.0)
        differing += record.differing
        compared_elements += record.compared
        largest = max(largest, record.largest)
    vacuous = "one key/value head is read by all" if G == 1 else ""
    return LawRecord("head isolation", compared_elements, differing, largest, vacuous=vacuous)


def running_mean(attend: Attend, q_BTHC: Tensor, v_BSGC: Tensor) -> LawRecord:
    """With K = 0 every key weighs the same: output t is the mean of v over 0..t. Proves the mask and the normaliser.

    Allowed: a sum of t + 1 terms of the output's size, taken in any order in float32, weights and result rounded.
    """
    T, group = v_BSGC.shape[1], q_BTHC.shape[2] // v_BSGC.shape[2]
    count_T11 = torch.arange(1, T + 1, dtype=torch.float64, device=v_BSGC.device)[:, None, None]
    v = v_BSGC.double().repeat_interleave(group, 2)
    expected = v.cumsum(1) / count_T11
    magnitude = v.abs().cumsum(1) / count_T11
    found = attend(q_BTHC, torch.zeros_like(v_BSGC), v_BSGC)
    u, u32 = unit_roundoff(found.dtype), unit_roundoff(torch.float32)
    allowed = 2 * u * magnitude + NORMAL * count_T11.sqrt() * u32 * magnitude
    return _within("K = 0 is a running mean", expected, found, allowed)


def one_hot_values(attend: Attend, q_BTHC: Tensor, k_BSGC: Tensor, scale: float) -> LawRecord:
    """With V one-hot the output *is* the matrix of probabilities: the softmax of the causal scores, C keys at a time.

    Proves scale, mask and softmax apart from V. Allowed: an error in a score moves a probability by as much,
    relatively; scores are sums of C products.
    """
    _, S, G, C = k_BSGC.shape
    group = q_BTHC.shape[2] // G
    k = k_BSGC.double().repeat_interleave(group, 2)
    scores = scale * torch.einsum("bthc,bshc->bhts", q_BTHC.double(), k)
    sizes = abs(scale) * torch.einsum("bthc,bshc->bhts", q_BTHC.double().abs(), k.abs())
    seen = torch.ones(S, S, dtype=torch.bool, device=k.device).tril()
    p_BHTS = scores.masked_fill(~seen, -math.inf).softmax(-1)
    error_BHT1 = sizes.amax(-1, keepdim=True) * NORMAL * math.sqrt(C) * unit_roundoff(torch.float32)
    records = []
    for start in range(0, S, C):
        width = min(C, S - start)
        v = torch.zeros_like(k_BSGC)
        v[:, torch.arange(start, start + width), :, torch.arange(width)] = 1
        found = attend(q_BTHC, k_BSGC, v)[..., :width].transpose(1, 2)
        p = p_BHTS[..., start : start + width]
        u = unit_roundoff(found.dtype)
        records.append(_within("one-hot V shows the probabilities", p, found, p * (2 * u + 2 * error_BHT1) + u * u))
    return max(records, key=lambda record: record.largest)


def rope_shift(
    rotate: Callable[[Tensor, Tensor], Tensor], q_BTHC: Tensor, k_BTHC: Tensor, positions_BT: Tensor, shift: int
) -> LawRecord:
    """Moving all positions by ``shift`` leaves every score q.k as it is: only distances count.

    ``rotate(x_BTHC, positions_BT)``. Allowed: each rotated channel rounds four times, on either side and in both runs,
    and the tables' angles are float32 at best. Vacuous where rotation changes nothing.
    """
    before, after = (
        torch.einsum("bthc,bshc->bhts", rotate(q_BTHC, p).double(), rotate(k_BTHC, p).double())
        for p in (positions_BT, positions_BT + shift)
    )
    sizes = _pair_norms(q_BTHC, k_BTHC)
    angle = float(positions_BT.abs().max()) + abs(shift)
    u = 16 * unit_roundoff(q_BTHC.dtype) + 2 * angle * unit_roundoff(torch.float32)
    record = _within("RoPE shift", before, after, u * sizes)
    still = bool((bits(rotate(q_BTHC, positions_BT)) == bits(rotate(q_BTHC, positions_BT + shift))).all())
    if still:
        return LawRecord(record.law, record.compared, record.differing, record.largest, record.allowed, "nothing turns")
    return record


def _pair_norms(q_BTHC: Tensor, k_BTHC: Tensor) -> Tensor:
    q_BHT, k_BHS = (x.double().square().sum(-1).sqrt().transpose(1, 2) for x in (q_BTHC, k_BTHC))
    return q_BHT[..., None] * k_BHS[:, :, None]


def _within(law: str, expected: Tensor, found: Tensor, allowed: Tensor) -> LawRecord:
    """``largest`` is the largest observed/allowed, which may be 1."""
    if expected.shape != found.shape:
        return LawRecord(law, expected.numel(), expected.numel(), math.inf, 1.0)
    ratio = ((found.double() - expected).abs() / allowed).nan_to_num(nan=math.inf)
    return LawRecord(law, expected.numel(), int((ratio > 1).sum()), float(ratio.max()), 1.0)

"""Laws of long positions: rotation and attention against float64, computed here, at the edges of what formats hold.

Whole numbers end at 256 in bfloat16 and at 2,048 in float16, and int16 at 32,767; tables end where they were made to.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from aprender.parity.laws import LawRecord, compared
from aprender.parity.rounding import unit_roundoff
from aprender.parity.tails import NORMAL
from aprender.transformer.config import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling
from aprender.transformer.oracle import rope
from falsifiers.cuda_laws_attention import SCALE, in_order, merged, narrow, traced
from falsifiers.cuda_laws_attention_backward import at_one_query
from falsifiers.cuda_laws_system import POSITIONS, THETA, WINDOW, C, H, Laws, configured
from falsifiers.cuda_operator_cases import Draw

LAWS = Laws()
LONG = (0, 1, 255, 256, 257, 2047, 2048, 2049, 4095, POSITIONS - 1)
BEYOND = (POSITIONS, POSITIONS + 1, 8191, 2**16 + 7, 2**31 - 1, -1, -POSITIONS)
EDGES = (256, 2048, 4095, 2**15, 2**16)
KEYS = 2049
# Of Llama 3's, pairs that are kept, slowed and between. YaRN's ramp inside the pairs, with whole ends and as it falls;
# cut off at both ends; and of no width.
SCALINGS: tuple[RopeScaling | None, ...] = (
    None,
    LinearScaling(2.5),
    Llama3Scaling(6.0, 1.25, 3.5, 48),
    YarnScaling(3.0, 8.0, 0.75, 1.17, True, 2000),
    YarnScaling(4.5, 8.0, 0.75, 0.83, False, 2000),
    YarnScaling(4.5, 8.0, 1e-9, 0.83, False, 40),
    YarnScaling(2.0, 9.0, 8.0, 1.1, True, 40),
)


@LAWS.of("rope_ratio", "rope")
def rotation(d: Draw, rotate: Any) -> LawRecord:
    """Forward and backward: tables, products and their sum round in float32, the result once in the storage dtype."""
    position = torch.tensor([LONG], device=d.device)
    x = d.normal(1, len(LONG), H, C)
    cos, sin = rope.tables(position, C, THETA, None, torch.float64)
    y, saved = rotate.forward(x, position)
    (back,), _ = rotate.backward(saved, x)
    a, b = x.double().abs().chunk(2, -1)
    cos_size, sin_size = cos.abs()[:, :, None], sin.abs()[:, :, None]
    sizes = torch.cat((a * cos_size + b * sin_size, b * cos_size + a * sin_size), -1)
    ratio = 0.0
    for found, z in ((y, rope.rotate(x.double(), cos, sin)), (back, rope.rotate_vjp(x.double(), cos, sin))):
        allowed = 1.01 * (3 * unit_roundoff(torch.float32) * sizes + unit_roundoff(d.dtype) * z.abs())
        ratio = max(ratio, float(((found.double() - z).abs() / allowed).nan_to_num(math.inf).max()))
    return LawRecord("rotation", 2 * x.numel(), int(ratio > 1), ratio, 1.0)


@LAWS.of("tables_ratio", "tables", interpreted="float32")
def tables_of_every_scaling(d: Draw, tables: Any) -> LawRecord:
    """What a configuration says, in float64, rounded to float32 once.

    Ten roundings of a frequency in float64 move the last angle's cosine by less than 2^-37, here and there.
    """
    ratio, compared_elements = 0.0, 0
    for scaling in SCALINGS:
        exact = rope.tables(torch.arange(POSITIONS)[None], C, THETA, scaling, torch.float64)
        for found, z in zip(tables(configured(scaling), POSITIONS, d.device), exact, strict=True):
            allowed = 1.01 * unit_roundoff(torch.float32) * z[0].abs() + 2**-36
            ratio = max(ratio, float(((found.cpu().double() - z[0]).abs() / allowed).nan_to_num(math.inf).max()))
            compared_elements += found.numel()
    return LawRecord("tables", compared_elements, int(ratio > 1), ratio, 1.0)


@LAWS.of("beyond_differing", "rope")
def beyond_the_table(d: Draw, rotate: Any) -> LawRecord:
    """A position that the tables do not have gives NaN, in both directions; its neighbours are as they were."""
    known = torch.tensor([[5, *[7] * len(BEYOND), POSITIONS - 1]], device=d.device)
    position = known.clone()
    position[0, 1:-1] = torch.tensor(BEYOND)
    x = d.normal(1, known.shape[1], H, C)
    records = []
    for at in (position, position.int()):
        y, saved = rotate.forward(x, at)
        for found, right in ((y, rotate(x, known)), (rotate.backward(saved, x)[0][0], None)):
            inside = torch.zeros_like(found, dtype=torch.bool)
            inside[:, 1:-1] = True
            records.append(compared("beyond", inside, found.isnan()))
            if right is not None:
                records.append(compared("beside", right[~inside], found[~inside]))
    return merged(records)


@LAWS.of("attention_ratio", "attention")
def last_queries_of_many_keys(d: Draw, attention: Any) -> LawRecord:
    """Queries at long positions over all 2,049 keys of one head; on a GPU every query.

    Allowed: an error of the scores moves a weight twice, at most, by as much; weights, and the result, round to the
    storage dtype; sums of S and C terms round in float32.
    """
    position = torch.arange(KEYS, device=d.device)[None]
    at = position if d.device.type == "cuda" else torch.tensor([[255, 256, 257, 2047, 2048]], device=d.device)
    q, k, v = d.normal(1, at.shape[1], 1, C), d.normal(1, KEYS, 1, C), d.normal(1, KEYS, 1, C)
    found = attention(q, k, v, at, position)[0, :, 0].double()
    q_TC, k_SC, v_SC = (x[0, :, 0].double() for x in (q, k, v))
    seen = position <= at.mT
    p = (q_TC @ k_SC.T * SCALE).masked_fill(~seen, -math.inf).softmax(-1)
    u, u32 = unit_roundoff(d.dtype), unit_roundoff(torch.float32)
    error_T1 = (q_TC.abs() @ k_SC.abs().T).amax(-1, keepdim=True) * SCALE * (NORMAL * math.sqrt(C) + 2) * u32
    sizes = p @ v_SC.abs()
    allowed = sizes * (2 * error_T1 + (4 + NORMAL * seen.sum(-1, keepdim=True).sqrt()) * u32 + 2 * u)
    ratio = float(((found - p @ v_SC).abs() / allowed).nan_to_num(math.inf).max())
    return LawRecord("long attention", found.numel(), int(ratio > 1), ratio, 1.0)


def _around(d: Draw, middle: int) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    qkv = narrow(d, 9)
    return qkv, (in_order(qkv[0], middle - 4), torch.zeros(1, 9, dtype=torch.int64, device=d.device))


@LAWS.of("window_differing", "attention_window", interpreted="float32")
def windows_at_long_positions(d: Draw, attention: Any) -> LawRecord:
    """A key's NaN shows within its window, wherever positions are."""
    return merged([traced(attention, *_around(d, middle), (2,), WINDOW) for middle in EDGES])


@LAWS.of("backward_differing", "attention_window", interpreted="float32")
def gradients_at_long_positions(d: Draw, attention: Any) -> LawRecord:
    """A query's gradient goes to the keys within its window."""
    return merged([at_one_query(attention, *_around(d, middle), 6, 1, WINDOW) for middle in EDGES])

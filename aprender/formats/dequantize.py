"""Blocks of quantized values to float32, bit for bit as ``gguf.quants.dequantize`` does it and up to 20 times as fast.

Each function fills ``out_NE`` (float32, N blocks of E values) from ``blocks_NB`` (uint8, N blocks of B bytes). What the
package spends on temporaries and 16 rows at a time is saved by working in place on pieces that stay in the cache. The
layouts are those of ggml's ggml-quants.c; types without a function here are left to the package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType
from gguf.quants import dequantize as reference

from aprender.formats.tensor_table import APR_Q4, DTYPES

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Dequantizer = Callable[[Bytes, Floats], None]


def dequantizer(dtype: str) -> Dequantizer | None:
    """The function for ``dtype``, or None where nobody has one."""
    if dtype in _FUNCTIONS:
        return _FUNCTIONS[dtype]
    kind = GGMLQuantizationType.__members__.get(dtype)
    if kind is None:
        return None
    try:
        reference(np.zeros((1, DTYPES[dtype][1]), np.uint8), kind)
    except NotImplementedError:
        return None

    def by_package(blocks_NB: Bytes, out_NE: Floats) -> None:
        out_NE[:] = reference(blocks_NB, kind).reshape(out_NE.shape)

    return by_package


def _half(blocks_NB: Bytes, at: int) -> Floats:
    """The float16 at byte ``at`` of each block, as float32 [N, 1]."""
    return np.ascontiguousarray(blocks_NB[:, at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed_NGK: Bytes) -> Bytes:
    """[N, G, K] bytes to [N, G, 2, K] values: all low halves of a group, then all high halves."""
    nibbles = np.empty((*packed_NGK.shape[:2], 2, packed_NGK.shape[2]), np.uint8)
    np.bitwise_and(packed_NGK, 15, out=nibbles[:, :, 0])
    np.right_shift(packed_NGK, 4, out=nibbles[:, :, 1])
    return nibbles


def _fill(out_NE: Floats, values: npt.NDArray[Any], scale_NG: Floats, minimum_NG: Floats | None = None) -> None:
    """Out = scale * value (- minimum), where G scales serve E / G neighbouring values each."""
    out = out_NE.reshape(*scale_NG.shape, -1)
    np.copyto(out, values.reshape(out.shape))
    out *= scale_NG[..., None]
    if minimum_NG is not None:
        out -= minimum_NG[..., None]


def _q4_0(blocks_NB: Bytes, out_NE: Floats) -> None:
    values = _nibbles(blocks_NB[:, None, 2:]).view(np.int8)
    values -= 8
    _fill(out_NE, values, _half(blocks_NB, 0))


def _q4_1(blocks_NB: Bytes, out_NE: Floats) -> None:
    _fill(out_NE, _nibbles(blocks_NB[:, None, 4:]), _half(blocks_NB, 0))
    out_NE += _half(blocks_NB, 2)


def _five_bits(high_N4: Bytes, low_NK: Bytes) -> Bytes:
    """[N, 32] values of five bits: the fifth of each in the four bytes ``high_N4``, the others in nibbles."""
    fifth = np.unpackbits(high_N4, axis=1, bitorder="little")
    np.left_shift(fifth, 4, out=fifth)
    fifth |= _nibbles(low_NK[:, None]).reshape(fifth.shape)
    return fifth


def _q5_0(blocks_NB: Bytes, out_NE: Floats) -> None:
    values = _five_bits(blocks_NB[:, 2:6], blocks_NB[:, 6:]).view(np.int8)
    values -= 16
    _fill(out_NE, values, _half(blocks_NB, 0))


def _q5_1(blocks_NB: Bytes, out_NE: Floats) -> None:
    _fill(out_NE, _five_bits(blocks_NB[:, 4:8], blocks_NB[:, 8:]), _half(blocks_NB, 0))
    out_NE += _half(blocks_NB, 2)


def _q8_0(blocks_NB: Bytes, out_NE: Floats) -> None:
    _fill(out_NE, blocks_NB[:, 2:].view(np.int8), _half(blocks_NB, 0))


def _apr_q4(blocks_NB: Bytes, out_NE: Floats) -> None:
    """Unlike Q4_0, a byte holds two neighbours: the low nibble first."""
    values = np.empty((len(blocks_NB), 16, 2), np.uint8)
    np.bitwise_and(blocks_NB[:, 2:], 15, out=values[..., 0])
    np.right_shift(blocks_NB[:, 2:], 4, out=values[..., 1])
    signed = values.view(np.int8)
    signed -= 8
    _fill(out_NE, signed, _half(blocks_NB, 0))


def _scales_and_minima(blocks_NB: Bytes) -> tuple[Floats, Floats]:
    """Of Q4_K and Q5_K: eight scales and eight minima of six bits, packed into bytes 4 to 16."""
    low, minimum, high = (blocks_NB[:, at : at + 4] for at in (4, 8, 12))
    scale_N8 = np.concatenate([low & 63, (high & 15) | ((low >> 2) & 48)], axis=1)
    minimum_N8 = np.concatenate([minimum & 63, (high >> 4) | ((minimum >> 2) & 48)], axis=1)
    return _half(blocks_NB, 0) * scale_N8, _half(blocks_NB, 2) * minimum_N8


def _q4_k(blocks_NB: Bytes, out_NE: Floats) -> None:
    _fill(out_NE, _nibbles(blocks_NB[:, 16:].reshape(-1, 4, 32)), *_scales_and_minima(blocks_NB))


def _q5_k(blocks_NB: Bytes, out_NE: Floats) -> None:
    values_N832 = _nibbles(blocks_NB[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    high_N32 = blocks_NB[:, 16:48]
    for group in range(8):  # bit number `group` of each of the 32 bytes is the fifth of that group's values
        fifth_N32 = high_N32 << (4 - group) if group < 4 else high_N32 >> (group - 4)
        fifth_N32 &= 16
        values_N832[:, group] |= fifth_N32
    _fill(out_NE, values_N832, *_scales_and_minima(blocks_NB))


def _q6_k(blocks_NB: Bytes, out_NE: Floats) -> None:
    low_N2232 = blocks_NB[:, :128].reshape(-1, 2, 2, 32)
    high_N232 = blocks_NB[:, 128:192].reshape(-1, 2, 32)
    values = np.empty((len(blocks_NB), 2, 4, 32), np.uint8)
    np.bitwise_and(low_N2232, 15, out=values[:, :, :2])
    np.right_shift(low_N2232, 4, out=values[:, :, 2:])
    for group, upper in enumerate((high_N232 << 4, high_N232 << 2, high_N232.copy(), high_N232 >> 2)):
        upper &= 48
        values[:, :, group] |= upper
    signed = values.view(np.int8)
    signed -= 32
    _fill(out_NE, signed, _half(blocks_NB, 208) * blocks_NB[:, 192:208].view(np.int8))


_FUNCTIONS: dict[str, Dequantizer] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    APR_Q4: _apr_q4,
}

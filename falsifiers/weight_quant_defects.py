"""Planted defects of dequantization: values and scales that don't belong together."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any
from unittest.mock import patch

import numpy as np

from aprender.falsify.probe import Defects
from aprender.formats import apr_header, dequantize, stored
from falsifiers.weight_system import WeightLoading

Planting = Generator[None]
DEFECTS = Defects()


def _dequantized_otherwise(change: Callable[[Any], Any]) -> Planting:
    original = dequantize.dequantizer

    def dequantizer(dtype: str) -> Any:
        function = original(dtype)
        return function and (lambda blocks, out: function(np.ascontiguousarray(change(blocks)), out))

    with patch.object(stored, "dequantizer", dequantizer):
        yield


@DEFECTS.plant("quant_block_shifted_by_one")
def quant_block_shifted_by_one(_: WeightLoading) -> Planting:
    """Each block of a quantized tensor is written where its neighbour belongs."""
    return _dequantized_otherwise(lambda blocks: np.roll(blocks, 1, axis=0))


@DEFECTS.plant("quant_scale_of_the_next_block")
def quant_scale_of_the_next_block(_: WeightLoading) -> Planting:
    """Values are right, their scale is the neighbouring block's."""
    original = dequantize._half
    with patch.object(dequantize, "_half", lambda blocks, at: np.roll(original(blocks, at), 1, axis=0)):
        yield


@DEFECTS.plant("quant_minimum_ignored")
def quant_minimum_ignored(_: WeightLoading) -> Planting:
    """Q4_K and Q5_K have a minimum beside the scale; a kernel for types without one reads them."""
    original = dequantize._fill
    with patch.object(dequantize, "_fill", lambda out, values, scale, minimum=None: original(out, values, scale)):
        yield


@DEFECTS.plant("q4_k_read_with_swapped_nibbles")
def q4_k_read_with_swapped_nibbles(_: WeightLoading) -> Planting:
    """High halves first."""
    original = dequantize._nibbles
    with patch.object(dequantize, "_nibbles", lambda packed: original(packed)[:, :, ::-1].copy()):
        yield


@DEFECTS.plant("dtype_id_reused")
def dtype_id_reused(_: WeightLoading) -> Planting:
    """Byte 8 of an .apr index once meant ggml's Q8_0."""
    with patch.dict(apr_header.TYPES, {8: "Q8_0"}):
        yield

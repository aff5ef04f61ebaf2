"""Values that aren't finite are found wherever they are, in every dtype, and described by place."""

from __future__ import annotations

import pytest
import torch

from aprender.formats.finite import all_finite, describe_non_finite

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", ["nan", "-nan", "inf", "-inf"])
def test_one_value_anywhere_is_found(dtype: torch.dtype, value: str) -> None:
    """First, last, and at the seams of the pieces that are looked at."""
    tensor = torch.ones((3, 50_001), dtype=dtype)
    for place in (0, 1, 131_071, 131_072, 150_002):
        tensor.view(-1)[place] = float(value)
        assert not all_finite(tensor)
        tensor.view(-1)[place] = 1
    assert all_finite(tensor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_and_smallest_values_are_finite(dtype: torch.dtype) -> None:
    """Extremes, zeros of both signs and subnormals are no alarm."""
    info = torch.finfo(dtype)
    values = [info.max, info.min, info.tiny, info.smallest_normal, info.smallest_normal / 4, 0.0, -0.0]
    assert all_finite(torch.tensor(values, dtype=dtype))
    assert all_finite(torch.empty((0, 4), dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_bit_pattern_is_judged_as_torch_does(dtype: torch.dtype) -> None:
    """All 65,536 patterns of the half precisions."""
    for start in range(-(2**15), 2**15, 64):
        values = torch.arange(start, start + 64, dtype=torch.int16).view(dtype)
        assert all_finite(values) == bool(values.isfinite().all())


def test_the_description_names_the_first_place() -> None:
    """Count, value and index in the tensor's own shape."""
    tensor = torch.zeros(4, 5, 6)
    tensor[2, 3, 4] = float("-inf")
    assert describe_non_finite(tensor) == "1 value not finite, the first is -inf at [2, 3, 4]"
    tensor[1, 0, 5] = float("nan")
    assert describe_non_finite(tensor) == "2 values not finite, the first is nan at [1, 0, 5]"

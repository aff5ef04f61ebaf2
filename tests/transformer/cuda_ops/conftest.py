"""Both dtypes, and tiles of which a tiny input has several."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from aprender.transformer.cuda.ops.blocks import small_tiles


@pytest.fixture
def device(device: torch.device) -> Iterator[torch.device]:
    """The device that the kernels of this process run on; in the interpreter with small tiles."""
    with small_tiles():
        yield device


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    dtype: torch.dtype = request.param
    return dtype

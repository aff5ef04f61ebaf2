"""Where the CUDA path runs: in Triton's interpreter on a machine without a GPU, compiled on one with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from aprender.transformer.cuda.ops import use_float32_accumulation
from aprender.transformer.cuda.ops.runtime import HAS_TRITON, INTERPRETED


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device that the kernels of this process run on; the other one is skipped."""
    if not HAS_TRITON:
        pytest.skip("needs triton")
    name: str = request.param
    if name == "cuda" and (INTERPRETED or not torch.cuda.is_available()):
        pytest.skip("needs a CUDA device and TRITON_INTERPRET unset")
    if name == "cpu" and not INTERPRETED:
        pytest.skip("the kernels are compiled for CUDA in this process")
    before = torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    use_float32_accumulation()
    yield torch.device(name)
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = before[1]

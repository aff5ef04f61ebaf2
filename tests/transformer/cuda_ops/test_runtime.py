"""Triton missing, its interpreter, and devices: each case either runs as stated or says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops import FusedLinear, Linear, Logits, SwiGLU, runtime
from aprender.transformer.cuda.ops.interpreter import from_bfloat16_bits, to_bfloat16_bits
from aprender.transformer.cuda.ops.runtime import check_device, launch, library_kernel, tl, triton

ROOT = Path(__file__).parents[3]


@triton.jit
def round_trip(x, y, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.arange(0, BLOCK)
    value = tl.load(x + place, mask=place < n).to(y.dtype.element_ty)
    tl.store(y + place, value, mask=place < n)


@triton.jit
def multiply(a, b, c):  # type: ignore[no-untyped-def]
    row, column = tl.arange(0, 16)[:, None], tl.arange(0, 16)[None, :]
    tile = tl.dot(tl.load(a + row * 16 + column), tl.load(b + row * 16 + column), input_precision="ieee")
    tl.store(c + row * 16 + column, tile)


def python(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_without_triton_stages_say_so_and_the_rest_imports() -> None:
    code = """
import sys
sys.modules["triton"] = None
import aprender.transformer.cuda
from aprender.errors import AprenderError
from aprender.transformer.cuda.ops import Linear, SwiGLU
Linear(None, None)
try:
    SwiGLU()
except AprenderError as error:
    print(error)
"""
    assert "pip install triton" in python(code)


def test_triton_imported_too_early_is_named() -> None:
    code = """
import os
os.environ["TRITON_INTERPRET"] = "0"
import triton
os.environ["TRITON_INTERPRET"] = "1"
from aprender.errors import AprenderError
from aprender.transformer.cuda.ops import SwiGLU
try:
    SwiGLU()
except AprenderError as error:
    print(error)
"""
    assert "TRITON_INTERPRET=1 in the environment" in python(code)


def test_devices_that_the_kernels_do_not_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "INTERPRETED", True)
    with pytest.raises(AprenderError, match="unset it to use the GPU"):
        check_device(torch.device("cuda"))
    monkeypatch.setattr(runtime, "INTERPRETED", False)
    with pytest.raises(AprenderError, match="move the tensors to 'cuda'"):
        check_device(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(AprenderError, match="unset TRITON_INTERPRET"):
        SwiGLU()


def test_bfloat16_is_rounded_to_nearest_even(device: torch.device) -> None:
    """Every exponent, ties on both sides, signs, inf and NaN: the kernels' cast is torch's."""
    generator = torch.Generator().manual_seed(1)
    bits = torch.randint(-(2**31), 2**31, (4096,), generator=generator, dtype=torch.int64).to(torch.int32)
    bits[:2048] &= -65536
    bits[:1024] |= 0x8000  # exactly between two bfloat16 numbers
    x = bits.view(torch.float32).to(device)
    y = torch.empty(4096, dtype=torch.bfloat16, device=device)
    launch(round_trip, (1,), x, y, 4096, BLOCK=4096)
    assert torch.equal(torch.nan_to_num(y, nan=7.0), torch.nan_to_num(x.bfloat16(), nan=7.0))
    back = torch.empty(4096, dtype=torch.float32, device=device)
    launch(round_trip, (1,), y, back, 4096, BLOCK=4096)
    assert torch.equal(torch.nan_to_num(back, nan=7.0), torch.nan_to_num(y.float(), nan=7.0))
    integers = torch.arange(-300, 300, dtype=torch.int32, device=device)
    out = torch.empty(600, dtype=torch.bfloat16, device=device)
    launch(round_trip, (1,), integers, out, 600, BLOCK=1024)
    assert torch.equal(out, integers.bfloat16())
    assert (from_bfloat16_bits(to_bfloat16_bits(torch.ones(3).numpy())) == 1.0).all()


def test_dot_multiplies_values(dtype: torch.dtype, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.randint(-9, 9, (16, 16), generator=generator).to(device, dtype) for _ in range(2))
    c = torch.empty(16, 16, device=device)
    launch(multiply, (1,), a, b, c)
    assert torch.equal(c, (a.double() @ b.double()).float())


def test_kernels_compile_for_an_h100_without_one() -> None:
    """The interpreter accepts what the compiler does not: types that change in a loop, for one."""
    environment = {"TRITON_INTERPRET": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.transformer.cuda_ops.compile_kernels", "quick"]
    result = subprocess.run(
        command, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    kernels = {line.split()[0] for line in result.stdout.splitlines()}
    assert {"attention_forward", "attention_backward_keys", "cross_entropy", "adamw_step"} <= kernels
    shared = [int(line.split("shared=")[1].split()[0]) for line in result.stdout.splitlines()]
    assert max(shared) <= 227 * 1024  # an H100's shared memory per block


def test_library_calls_are_named_by_the_library_that_makes_them() -> None:
    """Evidence records these names: a product of cuBLAS is not torch's, and nothing is added where there is no bias."""
    weight, bias = torch.ones(3, 4), torch.ones(3)
    with_bias, without, logits = Linear(weight, bias), Linear(weight, None), Logits(weight)
    assert (with_bias.kernel, with_bias.backward_kernel) == ("cpu:mm+torch:add", "cpu:mm+cpu:mm+torch:sum")
    fused = FusedLinear(weight, bias, (2, 1))
    assert (fused.kernel, fused.backward_kernel) == (with_bias.kernel, "torch:cat+" + with_bias.backward_kernel)
    assert (without.kernel, without.backward_kernel, logits.kernel) == ("cpu:mm", "cpu:mm+cpu:mm", "cpu:mm")
    assert library_kernel(torch.device("cuda"), "mm", "add") == "cublas:mm+torch:add"

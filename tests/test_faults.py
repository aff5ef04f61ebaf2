"""Faults of devices, drivers and compilers in one line each, from the errors as torch and triton raise them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from aprender.errors import AprenderError
from aprender.faults import DeviceFault, explained, in_kernel, let_go, located, located_at

ROOT = Path(__file__).parents[1]
ASYNCHRONOUS = "\nCUDA kernel errors might be asynchronously reported at some other API call."
OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of which 11.06 MiB is free. "
    "Including non-PyTorch memory, this process has 23.60 GiB memory in use."
)


def triton_error(name: str, *arguments: object) -> Exception:
    errors = pytest.importorskip("triton.runtime.errors")
    error: Exception = getattr(errors, name)(*arguments)
    return error


@pytest.mark.parametrize(
    ("error", "said", "remedy"),
    [
        (torch.OutOfMemoryError(OUT_OF_MEMORY), "out of GPU memory (20.00 MiB were asked for, 11.06 MiB of 79.11 GiB are free on GPU 0)", "use fewer rows or positions"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "out of GPU memory", "nvidia-smi"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "out of GPU memory", "bfloat16"),
        (MemoryError("Unable to allocate 7.28 TiB for an array"), "out of memory (Unable to allocate 7.28 TiB", "a smaller model"),
        (MemoryError(), "out of memory; use", "a machine with more memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory ([Errno 12] Cannot allocate memory)", "a machine with more memory"),
        (RuntimeError("std::bad_alloc"), "out of memory (std::bad_alloc)", "a smaller model"),
        (torch.AcceleratorError(f"CUDA error: CUDA-capable device(s) is/are busy or unavailable{ASYNCHRONOUS}"), "the GPU is busy", "CUDA_VISIBLE_DEVICES"),
        (RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"), "exclusive-process", "end that process"),
        (torch.AcceleratorError(f"CUDA error: no kernel image is available for execution on the device{ASYNCHRONOUS}"), "too old or too new", "install a torch built for it"),
        (RuntimeError("The NVIDIA driver on your system is too old (found version 11040)."), "driver is older", "update the driver"),
        (RuntimeError("Found no NVIDIA driver on your system."), "no CUDA device", "use the CPU"),
        (AssertionError("Torch not compiled with CUDA enabled"), "no CUDA device", "CUDA build of torch"),
        (RuntimeError("0 active drivers ([]). There should only be one."), "no CUDA device", "CUDA_VISIBLE_DEVICES"),
        (RuntimeError("Failed to find C compiler. Please specify via CC environment variable."), "C compiler", "install gcc"),
        (torch.AcceleratorError(f"CUDA error: an illegal memory access was encountered{ASYNCHRONOUS}"), "a kernel failed on the GPU", "CUDA_LAUNCH_BLOCKING=1"),
        (torch.AcceleratorError(f"CUDA error: device-side assert triggered{ASYNCHRONOUS}"), "computes nothing more for this process", "start it anew"),
        (torch.AcceleratorError("CUDA error: operation not supported"), "the GPU or its driver failed (CUDA error: operation not supported)", "nvidia-smi"),
        (RuntimeError("PassManager::run failed"), "the kernel does not compile", "triton from 3.6 to 3.9"),
    ],
)  # fmt: skip
def test_each_fault_is_one_line_with_its_remedy(error: Exception, said: str, remedy: str) -> None:
    message = explained(error)
    assert message is not None
    assert said in message
    assert remedy in message
    assert "\n" not in message
    wrapped = ValueError("the probe gave up")
    wrapped.__cause__ = error
    assert explained(wrapped) == message


@pytest.mark.parametrize(
    "error",
    [
        ValueError("CUDA error"),
        RuntimeError("shapes differ"),
        AprenderError("no such file"),
        KeyError("memory"),
        AssertionError("no CUDA error"),
        OSError("CUDA error"),
    ],
)
def test_other_errors_are_left_alone(error: Exception) -> None:
    """An error of the user's own code is not taken for the machine's."""
    assert explained(error) is None
    assert located(error, "here") is None
    with pytest.raises(type(error)) as caught, located_at("here"):
        raise error
    assert caught.value is error


def test_what_the_compilers_back_end_refuses() -> None:
    message = explained(triton_error("OutOfResources", 262144, 232448, "shared memory"))
    assert message is not None
    assert "needs 262144 of shared memory, this GPU has 232448" in message
    message = explained(triton_error("PTXASError", "`ptxas` failed with error code 255\nstderr: no"))
    assert message is not None
    assert "does not compile: `ptxas` failed with error code 255 stderr: no" in message


def test_memory_that_is_not_there_for_a_real_allocation() -> None:
    said = r"^the cache: out of memory \(1125899906842624 bytes were asked for\)"
    with pytest.raises(DeviceFault, match=said), located_at("the cache"):
        torch.empty(2**50, dtype=torch.uint8)


def test_the_innermost_place_stays() -> None:
    """A kernel in a stage in a pass: each says where it is once, and a pass adds nothing to what is placed."""
    kernel = in_kernel(RuntimeError("Triton Error [CUDA]: out of memory"), "triton:swiglu_forward")
    stage = located(kernel, "stage layers.1.swiglu")
    assert str(stage).startswith("stage layers.1.swiglu: launching triton:swiglu_forward: out of GPU memory")
    with pytest.raises(DeviceFault) as caught, located_at("forward"):
        raise kernel
    assert caught.value is kernel


def test_what_the_failed_call_held_is_freed() -> None:
    class Held:
        pass

    alive: list[weakref.ref[Held]] = []

    def fails() -> None:
        held = Held()
        alive.append(weakref.ref(held))
        raise RuntimeError("CUDA error: out of memory")

    with pytest.raises(RuntimeError) as caught:
        fails()
    assert alive[0]() is not None
    let_go(caught.value)
    assert alive[0]() is None
    assert str(caught.value) == "CUDA error: out of memory"


COMPILE = """
import sys
import torch
from aprender.faults import in_kernel
from aprender.transformer.cuda.ops.runtime import tl, triton
from tests.broken_kernels import unlike_shapes
from tests.transformer.cuda_ops.compile_kernels import compile_for_h100
try:
    compile_for_h100(unlike_shapes, (torch.empty(64, device="meta"),), {})
except Exception as error:
    print(in_kernel(error, "triton:unlike_shapes"))
"""


def test_a_kernel_that_really_does_not_compile() -> None:
    """Triton's own compiler, for an H100 that is not here, refuses it: the line of the kernel and what is wrong."""
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.strip()
    assert said.startswith("launching triton:unlike_shapes: the kernel does not compile: `total = ")
    assert "32" in said
    assert "64" in said
    assert "\n" not in said

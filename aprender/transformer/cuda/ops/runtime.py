"""Triton: where it comes from, whether its interpreter runs the kernels, and which kernels really ran.

The kernels are the same code in both cases. On a machine without a CUDA device this module sets TRITON_INTERPRET=1,
before triton is imported, and the kernels run on CPU tensors, slowly, in Triton's interpreter: so the code that ships
is the code that CI falsifies. On a machine with a CUDA device they are compiled for it, unless TRITON_INTERPRET=1 is
in the environment already. There is no third way and no fallback: a tensor on the wrong device is an AprenderError.

Kernel modules import ``tl`` and ``triton`` from here. Without triton installed both are stand-ins that let the modules
be imported; ``require_triton`` then says what to do when the first stage is built.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.faults import DeviceFault, in_kernel

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


class _NoTriton:
    """Stands in for triton so that kernels can be defined; nothing can be launched."""

    @staticmethod
    def jit(function: Callable[..., None]) -> Callable[..., None]:
        return function


try:
    import triton
    import triton.language as tl
except ModuleNotFoundError as error:
    if error.name != "triton":
        raise
    triton = tl = _NoTriton

__all__ = [
    "HAS_TRITON",
    "INTERPRETED",
    "OPTIONS",
    "check_device",
    "kernels_that_ran",
    "launch",
    "library_kernel",
    "note_library",
    "require_triton",
    "tl",
    "triton",
    "triton_kernel",
]

# A product and a sum are two roundings, as in the interpreter. Fused into one where the compiler sees fit, a masked and
# an unmasked loop over the same tile would differ in bits, and padding would show in results.
OPTIONS = {"enable_fp_fusion": False}

HAS_TRITON = triton is not _NoTriton
LEAST_CAPABILITY = (8, 0)  # of a GPU: triton compiles for none older, and those have no bfloat16
INTERPRETED = HAS_TRITON and bool(triton.knobs.runtime.interpret)

if INTERPRETED:
    from aprender.transformer.cuda.ops.interpreter import repair

    repair()

_logs: list[list[str]] = []


def require_triton() -> None:
    """Raise AprenderError when no Triton kernel can run in this process, with the remedy."""
    if not HAS_TRITON:
        raise AprenderError("the kernels of the CUDA path need triton, which is not installed: pip install triton")
    if INTERPRETED and isinstance(tl.sum, triton.runtime.JITFunction):
        raise AprenderError(
            "triton was imported before aprender could switch its interpreter on: "
            "set TRITON_INTERPRET=1 in the environment, or import aprender.transformer.cuda.ops first"
        )
    if not INTERPRETED and not torch.cuda.is_available():
        raise AprenderError(
            "TRITON_INTERPRET=0 is set, but there is no CUDA device to compile the kernels for: unset TRITON_INTERPRET"
        )


def check_device(device: torch.device) -> None:
    """Raise AprenderError when the kernels of this process can't run on tensors of ``device``."""
    if INTERPRETED and device.type != "cpu":
        raise AprenderError(
            f"tensors on {device}, but TRITON_INTERPRET=1 makes the kernels run on the CPU: unset it to use the GPU"
        )
    if not INTERPRETED and device.type != "cuda":
        raise AprenderError(
            f"tensors on {device}, but the kernels are compiled for CUDA: move the tensors to 'cuda', "
            "or set TRITON_INTERPRET=1 before the start to run the kernels on the CPU"
        )
    if device.type == "cuda":
        _check_capability(device)


@cache
def _check_capability(device: torch.device) -> None:
    found = torch.cuda.get_device_capability(device)
    if found < LEAST_CAPABILITY:
        has, needed = (".".join(map(str, capability)) for capability in (found, LEAST_CAPABILITY))
        raise DeviceFault(
            f"{device} ({torch.cuda.get_device_name(device)}) is too old: it has compute capability {has}, the kernels "
            f"need {needed}: choose a newer GPU with CUDA_VISIBLE_DEVICES, or set "
            "TRITON_INTERPRET=1 before the start and use the CPU"
        )


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **meta: Any) -> None:
    """Run a Triton kernel on the device of its first argument, and write its name into the open logs.

    Raises DeviceFault, which names the kernel, where it does not compile or run.
    """
    _note(triton_kernel(kernel))
    try:
        with torch.cuda.device_of(arguments[0]):  # type: ignore[no-untyped-call]
            kernel[grid](*arguments, **OPTIONS, **meta)
    except Exception as error:
        raise in_kernel(error, triton_kernel(kernel)) from error


def triton_kernel(*kernels: Any) -> str:
    """Name Triton kernels as evidence records them: ``triton:NAME``, joined by ``+``."""
    prefix = "triton-interpreter" if INTERPRETED else "triton"
    return "+".join(f"{prefix}:{kernel.fn.__name__}" for kernel in kernels)


def library_kernel(device: torch.device, *names: str) -> str:
    """Name library calls as evidence records them: ``cublas:mm`` on CUDA, ``cpu:mm`` on the CPU, ``torch:sum``."""
    products = "cpu" if device.type == "cpu" else "cublas"
    return "+".join(f"{products if name == 'mm' else 'torch'}:{name}" for name in names)


def note_library(tensor: Tensor, name: str) -> None:
    """Write a library call on ``tensor``'s device into the open logs."""
    _note(library_kernel(tensor.device, name))


@contextmanager
def kernels_that_ran() -> Iterator[list[str]]:
    """Collect the names of the kernels that run inside, in order: what ``Stage.kernel`` claims can be checked."""
    log: list[str] = []
    _logs.append(log)
    try:
        yield log
    finally:
        _logs.remove(log)


def _note(name: str) -> None:
    for log in _logs:
        log.append(name)

"""What a GPU, its driver or a compiler of kernels raises, in one line: what happened, and what to do.

Out of memory, a kernel that does not compile, a GPU that is busy, too old or lost. Errors are known by the names of
their classes and by their words: neither torch nor triton is imported here, so that every layer can use this.
"""

from __future__ import annotations

import errno
import gc
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from aprender.errors import AprenderError

LONGEST = 300  # characters of what somebody else's error says

_SMI = "nvidia-smi shows who uses it"
_OUT_OF_MEMORY = re.compile(
    r"out of memory|CUBLAS_STATUS_ALLOC_FAILED|std::bad_alloc|DefaultCPUAllocator: (can't allocate|not enough) memory",
    re.IGNORECASE,
)
_ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+ \w+)")
_FREE = re.compile(r"GPU (\d+) has a total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free")


class _Fault(NamedTuple):
    """What torch or triton say (a pattern), what it means, and what to do."""

    says: str
    meaning: str
    remedy: str


_DEVICE = (  # the first that matches
    _Fault(
        says=r"devices?(\(s\))? (is/)?are busy or unavailable|cudaErrorDevicesUnavailable",
        meaning="the GPU is busy: another process has it to itself (exclusive-process mode), or it is being reset",
        remedy=f"{_SMI}; end that process, or choose another GPU with CUDA_VISIBLE_DEVICES",
    ),
    _Fault(
        says="no kernel image is available|cudaErrorNoKernelImageForDevice",
        meaning="this build of torch has no kernels for this GPU, which is too old or too new for it",
        remedy="install a torch built for it (torch.cuda.get_arch_list() shows what this one is for), or choose "
        "another GPU with CUDA_VISIBLE_DEVICES",
    ),
    _Fault(
        says="NVIDIA driver on your system is too old|driver version is insufficient",
        meaning="the NVIDIA driver is older than this build of torch needs",
        remedy="update the driver, or install a torch built for an older CUDA",
    ),
    _Fault(
        says="Found no NVIDIA driver|No CUDA GPUs are available|no CUDA-capable device|not compiled with CUDA enabled"
        "|0 active drivers",
        meaning="there is no CUDA device that this build of torch can use",
        remedy="nvidia-smi shows what there is; look at CUDA_VISIBLE_DEVICES, install a CUDA build of torch, or use "
        "the CPU",
    ),
    _Fault(
        says=r"Failed to find C(\+\+)? compiler",
        meaning="triton builds its launcher with a C compiler, and there is none",
        remedy="install gcc, or set CC",
    ),
    _Fault(
        says="illegal (memory access|instruction)|misaligned address|device-side assert|unspecified launch failure"
        "|launch timed out|uncorrectable ECC",
        meaning="a kernel failed on the GPU, which computes nothing more for this process",
        remedy="start it anew, with CUDA_LAUNCH_BLOCKING=1 to see which kernel it was",
    ),
    _Fault(
        says=r"CUDA error|Triton Error \[CUDA\]|CUBLAS_STATUS_",
        meaning="the GPU or its driver failed",
        remedy=f"{_SMI}, and in what state it is",
    ),
)
_REFUSALS = "CompilationError", "PTXASError", "AutotunerError"
_REMEDY = "the input is not at fault: install a triton from 3.6 to 3.9, and report the kernel where that does not help"


class DeviceFault(AprenderError):
    """The GPU, its driver or a kernel's compiler failed; the message says where, what, and what to do."""


def explained(error: BaseException) -> str | None:
    """What happened and what to do, where ``error``, or what it was raised from, is such a fault; else None."""
    causes = list(_causes(error))
    if fault := next((cause for cause in causes if isinstance(cause, DeviceFault)), None):
        return str(fault)
    for known in (_memory, _kernel, _device):
        for cause in causes:
            if message := known(cause):
                return message
    return None


def located(error: Exception, where: str) -> DeviceFault | None:
    """The fault that ``error`` is, with ``where`` before its message, to be raised from it; None where it is none."""
    if isinstance(error, AprenderError) and not isinstance(error, DeviceFault):
        return None
    message = explained(error)
    return None if message is None else DeviceFault(f"{where}: {message}")


@contextmanager
def located_at(where: str) -> Iterator[None]:
    """Raise a fault from inside as ``located`` has it, unless it says already where it was. Also a decorator."""
    try:
        yield
    except DeviceFault:
        raise
    except Exception as error:
        if fault := located(error, where):
            raise fault from error
        raise


def in_kernel(error: Exception, kernel: str) -> DeviceFault:
    """Whatever was raised while ``kernel`` was compiled or run, as a fault that names it, to be raised from it."""
    return DeviceFault(f"launching {kernel}: {explained(error) or in_one_line(error)}")


def in_one_line(error: BaseException) -> str:
    """The type and the words of somebody else's error."""
    return _cut(f"{type(error).__name__}: {error}")


def let_go(error: BaseException) -> None:
    """Free what the failed calls of ``error`` held, and give torch's unused GPU memory back; never raises."""
    for cause in _causes(error):
        traceback.clear_frames(cause.__traceback__)
    gc.collect()
    torch: Any = sys.modules.get("torch")
    with suppress(Exception):  # a lost device can't free anything either
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _memory(error: BaseException) -> str | None:
    text = str(error)
    said = _raised_by_torch(error) and _OUT_OF_MEMORY.search(text)
    refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if not (said or refused or _is(error, "OutOfMemoryError", "MemoryError")):
        return None
    gpu = _FREE.search(text)
    on_gpu = gpu is not None or "CUDA" in text or "CUBLAS" in text
    asked = _ASKED.search(text)
    parts = [f"{asked[1]} were asked for" if asked else _cut(text)] if text else []
    if gpu:
        parts.append(f"{gpu[3]} of {gpu[2]} are free on GPU {gpu[1]}")
    remedy = f"bfloat16, or a GPU with more memory; {_SMI}" if on_gpu else "bfloat16, or a machine with more memory"
    found = f" ({', '.join(parts)})" if parts else ""
    return f"out of {'GPU ' if on_gpu else ''}memory{found}; use fewer rows or positions, a smaller model, {remedy}"


def _kernel(error: BaseException) -> str | None:
    if _is(error, "OutOfResources"):
        needs, has, what = (getattr(error, name, "?") for name in ("required", "limit", "name"))
        return (
            f"the kernel needs {needs} of {what}, this GPU has {has}; use a smaller head_dim or width, or another GPU"
        )
    if _is(error, *_REFUSALS) or "PassManager::run failed" in str(error):
        refusals = [cause for cause in _causes(error) if _is(cause, *_REFUSALS)] or [error]
        return f"the kernel does not compile: {_refusal(refusals[-1])}; {_REMEDY}"
    if _is(error, "InterpreterError"):
        *_, inner = _causes(error)
        return f"the kernel fails in triton's interpreter: {in_one_line(inner)}{_place(inner)}; {_REMEDY}"
    return None


def _refusal(error: BaseException) -> str:
    """What the compiler says, with the line of the kernel that it stopped at."""
    source, line = getattr(error, "src", None), getattr(getattr(error, "node", None), "lineno", None)
    said = _cut(getattr(error, "error_message", None) or str(error))
    if not source or not line:
        return said
    return f"`{source.splitlines()[line - 1].strip()}`: {said}"


def _device(error: BaseException) -> str | None:
    if not _raised_by_torch(error):
        return None
    text = str(error)
    first = text.partition("\n")[0]
    found = next((fault for fault in _DEVICE if re.search(fault.says, text, re.IGNORECASE)), None)
    return found and f"{found.meaning} ({_cut(first)}); {found.remedy}"


def _raised_by_torch(error: BaseException) -> bool:
    """Torch and triton raise RuntimeError, or a subclass, for a device; a build without CUDA an AssertionError."""
    without_cuda = isinstance(error, AssertionError) and str(error).startswith("Torch not compiled with CUDA")
    return isinstance(error, RuntimeError) or without_cuda


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised from, or while handling, from the outermost to the innermost; each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is(error: BaseException, *names: str) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)


def _place(error: BaseException) -> str:
    """The innermost line that is a kernel's: neither our interpreter's nor an installed library's."""
    files = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [f"{path}:{line}" for path, line in files if _is_a_kernels(path)]
    return f" ({own[-1]})" if own else ""


def _is_a_kernels(path: Path) -> bool:
    interprets = path.stem.startswith("interpreter") and path.parent.name in ("ops", "runtime")
    return not interprets and "site-packages" not in path.parts


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."

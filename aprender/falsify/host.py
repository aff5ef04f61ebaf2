"""What this host is and has, found without importing torch."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache
from importlib import metadata
from typing import Any

LIBRARIES = ("torch", "numpy", "triton", "safetensors", "gguf", "tokenizers", "transformers")


@cache
def cuda_missing() -> str | None:
    """Why there is no CUDA device here, or None where there is one. Asks the driver itself."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no CUDA device: the NVIDIA driver (libcuda.so.1) is not installed on this host"
    if code := driver.cuInit(0):
        return f"no CUDA device: the NVIDIA driver does not start (cuInit returned {code})"
    count = ctypes.c_int(0)
    if code := driver.cuDeviceGetCount(ctypes.byref(count)):
        return f"no CUDA device: the NVIDIA driver can't count devices (code {code})"
    return None if count.value else "no CUDA device: the NVIDIA driver sees none"


@cache
def cuda_device_name() -> str | None:
    """The first CUDA device's name, as the driver gives it."""
    if cuda_missing():
        return None
    name = ctypes.create_string_buffer(256)
    code = ctypes.CDLL("libcuda.so.1").cuDeviceGetName(name, len(name), 0)
    return None if code else name.value.decode()


def host_facts() -> dict[str, Any]:
    """The host's name, platform and the versions of the libraries that observations depend on."""
    return {
        "name": platform.node(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
    }


@cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

"""Inputs that a stage has no kernel for are refused in one sentence, before anything is launched."""

from __future__ import annotations

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops.runtime import check_device

STORAGE_DTYPES = (torch.float32, torch.bfloat16)


def check_floats(stage: str, **tensors: Tensor) -> None:
    """Raise AprenderError unless all tensors are float32, or all bfloat16, on one device that the kernels run on."""
    first = next(iter(tensors.values()))
    check_device(first.device)
    for name, tensor in tensors.items():
        if tensor.dtype not in STORAGE_DTYPES:
            raise AprenderError(f"{stage}: {name} is {tensor.dtype}; there are kernels for float32 and bfloat16")
        if tensor.dtype != first.dtype:
            raise AprenderError(f"{stage}: {name} is {tensor.dtype}, but {next(iter(tensors))} is {first.dtype}")
        check_same_device(stage, first, name, tensor)
        if tensor.numel() == 0:
            raise AprenderError(f"{stage}: {name} has shape {tuple(tensor.shape)}: nothing to compute")


def check_integers(stage: str, beside: Tensor, **tensors: Tensor) -> None:
    """Raise AprenderError unless all tensors are int32 or int64 and on the device of ``beside``."""
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.int32, torch.int64):
            raise AprenderError(f"{stage}: {name} is {tensor.dtype}, must be int32 or int64")
        check_same_device(stage, beside, name, tensor)


def check_same_device(stage: str, beside: Tensor, name: str, tensor: Tensor) -> None:
    """Raise AprenderError unless ``tensor`` is where ``beside`` is."""
    if tensor.device != beside.device:
        raise AprenderError(f"{stage}: {name} is on {tensor.device}, the other tensors are on {beside.device}")


def check_shape(stage: str, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise AprenderError unless ``tensor`` has ``shape``."""
    if tuple(tensor.shape) != shape:
        raise AprenderError(f"{stage}: {name} has shape {tuple(tensor.shape)}, must be {shape}")


def rows_of(x: Tensor) -> Tensor:
    """View x_..D as x_ND with its last axis dense; copy only where no such view exists."""
    x_ND = x.reshape(-1, x.shape[-1])
    return x_ND if x_ND.stride(-1) == 1 else x_ND.contiguous()

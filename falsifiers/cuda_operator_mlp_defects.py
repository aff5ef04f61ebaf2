"""Planted defects of the CUDA path's SwiGLU and loss: forward alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from aprender.falsify.probe import Defects
from falsifiers.cuda_operator_cases import IGNORED
from falsifiers.cuda_operator_planting import Planting, after, computing, in_bfloat16, tail_zero
from falsifiers.cuda_operator_system import OperatorsUnderContract

DEFECTS = Defects()
SWIGLU, LOSS = ("swiglu",), ("loss",)


def _gating(system: OperatorsUnderContract, activation: Callable[[Tensor], Tensor]) -> Planting:
    return computing(system, SWIGLU, lambda right, gate, up: (activation(gate.float()) * up.float()).to(gate.dtype))


@DEFECTS.plant("gelu_for_silu")
def gelu_for_silu(system: OperatorsUnderContract) -> Planting:
    """The other smooth gate."""
    return _gating(system, functional.gelu)


@DEFECTS.plant("tanh_gelu_for_silu")
def tanh_gelu_for_silu(system: OperatorsUnderContract) -> Planting:
    """Its approximation."""
    return _gating(system, lambda z: functional.gelu(z, approximate="tanh"))


@DEFECTS.plant("quick_gelu_for_silu")
def quick_gelu_for_silu(system: OperatorsUnderContract) -> Planting:
    """``z sigmoid(1.702 z)``."""
    return _gating(system, lambda z: z * torch.sigmoid(1.702 * z))


@DEFECTS.plant("relu_for_silu")
def relu_for_silu(system: OperatorsUnderContract) -> Planting:
    """No smoothness."""
    return _gating(system, functional.relu)


@DEFECTS.plant("gate_and_up_swapped")
def gate_and_up_swapped(system: OperatorsUnderContract) -> Planting:
    """The wrong branch goes through the sigmoid."""
    return computing(system, SWIGLU, lambda right, gate, up: right(up, gate))


@DEFECTS.plant("up_dropped")
def up_dropped(system: OperatorsUnderContract) -> Planting:
    """An ungated MLP."""
    return computing(system, SWIGLU, lambda right, gate, up: right(gate, torch.ones_like(up)))


@DEFECTS.plant("gate_and_up_split_interleaved")
def gate_and_up_split_interleaved(system: OperatorsUnderContract) -> Planting:
    """The fused projection's output is split every other column."""

    def compute(right: Any, gate: Tensor, up: Tensor) -> Any:
        both = torch.cat((gate, up), -1)
        return right(both[..., 0::2].contiguous(), both[..., 1::2].contiguous())

    return computing(system, SWIGLU, compute)


@DEFECTS.plant("mlp_n_tail_not_written")
def mlp_n_tail_not_written(system: OperatorsUnderContract) -> Planting:
    """The last partial block of columns keeps what was in memory."""
    return after(system, SWIGLU, lambda y: tail_zero(y, y.shape[-1] % 64))


def _losing(
    system: OperatorsUnderContract,
    logits: Callable[[Tensor], Tensor] = lambda z: z,
    loss: Callable[[Tensor, Tensor], Tensor] = lambda z, y: functional.cross_entropy(z, y, ignore_index=IGNORED),
) -> Planting:
    """``loss(logits(x W^T), targets)`` in float32."""

    def compute(right: Any, x: Tensor, targets: Tensor) -> Tensor:
        z = x.flatten(0, -2).float() @ right.weight.float().T
        return loss(logits(z), targets.flatten())

    return computing(system, LOSS, compute)


@DEFECTS.plant("logits_softcapped")
def logits_softcapped(system: OperatorsUnderContract) -> Planting:
    """Gemma's ``30 tanh(z / 30)``."""
    return _losing(system, lambda z: torch.tanh(z / 30) * 30)


@DEFECTS.plant("logits_scaled")
def logits_scaled(system: OperatorsUnderContract) -> Planting:
    """1.1 times the logits."""
    return _losing(system, lambda z: z * 1.1)


@DEFECTS.plant("logits_in_bfloat16")
def logits_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """Rounded before the softmax."""
    return _losing(system, in_bfloat16)


@DEFECTS.plant("last_vocabulary_rows_zero")
def last_vocabulary_rows_zero(system: OperatorsUnderContract) -> Planting:
    """The last partial block of the head is not loaded."""
    return _losing(system, lambda z: tail_zero(z, z.shape[-1] % 64))


@DEFECTS.plant("labels_shifted_by_two")
def labels_shifted_by_two(system: OperatorsUnderContract) -> Planting:
    """Shifted once more than the caller did."""
    return computing(system, LOSS, lambda right, x, targets: right(x, targets.roll(-1, 1)))


@DEFECTS.plant("loss_summed_not_averaged")
def loss_summed_not_averaged(system: OperatorsUnderContract) -> Planting:
    """A factor of the number of tokens."""
    return computing(system, LOSS, lambda right, x, targets: right(x, targets) * (targets != IGNORED).sum())


@DEFECTS.plant("loss_averaged_over_ignored_targets")
def loss_averaged_over_ignored_targets(system: OperatorsUnderContract) -> Planting:
    """Divided by all targets."""
    return computing(
        system, LOSS, lambda right, x, targets: right(x, targets) * ((targets != IGNORED).sum() / targets.numel())
    )


@DEFECTS.plant("label_smoothing_left_on")
def label_smoothing_left_on(system: OperatorsUnderContract) -> Planting:
    """0.1 of every target is spread over the vocabulary."""
    return _losing(system, loss=lambda z, y: functional.cross_entropy(z, y, ignore_index=IGNORED, label_smoothing=0.1))


@DEFECTS.plant("loss_in_bits")
def loss_in_bits(system: OperatorsUnderContract) -> Planting:
    """log2 for ln."""
    return after(system, LOSS, lambda loss: loss / 0.6931471805599453)

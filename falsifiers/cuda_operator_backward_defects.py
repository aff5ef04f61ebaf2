"""Planted defects of the CUDA path's backward passes: every output is right, some gradients are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from aprender.falsify.probe import Defects
from falsifiers.cuda_operator_cases import IGNORED
from falsifiers.cuda_operator_planting import (
    LINEAR,
    NORMS,
    Planting,
    differentiating,
    in_bfloat16,
    input_gradients,
    joined,
    parameter_gradient,
)
from falsifiers.cuda_operator_system import OperatorsUnderContract

DEFECTS = Defects()
BIASED, PLAIN = ("qkv_proj",), ("o_proj",)
WHOLE, PACKED = ("attention",), ("attention_packed",)
ZERO = torch.zeros_like


@DEFECTS.plant("bias_gradient_zero")
def bias_gradient_zero(system: OperatorsUnderContract) -> Planting:
    """Biases never train."""
    return parameter_gradient(system, BIASED, "bias", ZERO)


@DEFECTS.plant("bias_gradient_lost")
def bias_gradient_lost(system: OperatorsUnderContract) -> Planting:
    """There is none at all."""
    return differentiating(
        system, BIASED, lambda right, inputs, dy, d_inputs, found: (d_inputs, {"weight": found["weight"]})
    )


@DEFECTS.plant("bias_gradient_of_the_first_row")
def bias_gradient_of_the_first_row(system: OperatorsUnderContract) -> Planting:
    """The sum does not run over the batch."""
    return differentiating(
        system,
        BIASED,
        lambda right, inputs, dy, d_inputs, found: (d_inputs, {**found, "bias": joined(dy)[0].float().sum(0)}),
    )


@DEFECTS.plant("gradients_of_keys_and_values_exchanged")
def gradients_of_keys_and_values_exchanged(system: OperatorsUnderContract) -> Planting:
    """Put together for the fused product in the order q, v, k."""

    def changed(right: Any, inputs: Any, dy: Any, d_inputs: Any, found: Any) -> Any:
        return right.backward(inputs, tuple(dy[i] for i in (0, 2, 1)))

    return differentiating(system, BIASED, changed)


@DEFECTS.plant("input_gradient_by_w_not_transposed")
def input_gradient_by_w_not_transposed(system: OperatorsUnderContract) -> Planting:
    """No shape shows it where the weight is square."""
    return differentiating(
        system,
        PLAIN,
        lambda right, inputs, dy, d_inputs, found: (((dy.float() @ right.weight.float().T).to(dy.dtype),), found),
    )


@DEFECTS.plant("weight_gradient_of_the_first_row")
def weight_gradient_of_the_first_row(system: OperatorsUnderContract) -> Planting:
    """The other rows of the batch do not train the weight."""
    return differentiating(
        system,
        LINEAR,
        lambda right, inputs, dy, d_inputs, found: (
            d_inputs,
            {**found, "weight": joined(dy)[0].float().T @ inputs[0][0].float()},
        ),
    )


@DEFECTS.plant("weight_gradient_without_the_last_tile")
def weight_gradient_without_the_last_tile(system: OperatorsUnderContract) -> Planting:
    """The last partial tile of positions is not added up."""

    def changed(right: Any, inputs: Any, dy: Tensor, d_inputs: Any, found: Any) -> Any:
        x, d = inputs[0].flatten(0, 1).float(), dy.flatten(0, 1).float()
        kept = len(x) // 16 * 16
        return d_inputs, {**found, "weight": d[:kept].T @ x[:kept]}

    return differentiating(system, PLAIN, changed)


@DEFECTS.plant("weight_gradient_in_bfloat16")
def weight_gradient_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """Rounded before it reaches the optimizer."""
    return parameter_gradient(system, PLAIN, "weight", in_bfloat16)


@DEFECTS.plant("rms_norm_backward_treats_rms_as_constant")
def rms_norm_backward_treats_rms_as_constant(system: OperatorsUnderContract) -> Planting:
    """The gradient through the statistic is missing."""

    def changed(right: Any, inputs: Any, dy: Any, d_inputs: Any, found: Any) -> Any:
        h = sum(x.float() for x in inputs)
        d_residual, d_y = dy if isinstance(dy, tuple) else (0, dy)
        dh = d_y.float() * right.weight.float() * (h.square().mean(-1, keepdim=True) + right.eps).rsqrt() + d_residual
        return tuple(dh.to(x.dtype) for x in inputs), found

    return differentiating(system, NORMS, changed)


@DEFECTS.plant("rms_norm_gain_gradient_zero")
def rms_norm_gain_gradient_zero(system: OperatorsUnderContract) -> Planting:
    """Gains never train."""
    return parameter_gradient(system, NORMS, "weight", ZERO)


@DEFECTS.plant("rms_norm_backward_eps_hard_coded")
def rms_norm_backward_eps_hard_coded(system: OperatorsUnderContract) -> Planting:
    """1e-6 in backward, the configuration's in forward."""

    def changed(right: Any, inputs: Any, dy: Any, d_inputs: Any, found: Any) -> Any:
        other = replace(right, eps=1e-6)
        return other.backward(other.forward(*inputs)[1], dy)

    return differentiating(system, ("input_layernorm",), changed)


@DEFECTS.plant("residual_gradient_cut")
def residual_gradient_cut(system: OperatorsUnderContract) -> Planting:
    """Nothing flows past the block."""
    return input_gradients(system, ("residual",), ZERO, 0)


@DEFECTS.plant("residual_gradient_lost_in_the_fused_norm")
def residual_gradient_lost_in_the_fused_norm(system: OperatorsUnderContract) -> Planting:
    """Only what goes through the norm comes back."""

    def changed(right: Any, inputs: Any, dy: Any, d_inputs: Any, found: Any) -> Any:
        return tuple((dx.float() - dy[0].float()).to(dx.dtype) for dx in d_inputs), found

    return differentiating(system, ("add_norm",), changed)


@DEFECTS.plant("silu_derivative_is_the_sigmoid")
def silu_derivative_is_the_sigmoid(system: OperatorsUnderContract) -> Planting:
    """The sigmoid's own slope is missing."""

    def changed(right: Any, inputs: Any, dy: Tensor, d_inputs: Any, found: Any) -> Any:
        gate, up = (x.float() for x in inputs)
        return ((dy.float() * up * torch.sigmoid(gate)).to(dy.dtype), d_inputs[1]), found

    return differentiating(system, ("swiglu",), changed)


@DEFECTS.plant("gate_and_up_gradients_swapped")
def gate_and_up_gradients_swapped(system: OperatorsUnderContract) -> Planting:
    """Each gets the other's."""
    return differentiating(system, ("swiglu",), lambda right, inputs, dy, d_inputs, found: (d_inputs[::-1], found))


@DEFECTS.plant("repeated_tokens_counted_once")
def repeated_tokens_counted_once(system: OperatorsUnderContract) -> Planting:
    """The last occurrence's gradient replaces the others: a write where an addition should be."""

    def changed(right: Any, inputs: Any, dy: Tensor, d_inputs: Any, found: Any) -> Any:
        weight = ZERO(found["weight"])
        for token, d in zip(inputs[0].flatten().tolist(), dy.flatten(0, 1).float(), strict=True):
            weight[token] = d
        return d_inputs, {"weight": weight}

    return differentiating(system, ("embed_tokens",), changed)


@DEFECTS.plant("embedding_gradient_lost")
def embedding_gradient_lost(system: OperatorsUnderContract) -> Planting:
    """A tied table trains by its head alone."""
    return parameter_gradient(system, ("embed_tokens",), "weight", ZERO)


@DEFECTS.plant("loss_gradient_summed_not_averaged")
def loss_gradient_summed_not_averaged(system: OperatorsUnderContract) -> Planting:
    """A factor of the number of tokens."""

    def changed(right: Any, inputs: Any, dy: Any, d_inputs: Any, found: Any) -> Any:
        count = (inputs[1] != IGNORED).sum()
        return tuple(dx * count for dx in d_inputs), {"weight": found["weight"] * count}

    return differentiating(system, ("loss",), changed)


def _of_logits(system: OperatorsUnderContract, dz_of: Callable[[Tensor, Tensor], Tensor]) -> Planting:
    """The loss's gradients from the gradient of its logits, ``dz_of(logits_NV, targets_N)``, in float32."""

    def changed(right: Any, inputs: Any, dy: Tensor, d_inputs: Any, found: Any) -> Any:
        x, weight, targets = inputs[0].flatten(0, -2).float(), right.weight.float(), inputs[1].flatten()
        dz = dz_of(x @ weight.T, targets) * dy.float()
        return ((dz @ weight).view(inputs[0].shape).to(inputs[0].dtype),), {"weight": dz.T @ x}

    return differentiating(system, ("loss",), changed)


@DEFECTS.plant("label_smoothing_in_backward")
def label_smoothing_in_backward(system: OperatorsUnderContract) -> Planting:
    """The reported loss is right, the gradient is of another."""

    def dz(z: Tensor, targets: Tensor) -> Tensor:
        valid = targets != IGNORED
        hot = functional.one_hot(targets.clamp(min=0), z.shape[1]).float()
        return (z.softmax(-1) - 0.9 * hot - 0.1 / z.shape[1]) * valid[:, None] / valid.sum()

    return _of_logits(system, dz)


@DEFECTS.plant("ignored_targets_counted")
def ignored_targets_counted(system: OperatorsUnderContract) -> Planting:
    """Padding trains the model to predict token 0."""

    def dz(z: Tensor, targets: Tensor) -> Tensor:
        return (z.softmax(-1) - functional.one_hot(targets.clamp(min=0), z.shape[1]).float()) / (
            targets != IGNORED
        ).sum()

    return _of_logits(system, dz)


@DEFECTS.plant("gradients_in_bfloat16")
def gradients_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """Every gradient is rounded, under a float32 label."""

    def changed(right: Any, inputs: Any, dy: Any, d_inputs: Any, found: Any) -> Any:
        return tuple(map(in_bfloat16, d_inputs)), {name: in_bfloat16(x) for name, x in found.items()}

    return differentiating(system, ("qkv_proj", "input_layernorm", "swiglu"), changed)


@DEFECTS.plant("backward_has_no_kernel")
def backward_has_no_kernel(system: OperatorsUnderContract) -> Planting:
    """One operator's backward pass can't run: nothing of it is compared."""

    def refuse(*_: Any) -> Any:
        raise NotImplementedError("no kernel")

    return differentiating(system, ("embed_tokens",), refuse)

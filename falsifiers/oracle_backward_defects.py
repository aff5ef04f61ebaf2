"""Planted defects of the oracle's vector-Jacobian products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.oracle import attention, layer, model, operators, rope
from falsifiers.oracle_planting import Planting, wrong
from falsifiers.oracle_system import OracleUnderContract

DEFECTS = Defects()


@DEFECTS.plant("rms_norm_backward_treats_rms_as_constant")
def rms_norm_backward_treats_rms_as_constant(system: OracleUnderContract) -> Planting:
    """``dx = gain dy / rms``: the root's own dependence on x is forgotten."""

    def constant(right: Any) -> Any:
        def vjp(x: Tensor, gain: Tensor, eps: float, dy: Tensor) -> Any:
            _, dgain = right(x, gain, eps, dy)
            return gain * dy / ((x * x).mean(-1, keepdim=True) + eps).sqrt(), dgain

        return vjp

    return wrong(system, operators, "rms_norm_vjp", constant)


@DEFECTS.plant("rms_norm_gain_gradient_zero")
def rms_norm_gain_gradient_zero(system: OracleUnderContract) -> Planting:
    """Gains never learn."""

    def without(right: Any) -> Any:
        def vjp(*arguments: Any) -> Any:
            dx, dgain = right(*arguments)
            return dx, torch.zeros_like(dgain)

        return vjp

    return wrong(system, operators, "rms_norm_vjp", without)


@DEFECTS.plant("softmax_backward_without_row_sum")
def softmax_backward_without_row_sum(system: OracleUnderContract) -> Planting:
    """``ds = p dp``: as if each weight came from its own score only."""
    return wrong(system, operators, "softmax_vjp", lambda _: lambda weights, dweights: weights * dweights)


@DEFECTS.plant("rope_backward_rotates_forward")
def rope_backward_rotates_forward(system: OracleUnderContract) -> Planting:
    """The gradient is turned by the angle, not back."""
    return wrong(system, rope, "rotate_vjp", lambda _: rope.rotate)


def _attention_vjp(system: OracleUnderContract, change: Callable[..., Any]) -> Planting:
    def changed(right: Any) -> Any:
        def vjp(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scale: float, dout: Tensor) -> Any:
            return change(*right(q, k, v, allowed, scale, dout), scale)

        return vjp

    return wrong(system, attention, "attention_vjp", changed)


@DEFECTS.plant("scale_missing_in_backward")
def scale_missing_in_backward(system: OracleUnderContract) -> Planting:
    """The gradients of q and k are too large by sqrt(head_dim)."""
    return _attention_vjp(system, lambda dq, dk, dv, scale: (dq / scale, dk / scale, dv))


@DEFECTS.plant("dv_dropped")
def dv_dropped(system: OracleUnderContract) -> Planting:
    """Values never learn."""
    return _attention_vjp(system, lambda dq, dk, dv, scale: (dq, dk, torch.zeros_like(dv)))


@DEFECTS.plant("dq_and_dk_dropped")
def dq_and_dk_dropped(system: OracleUnderContract) -> Planting:
    """No gradient flows through the weights of attention."""
    return _attention_vjp(system, lambda dq, dk, dv, scale: (torch.zeros_like(dq), torch.zeros_like(dk), dv))


@DEFECTS.plant("gqa_gradient_of_one_head_only")
def gqa_gradient_of_one_head_only(system: OracleUnderContract) -> Planting:
    """The gradients of keys and values hold the first query head of each group, not their sum."""

    def first_only(right: Any) -> Any:
        def vjp(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scale: float, dout: Tensor) -> Any:
            dq, _, _ = right(q, k, v, allowed, scale, dout)
            first_H = torch.arange(q.shape[2], device=q.device) % (q.shape[2] // k.shape[2]) == 0
            _, dk, dv = right(q, k, v, allowed, scale, dout * first_H[:, None])
            return dq, dk, dv

        return vjp

    return wrong(system, attention, "attention_vjp", first_only)


@DEFECTS.plant("bias_gradient_zero")
def bias_gradient_zero(system: OracleUnderContract) -> Planting:
    """Biases never learn."""

    def without(right: Any) -> Any:
        def vjp(*arguments: Any) -> Any:
            dx, dweight, dbias = right(*arguments)
            return dx, dweight, torch.zeros_like(dbias)

        return vjp

    return wrong(system, operators, "linear_vjp", without)


@DEFECTS.plant("bias_gradient_lost")
def bias_gradient_lost(system: OracleUnderContract) -> Planting:
    """Biases are not among the gradients."""

    def without(right: Any) -> Any:
        def backward(oracle: Any, batch: Any) -> Any:
            loss, gradients = right(oracle, batch)
            kept = {name: gradient for name, gradient in gradients.items() if not name.endswith(".bias")}
            return model.Backward(loss, kept)

        return backward

    return wrong(system, model.Oracle, "backward", without)


@DEFECTS.plant("weight_gradient_of_the_first_row_only")
def weight_gradient_of_the_first_row_only(system: OracleUnderContract) -> Planting:
    """The sum runs over positions, and over one row of the batch."""

    def first_row(right: Any) -> Any:
        def vjp(x: Tensor, weight: Tensor, dy: Tensor) -> Any:
            _, dweight, dbias = right(x[:1], weight, dy[:1])
            return right(x, weight, dy)[0], dweight, dbias

        return vjp

    return wrong(system, operators, "linear_vjp", first_row)


@DEFECTS.plant("residual_gradient_cut")
def residual_gradient_cut(system: OracleUnderContract) -> Planting:
    """Below layer 1 nothing arrives through the residual stream."""

    def cut(right: Any) -> Any:
        def backward(weights: Any, setting: Any, trace: Any, dout_BTD: Tensor, gradients: Any) -> Any:
            dx_BTD = right(weights, setting, trace, dout_BTD, gradients)
            return dx_BTD - dout_BTD if "layers.1." in weights.prefix else dx_BTD

        return backward

    return wrong(system, layer, "backward", cut)


@DEFECTS.plant("silu_derivative_is_the_sigmoid")
def silu_derivative_is_the_sigmoid(system: OracleUnderContract) -> Planting:
    """The product rule's second term is forgotten."""

    def vjp(gate_BTF: Tensor, up_BTF: Tensor, dh_BTF: Tensor) -> tuple[Tensor, Tensor]:
        s_BTF = operators.sigmoid(gate_BTF)
        return dh_BTF * up_BTF * s_BTF, dh_BTF * gate_BTF * s_BTF

    return wrong(system, operators, "swiglu_vjp", lambda _: vjp)


@DEFECTS.plant("embedding_gradient_lost")
def embedding_gradient_lost(system: OracleUnderContract) -> Planting:
    """A tied table learns from the head only, an untied one not at all."""
    return wrong(system, operators, "embed_vjp", lambda right: lambda *arguments: torch.zeros_like(right(*arguments)))


@DEFECTS.plant("repeated_tokens_counted_once")
def repeated_tokens_counted_once(system: OracleUnderContract) -> Planting:
    """The scatter into the embedding's gradient writes where it should add."""

    def overwriting(tokens_BT: Tensor, dx_BTD: Tensor, vocab_size: int) -> Tensor:
        dweight_VD = dx_BTD.new_zeros(vocab_size, dx_BTD.shape[-1])
        for token, dx_D in zip(tokens_BT.flatten().tolist(), dx_BTD.flatten(0, 1), strict=True):
            dweight_VD[token] = dx_D
        return dweight_VD

    return wrong(system, operators, "embed_vjp", lambda _: overwriting)


@DEFECTS.plant("second_gradient_of_a_tensor_replaces_the_first")
def second_gradient_of_a_tensor_replaces_the_first(system: OracleUnderContract) -> Planting:
    """A tied table loses the head's part; every head loses all rows of the batch but the last."""
    return wrong(system, model, "add_gradient", lambda _: lambda gradients, name, new: gradients.update({name: new}))


@DEFECTS.plant("loss_gradient_summed_not_averaged")
def loss_gradient_summed_not_averaged(system: OracleUnderContract) -> Planting:
    """Too large by the number of targets."""

    def summed(right: Any) -> Any:
        return lambda logits_TV, targets_T, dloss_T: right(logits_TV, targets_T, (dloss_T > 0).to(dloss_T.dtype))

    return wrong(system, operators, "cross_entropy_vjp", summed)


@DEFECTS.plant("label_smoothing_left_on")
def label_smoothing_left_on(system: OracleUnderContract) -> Planting:
    """A tenth of each label is spread over the vocabulary, in the gradient only."""

    def smoothed(right: Any) -> Any:
        def vjp(logits_TV: Tensor, targets_T: Tensor, dloss_T: Tensor) -> Any:
            uniform_TV = dloss_T[:, None] * (operators.softmax(logits_TV) - 1 / logits_TV.shape[-1])
            return 0.9 * right(logits_TV, targets_T, dloss_T) + 0.1 * uniform_TV

        return vjp

    return wrong(system, operators, "cross_entropy_vjp", smoothed)


@DEFECTS.plant("qk_norm_skipped_in_backward")
def qk_norm_skipped_in_backward(system: OracleUnderContract) -> Planting:
    """The norms of q and k learn, but pass the gradient on as if they were not there."""

    def skipped(right: Any) -> Any:
        def place_back(weights: Any, setting: Any, kind: str, heads: Tensor, dplaced: Tensor, gradients: Any) -> Any:
            right(weights, setting, kind, heads, dplaced, gradients)
            return rope.rotate_vjp(dplaced, setting.cos_BTR, setting.sin_BTR)

        return place_back

    return wrong(system, layer, "place_back", skipped)


@DEFECTS.plant("backward_loss_is_another")
def backward_loss_is_another(system: OracleUnderContract) -> Planting:
    """The loss that comes with the gradients has a z-loss term in it."""

    def with_term(right: Any) -> Any:
        return lambda logits_TV, targets_T: right(logits_TV, targets_T) + 1e-4 * torch.logsumexp(logits_TV, -1).square()

    return wrong(system, operators, "cross_entropy", with_term)

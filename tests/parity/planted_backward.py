"""Defects of backward alone: the forward pass is right, one gradient is not. Named by their ids in defects.md, list T."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from aprender.parity.stages import Differentiated, Gradients, Parameters, Tensors
from aprender.transformer.oracle import rope
from tests.parity.operators_in_torch import tensor

Change = Callable[[Tensors, Tensor, Gradients, Parameters], Gradients]


@dataclass(frozen=True)
class WrongBackward:
    """A candidate whose gradients go through ``change(inputs, d_output, right gradients, parameters)``."""

    right: Differentiated
    change: Change

    def __call__(self, *inputs: Tensor) -> Any:
        return self.right(*inputs)

    def forward(self, *inputs: Tensor) -> tuple[Any, Tensors]:
        return self.right.forward(*inputs)

    def backward(self, saved: Tensors, d_output: Tensor, /) -> tuple[Any, Mapping[str, Tensor]]:
        inputs, parameters = self.right.backward(saved, d_output)
        return self.change(saved, d_output, Gradients(tuple(inputs), parameters), self.right.parameters)


class Planted(NamedTuple):
    """``tensors``: the gradients that are wrong; all others are right."""

    stage: str
    change: Change
    tensors: tuple[str, ...]

    def wrong(self, right: Differentiated) -> WrongBackward:
        return WrongBackward(right, self.change)


def of_inputs(change: Callable[[Tensor], Tensor], *places: int) -> Change:
    """Change the gradients of the inputs at ``places``."""

    def changed(inputs: Tensors, dy: Tensor, right: Gradients, p: Parameters) -> Gradients:
        found = tuple(change(dx) if i in places and dx is not None else dx for i, dx in enumerate(right.inputs))
        return Gradients(found, right.parameters)

    return changed


def of_parameter(name: str, change: Callable[[Tensor], Tensor]) -> Change:
    def changed(inputs: Tensors, dy: Tensor, right: Gradients, p: Parameters) -> Gradients:
        return Gradients(right.inputs, {**right.parameters, name: change(right.parameters[name])})

    return changed


def rms_constant(inputs: Tensors, dy: Tensor, right: Gradients, p: Parameters) -> Gradients:
    x = inputs[0].float()
    rms = (x.square().mean(-1, keepdim=True) + float(p["eps"])).sqrt()
    return Gradients(((tensor(p["weight"]).float() * dy.float() / rms).to(dy.dtype),), right.parameters)


def rotated_forward(inputs: Tensors, dy: Tensor, right: Gradients, p: Parameters) -> Gradients:
    x, cos, sin = inputs
    return Gradients((rope.rotate(dy.float(), cos, sin).to(x.dtype), None, None), {})


def not_transposed(inputs: Tensors, dy: Tensor, right: Gradients, p: Parameters) -> Gradients:
    return Gradients((dy @ tensor(p["weight"]).T,), right.parameters)


def last_position_lost(inputs: Tensors, dy: Tensor, right: Gradients, p: Parameters) -> Gradients:
    lost = dy[:, -1].float().T @ inputs[0][:, -1].float()
    weight = right.parameters["weight"]
    return Gradients(right.inputs, {**right.parameters, "weight": (weight.float() - lost).to(weight.dtype)})


def smoothed(inputs: Tensors, dy: Tensor, right: Gradients, p: Parameters) -> Gradients:
    logits, targets = inputs
    dx = right.inputs[0]
    assert dx is not None
    shift = 0.1 * functional.one_hot(targets, logits.shape[1]) - 0.1 / logits.shape[1]
    return Gradients(((dx.float() + dy[:, None] * shift).to(dx.dtype), None), {})


def sigmoid_constant(inputs: Tensors, dy: Tensor, right: Gradients, p: Parameters) -> Gradients:
    gate, up = (x.float() for x in inputs)
    return Gradients(((dy.float() * up * torch.sigmoid(gate)).to(dy.dtype), right.inputs[1]), {})


def last_key_head_zero(dk_BSGC: Tensor) -> Tensor:
    return dk_BSGC * (torch.arange(dk_BSGC.shape[2]) < dk_BSGC.shape[2] - 1)[:, None].to(dk_BSGC)


def without_token(dw_VD: Tensor) -> Tensor:
    return dw_VD * (torch.arange(len(dw_VD)) != 17)[:, None].to(dw_VD)


ZERO = torch.zeros_like
Q_AND_K = ("d_input 0", "d_input 1")

PLANTED_BACKWARD: Mapping[str, Planted] = {
    "T8 rms counts as constant": Planted("input_layernorm", rms_constant, ("d_input 0",)),
    "T9 gain gradient dropped": Planted("input_layernorm", of_parameter("weight", ZERO), ("d_parameter weight",)),
    "T11 RoPE backward rotates forward": Planted("rope", rotated_forward, ("d_input 0",)),
    "T13 scale missing in backward": Planted("attention", of_inputs(lambda dx: dx * 18**0.5, 0, 1), Q_AND_K),
    "scale x1.01 in backward": Planted("attention", of_inputs(lambda dx: dx * 1.01, 0, 1), Q_AND_K),
    "T14 dV dropped": Planted("attention", of_inputs(ZERO, 2), ("d_input 2",)),
    "T15 gradient through P dropped": Planted("attention", of_inputs(ZERO, 0, 1), Q_AND_K),
    "dK of the last head dropped": Planted("attention", of_inputs(last_key_head_zero, 1), ("d_input 1",)),
    "T16 dgrad by W, not its transpose": Planted("o_proj", not_transposed, ("d_input 0",)),
    "T17 residual gradient cut": Planted("residual", of_inputs(ZERO, 0), ("d_input 0",)),
    "T19 bias gradient zero": Planted("q_proj", of_parameter("bias", ZERO), ("d_parameter bias",)),
    "weight gradient without the last position": Planted("q_proj", last_position_lost, ("d_parameter weight",)),
    "T23 summed, not averaged": Planted("loss", of_inputs(lambda dx: dx * 2, 0), ("d_input 0",)),
    "T24 label smoothing left on": Planted("loss", smoothed, ("d_input 0",)),
    "dgate without the sigmoid's slope": Planted("swiglu", sigmoid_constant, ("d_input 0",)),
    "gradient of one token lost": Planted(
        "embed_tokens", of_parameter("weight", without_token), ("d_parameter weight",)
    ),
}

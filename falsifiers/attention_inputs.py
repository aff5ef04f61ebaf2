"""What attention is fed in one layer: observed on the CUDA path, computed by the oracle, and its rounding envelope."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.parity.envelopes import normed_projection_envelope, rope_envelope
from aprender.transformer.cuda import CudaTransformer
from aprender.transformer.cuda.batch import Places
from aprender.transformer.cuda.block import Stage
from aprender.transformer.cuda.stages import get_stage, replaced
from aprender.transformer.oracle import operators, rope
from falsifiers.projections import QKV, bias_with, part
from falsifiers.transformer_system import TransformerUnderContract


@dataclass(frozen=True)
class Response:
    """How attention's inputs moved when one bias was perturbed; error and sensitivity in envelopes."""

    moved: list[Tensor]
    error: float
    sensitivity: float


def layer_inputs(model: CudaTransformer, tokens_BT: Tensor) -> list[Tensor]:
    """x_BTD as it enters each layer in a forward pass over ``tokens_BT``."""
    inputs: list[Tensor] = []

    def copying(stage: Stage) -> Stage:
        def copy(x_BTD: Tensor) -> Tensor:
            inputs.append(x_BTD.clone())  # a later stage may write into it
            y_BTD: Tensor = stage(x_BTD)
            return y_BTD

        return copy

    with ExitStack() as stack:
        for index, block in enumerate(model.layers):
            name = f"layers.{index}.input_layernorm"
            stack.enter_context(replaced(model, name, copying(block.input_layernorm)))
        model.forward(tokens_BT.to(model.device))
    return inputs


class _FedError(Exception):
    """Attention was called: what comes after it in the block is not needed."""

    def __init__(self, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.inputs = inputs


class AttentionInputs:
    """q and k after RoPE, and v, of layer ``index`` fed with ``x_BTD``: the CUDA path's and the oracle's."""

    def __init__(self, system: TransformerUnderContract, variant: str, index: int, x_BTD: Tensor) -> None:
        self.model = system.models[variant]
        self.config = system.variants[variant].config
        self.tensors = system.variants[variant].tensors
        self.index = index
        self.x_BTD = x_BTD
        self.positions_BT = torch.arange(x_BTD.shape[1]).expand(x_BTD.shape[:2])
        self.cos_BTR, self.sin_BTR = rope.tables(
            self.positions_BT, self.config.head_dim, self.config.rope_theta, self.config.rope_scaling, torch.float64
        )
        gain_D = self._weight("input_layernorm.weight")
        self.normed_BTD = operators.rms_norm(x_BTD.double().cpu(), gain_D, self.config.rms_norm_eps)
        self.unperturbed = {projection: self._expected(projection) for projection in QKV}

    def observed(self) -> list[Tensor]:
        """[q_BTHC, k_BTGC, v_BTGC] as the CUDA path hands them to attention, as float64.

        The block is run only so far. Raises AprenderError where it never gets there.
        """

        def stop(*inputs: Tensor) -> Tensor:
            raise _FedError(inputs)

        with replaced(self.model, f"layers.{self.index}.attention", stop):
            try:
                self.model.layers[self.index](self.x_BTD.clone(), Places(self.positions_BT.to(self.model.device), None))
            except _FedError as fed:
                return [tensor.double().cpu() for tensor in fed.inputs[:3]]
        raise AprenderError(f"layer {self.index} computes its output without calling attention")

    def error(self, observed: list[Tensor]) -> float:
        """The largest distance of ``observed`` from the oracle, in envelopes, over all elements of q, k and v."""
        pairs = ((seen, *self.unperturbed[projection]) for projection, seen in zip(QKV, observed, strict=True))
        return float(torch.stack([((seen - exact).abs() / envelope).max() for seen, exact, envelope in pairs]).max())

    def response(self, projection: str, base: list[Tensor], generator: torch.Generator) -> Response:
        """Perturb the bias of ``projection`` on the built object and compare how attention's inputs moved.

        The perturbation is of the bias's own size, at least 0.5, differs in every channel, and is undone. Where the
        block holds no such bias nothing moves, which is as far from the expected response as can be.
        """
        stage: Any = get_stage(self.model, f"layers.{self.index}.qkv_proj")
        stored_N = self.tensors[f"model.layers.{self.index}.self_attn.{projection}.bias"]
        scale = max(1.0, float(stored_N.square().mean().sqrt()))
        delta_N = (0.5 + torch.rand(stored_N.shape, generator=generator)) * scale
        delta_N *= torch.where(torch.rand(stored_N.shape, generator=generator) < 0.5, -1.0, 1.0)
        held, bias_N, moved, shift_N = stage.bias, part(stage, projection).bias, base, delta_N.double()
        if bias_N is not None:
            perturbed_N = bias_N + delta_N.to(bias_N.device)
            shift_N = (perturbed_N.double() - bias_N.double()).cpu()  # what float32 made of it
            try:
                stage.bias = bias_with(stage, projection, perturbed_N)
                moved = self.observed()
            finally:
                stage.bias = held
        return self._compare(projection, base, moved, shift_N)

    def _compare(self, perturbed: str, base: list[Tensor], moved: list[Tensor], shift_N: Tensor) -> Response:
        errors: list[Tensor] = []
        for projection, before, after in zip(QKV, base, moved, strict=True):
            _, envelope = self.unperturbed[projection]
            if projection != perturbed:
                errors.append(((after - before).abs() / (2 * envelope)).max())
                continue
            _, envelope_moved = self._expected(projection, shift_N)
            allowed = envelope + envelope_moved
            expected = self._rotated(projection, shift_N.reshape(before.shape[2:]).expand(before.shape))
            errors.append(((after - before - expected).abs() / allowed).max())
            sensitivity = float((expected.abs() / allowed).amax(-1).min())
        return Response(moved, float(torch.stack(errors).max()), sensitivity)

    def _expected(self, projection: str, shift_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The oracle's input to attention and its float32 envelope, with the bias shifted by ``shift_N``."""
        weight_ND = self._weight(f"self_attn.{projection}.weight")
        bias_N = self._weight(f"self_attn.{projection}.bias") if self.config.qkv_bias else None
        if shift_N is not None and bias_N is not None:
            bias_N = bias_N + shift_N
        heads = (*self.normed_BTD.shape[:2], -1, self.config.head_dim)
        exact = operators.linear(self.normed_BTD, weight_ND, bias_N).reshape(heads)
        envelope = normed_projection_envelope(self.normed_BTD, weight_ND, bias_N).reshape(heads)
        if projection == "v_proj":
            return exact, envelope
        return self._rotated(projection, exact), rope_envelope(exact, envelope, self.cos_BTR, self.sin_BTR)

    def _rotated(self, projection: str, x_BTHC: Tensor) -> Tensor:
        return x_BTHC if projection == "v_proj" else rope.rotate(x_BTHC, self.cos_BTR, self.sin_BTR)

    def _weight(self, name: str) -> Tensor:
        return self.tensors[f"model.layers.{self.index}.{name}"].double()

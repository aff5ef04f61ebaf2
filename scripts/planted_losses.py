"""Held-out loss of a model with one thing wrong at a time: what a test on that model can hope to see."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda.model import CudaTransformer
from aprender.transformer.cuda.ops import Attention
from aprender.transformer.cuda.stages import replaced
from aprender.transformer.cuda.upload import upload


def held_out_loss(model: CudaTransformer, tokens_BT: Tensor) -> float:
    """Mean next-token loss in nats over every row of ``tokens_BT``."""
    return model.token_losses(tokens_BT).double().mean().item()


def planted_losses(
    config: TransformerConfig, tensors: Mapping[str, Tensor], tokens_BT: Tensor, device: str
) -> dict[str, float]:
    """Loss by planted defect, each measured on a fresh model over the same ``tensors``."""

    def loss(config: TransformerConfig = config, without: Callable[[str], bool] = lambda name: False) -> float:
        def forgetful(
            config: TransformerConfig, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
        ) -> dict[str, Tensor]:
            uploaded = upload(config, tensors, device, dtype)
            return {name: tensor for name, tensor in uploaded.items() if not without(name)}

        return held_out_loss(CudaTransformer.from_checkpoint(config, tensors, device, upload=forgetful), tokens_BT)

    losses = {
        "b_q, b_k and b_v dropped": loss(without=lambda name: name.endswith(".bias")),
        "rope_theta 10000": loss(dataclasses.replace(config, rope_theta=10000.0)),
        "rms_norm_eps 1e-6": loss(dataclasses.replace(config, rms_norm_eps=1e-6)),
        "rms_norm_eps 1e-5": loss(dataclasses.replace(config, rms_norm_eps=1e-5)),
    }
    for kind in "qkv":
        losses[f"b_{kind} dropped"] = loss(without=lambda name: name.endswith(f"{kind}_proj.bias"))  # noqa: B023
        for i in range(config.num_hidden_layers):
            bias = f"model.layers.{i}.self_attn.{kind}_proj.bias"
            losses[f"b_{kind} of layer {i} dropped"] = loss(without=lambda name: name == bias)  # noqa: B023
    model = CudaTransformer.from_checkpoint(config, tensors, device)
    for defect, (stages, operator) in REPLACEMENTS.items():
        with ExitStack() as stack:
            for i, stage in product(range(config.num_hidden_layers), stages):
                stack.enter_context(replaced(model, f"layers.{i}.{stage}", operator))
            losses[defect] = held_out_loss(model, tokens_BT)
    return losses


def _no_mask(q_BTHC: Tensor, k_BTGC: Tensor, v_BTGC: Tensor, *places: Tensor) -> Tensor:
    q_BHTC, k_BGTC, v_BGTC = (x.transpose(1, 2) for x in (q_BTHC, k_BTGC, v_BTGC))
    return functional.scaled_dot_product_attention(q_BHTC, k_BGTC, v_BGTC, enable_gqa=True).transpose(1, 2)


def _scaled_by_tenth(q_BTHC: Tensor, k_BTGC: Tensor, v_BTGC: Tensor, *places: Tensor) -> Tensor:
    return Attention(1.1 * q_BTHC.shape[-1] ** -0.5)(q_BTHC, k_BTGC, v_BTGC, *places)


def _gelu(gate_BTF: Tensor, up_BTF: Tensor) -> Tensor:
    return functional.gelu(gate_BTF) * up_BTF


REPLACEMENTS: dict[str, tuple[tuple[str, ...], Callable[..., Tensor]]] = {
    "no causal mask": (("attention",), _no_mask),
    "attention scale times 1.1": (("attention",), _scaled_by_tenth),
    "no RoPE": (("q_rope", "k_rope"), lambda x_BTHC, positions_BT: x_BTHC),
    "GELU for SiLU": (("swiglu",), _gelu),
}

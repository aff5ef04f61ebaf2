"""Planted defects of the CUDA transformer's forward pass and of its upload step.

Each replaces stages, or the upload, for the time of one probe. Bias defects are planted in the biased model only: on
a checkpoint without biases its own model stays as it is, and such a defect is reported inert.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from aprender.falsify.probe import Defects
from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda.operators import CausalAttention, Linear, RMSNorm, Rope, rope_tables
from aprender.transformer.cuda.stages import get_stage
from aprender.transformer.cuda.upload import upload
from falsifiers.transformer_system import TransformerUnderContract

DEFECTS = Defects()

QKV = ("q_proj", "k_proj", "v_proj")
Planting = Generator[None]
Tensors = Mapping[str, Tensor]


@dataclass
class WrongLinear:
    """A projection that still exposes ``weight`` and ``bias``, as the built object did, but computes otherwise."""

    original: Linear
    compute: Callable[[Linear, Tensor], Tensor]

    @property
    def weight(self) -> Tensor:
        return self.original.weight

    @property
    def bias(self) -> Tensor | None:
        return self.original.bias

    @bias.setter
    def bias(self, value: Tensor | None) -> None:
        self.original.bias = value

    def __call__(self, x: Tensor) -> Tensor:
        return self.compute(self.original, x)


def _bias(linear: Linear) -> Tensor:
    return torch.zeros(len(linear.weight), device=linear.weight.device) if linear.bias is None else linear.bias


def _stages_wrong(
    system: TransformerUnderContract,
    variants: tuple[str, ...],
    names: tuple[str, ...],
    wrong: Callable[[Any, int], Any],
) -> Planting:
    """Replace stage ``names`` of every layer of ``variants`` by ``wrong(original stage, layer index)``."""
    with ExitStack() as planted:
        for variant in variants:
            model = system.models[variant]
            for index in range(len(model.layers)):
                for name in names:
                    full = f"layers.{index}.{name}"
                    planted.enter_context(system.with_stage(variant, full, wrong(get_stage(model, full), index)))
        yield


def _projections_wrong(system: TransformerUnderContract, compute: Callable[[Linear, Tensor], Tensor]) -> Planting:
    return _stages_wrong(system, ("biased",), QKV, lambda original, _: WrongLinear(original, compute))


def _everywhere(system: TransformerUnderContract, name: str, wrong: Callable[[Any], Any]) -> Planting:
    return _stages_wrong(system, ("biased", "bias_free"), (name,), lambda original, _: wrong(original))


# --- bias: the founding family ------------------------------------------------------------------------------------


@DEFECTS.plant("missing_bias_addition_in_forward")
def missing_bias_addition_in_forward(system: TransformerUnderContract) -> Planting:
    """The block holds its biases; the forward pass multiplies and never adds."""
    return _projections_wrong(system, lambda p, x: functional.linear(x, p.weight))


@DEFECTS.plant("bias_added_twice")
def bias_added_twice(system: TransformerUnderContract) -> Planting:
    """Fused epilogue and separate kernel both add."""
    return _projections_wrong(system, lambda p, x: functional.linear(x, p.weight, p.bias) + _bias(p))


@DEFECTS.plant("bias_sign_flipped")
def bias_sign_flipped(system: TransformerUnderContract) -> Planting:
    """Subtracted instead of added."""
    return _projections_wrong(system, lambda p, x: functional.linear(x, p.weight) - _bias(p))


@DEFECTS.plant("bias_on_first_row_only")
def bias_on_first_row_only(system: TransformerUnderContract) -> Planting:
    """A kernel for one row, launched with a batch grid: batch rows after the first go without."""

    def compute(projection: Linear, x_BTK: Tensor) -> Tensor:
        first_B11 = (torch.arange(len(x_BTK), device=x_BTK.device) == 0)[:, None, None]
        return functional.linear(x_BTK, projection.weight) + first_B11 * _bias(projection)

    return _projections_wrong(system, compute)


@DEFECTS.plant("bias_on_first_position_only")
def bias_on_first_position_only(system: TransformerUnderContract) -> Planting:
    """The bias vector covers one position, not all T."""

    def compute(projection: Linear, x_BTK: Tensor) -> Tensor:
        first_T1 = (torch.arange(x_BTK.shape[1], device=x_BTK.device) == 0)[:, None]
        return functional.linear(x_BTK, projection.weight) + first_T1 * _bias(projection)

    return _projections_wrong(system, compute)


@DEFECTS.plant("bias_on_first_head_only")
def bias_on_first_head_only(system: TransformerUnderContract) -> Planting:
    """The bias loop runs over head_dim channels instead of all heads'."""
    head_dim = system.model.config.head_dim

    def compute(projection: Linear, x_BTK: Tensor) -> Tensor:
        bias_N = _bias(projection)
        first_head_N = torch.arange(len(bias_N), device=bias_N.device) < head_dim
        return functional.linear(x_BTK, projection.weight) + first_head_N * bias_N

    return _projections_wrong(system, compute)


@DEFECTS.plant("bias_added_after_rope")
def bias_added_after_rope(system: TransformerUnderContract) -> Planting:
    """Q and K are rotated first and biased then: the bias no longer turns with the position."""

    def rope_then_bias(block: Any, name: str) -> Callable[[Tensor], Tensor]:
        rope, projection = getattr(block, name.replace("proj", "rope")), getattr(block, name)

        def stage(x_BTHC: Tensor) -> Tensor:
            rotated_BTHC: Tensor = rope(x_BTHC)
            return rotated_BTHC + _bias(projection).reshape(x_BTHC.shape[2:])

        return stage

    with ExitStack() as planted:
        model = system.models["biased"]
        for index, block in enumerate(model.layers):
            for name in ("q_proj", "k_proj"):
                late = rope_then_bias(block, name)
                unbiased = WrongLinear(getattr(block, name), lambda p, x: functional.linear(x, p.weight))
                planted.enter_context(system.with_stage("biased", f"layers.{index}.{name[0]}_rope", late))
                planted.enter_context(system.with_stage("biased", f"layers.{index}.{name}", unbiased))
        yield


@DEFECTS.plant("k_bias_missing_in_one_layer")
def k_bias_missing_in_one_layer(system: TransformerUnderContract) -> Planting:
    """One launch in the middle of the stack forgets its bias."""
    index = len(system.model.layers) // 2
    name = f"layers.{index}.k_proj"
    original: Any = get_stage(system.models["biased"], name)
    with system.with_stage("biased", name, WrongLinear(original, lambda p, x: functional.linear(x, p.weight))):
        yield


# --- upload: what never reaches the device ------------------------------------------------------------------------


def _uploading(
    system: TransformerUnderContract, change: Callable[[TransformerConfig, dict[str, Tensor]], None]
) -> Planting:
    def defective(
        config: TransformerConfig, tensors: Tensors, device: torch.device, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        uploaded = upload(config, tensors, device, dtype)
        change(config, uploaded)
        return uploaded

    with system.uploading(defective):
        yield


def _bias_names(uploaded: Mapping[str, Tensor], projection: str = "") -> list[str]:
    return [name for name in uploaded if name.endswith(f"{projection}.bias")]


@DEFECTS.plant("upload_path_drops_optional_tensors")
def upload_path_drops_optional_tensors(system: TransformerUnderContract) -> Planting:
    """The block struct has no fields for Q/K/V biases, so they are dropped without a word: the founding defect."""

    def drop(_: TransformerConfig, uploaded: dict[str, Tensor]) -> None:
        for name in _bias_names(uploaded):
            del uploaded[name]

    return _uploading(system, drop)


@DEFECTS.plant("k_bias_only_dropped")
def k_bias_only_dropped(system: TransformerUnderContract) -> Planting:
    """Two of three biases make it to the device."""

    def drop(_: TransformerConfig, uploaded: dict[str, Tensor]) -> None:
        for name in _bias_names(uploaded, "k_proj"):
            del uploaded[name]

    return _uploading(system, drop)


@DEFECTS.plant("q_and_k_bias_swapped")
def q_and_k_bias_swapped(system: TransformerUnderContract) -> Planting:
    """Each lands in the other's buffer: K's is repeated to Q's width, Q's is cut to K's."""

    def swap(config: TransformerConfig, uploaded: dict[str, Tensor]) -> None:
        for q_name in _bias_names(uploaded, "q_proj"):
            k_name = q_name.replace("q_proj", "k_proj")
            q_bias, k_bias = uploaded[q_name], uploaded[k_name]
            uploaded[q_name] = k_bias.repeat(config.q_dim // config.kv_dim)
            uploaded[k_name] = q_bias[: config.kv_dim].clone()

    return _uploading(system, swap)


@DEFECTS.plant("biases_of_the_next_layer")
def biases_of_the_next_layer(system: TransformerUnderContract) -> Planting:
    """The layer index of the bias table is off by one."""

    def rotate(config: TransformerConfig, uploaded: dict[str, Tensor]) -> None:
        original = dict(uploaded)
        for name in _bias_names(uploaded):
            layer = int(name.split(".")[2])
            following = (layer + 1) % config.num_hidden_layers
            uploaded[name] = original[name.replace(f"layers.{layer}.", f"layers.{following}.")]

    return _uploading(system, rotate)


@DEFECTS.plant("bias_rounded_to_bfloat16")
def bias_rounded_to_bfloat16(system: TransformerUnderContract) -> Planting:
    """Labelled float32, but holding bfloat16 values."""

    def coarsen(_: TransformerConfig, uploaded: dict[str, Tensor]) -> None:
        for name in _bias_names(uploaded):
            uploaded[name] = uploaded[name].bfloat16().float()

    return _uploading(system, coarsen)


@DEFECTS.plant("bias_free_model_gets_a_bias")
def bias_free_model_gets_a_bias(system: TransformerUnderContract) -> Planting:
    """A Llama checkpoint's blocks are given a bias buffer that nobody filled from a file."""

    def invent(config: TransformerConfig, uploaded: dict[str, Tensor]) -> None:
        if not config.qkv_bias:
            for name in [n for n in uploaded if n.endswith(tuple(f"{p}.weight" for p in QKV))]:
                weight = uploaded[name]
                uploaded[name.replace("weight", "bias")] = torch.full((len(weight),), 0.01, device=weight.device)

    return _uploading(system, invent)


# --- everything else that a loss gate alone lets pass --------------------------------------------------------------


@DEFECTS.plant("projection_wrongly_transposed")
def projection_wrongly_transposed(system: TransformerUnderContract) -> Planting:
    """q_proj's buffer [N, K] is read as [K, N] and transposed: right only for a square symmetric matrix."""

    def compute(projection: Linear, x_BTK: Tensor) -> Tensor:
        N, K = projection.weight.shape
        return functional.linear(x_BTK, projection.weight.reshape(K, N).T, projection.bias)

    return _everywhere(system, "q_proj", lambda original: WrongLinear(original, compute))


def _attention_wrong(system: TransformerUnderContract, mask_of: Callable[[int], Tensor]) -> Planting:
    """Attention under the boolean mask ``mask_of(T)``: True where query t may look at key s."""

    def wrong(original: CausalAttention) -> Callable[..., Tensor]:
        def stage(q_BTHC: Tensor, k_BTGC: Tensor, v_BTGC: Tensor) -> Tensor:
            q, k, v = (x.transpose(1, 2) for x in (q_BTHC, k_BTGC, v_BTGC))
            mask_TT = mask_of(q.shape[2]).to(q.device)
            out_BHTC = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask_TT, scale=original.scale, enable_gqa=True
            )
            return out_BHTC.transpose(1, 2)

        return stage

    return _everywhere(system, "attention", wrong)


@DEFECTS.plant("no_causal_mask")
def no_causal_mask(system: TransformerUnderContract) -> Planting:
    """Every position sees the whole row."""
    return _attention_wrong(system, lambda T: torch.ones(T, T, dtype=torch.bool))


@DEFECTS.plant("mask_leaks_the_next_token")
def mask_leaks_the_next_token(system: TransformerUnderContract) -> Planting:
    """The mask's diagonal is off by one: each position sees the token that it must predict."""
    return _attention_wrong(system, lambda T: torch.ones(T, T, dtype=torch.bool).tril(diagonal=1))


@DEFECTS.plant("gqa_heads_tiled")
def gqa_heads_tiled(system: TransformerUnderContract) -> Planting:
    """Query head h reads key/value head h % G instead of h // (H / G)."""

    def wrong(original: CausalAttention) -> Callable[..., Tensor]:
        def stage(q_BTHC: Tensor, k_BTGC: Tensor, v_BTGC: Tensor) -> Tensor:
            ratio = q_BTHC.shape[2] // k_BTGC.shape[2]
            return original(q_BTHC, k_BTGC.repeat(1, 1, ratio, 1), v_BTGC.repeat(1, 1, ratio, 1))

        return stage

    return _everywhere(system, "attention", wrong)


@DEFECTS.plant("softmax_scale_of_hidden_size")
def softmax_scale_of_hidden_size(system: TransformerUnderContract) -> Planting:
    """1/sqrt(hidden_size / heads) where head_dim is meant, or 1/sqrt(hidden_size) where the two agree."""
    config = system.model.config
    guessed = config.hidden_size / config.num_attention_heads
    width = guessed if guessed != config.head_dim else config.hidden_size
    return _everywhere(system, "attention", lambda _: CausalAttention(scale=width**-0.5))


@DEFECTS.plant("rope_interleaved_pairs")
def rope_interleaved_pairs(system: TransformerUnderContract) -> Planting:
    """Neighbouring channels are rotated as pairs, under weights that were trained with half-split pairs."""

    def wrong(original: Rope) -> Callable[[Tensor], Tensor]:
        def stage(x_BTHC: Tensor) -> Tensor:
            C = x_BTHC.shape[-1]
            to_pairs = torch.arange(C, device=x_BTHC.device).reshape(C // 2, 2).T.flatten()
            rotated_BTHC: Tensor = original(x_BTHC[..., to_pairs])
            return rotated_BTHC[..., to_pairs.argsort()]

        return stage

    return _stages_wrong(system, ("biased", "bias_free"), ("q_rope", "k_rope"), lambda original, _: wrong(original))


@DEFECTS.plant("rope_theta_not_from_config")
def rope_theta_not_from_config(system: TransformerUnderContract) -> Planting:
    """A theta compiled into the kernel: 1e4, or 5e5 where the checkpoint itself says 1e4."""
    config = system.model.config
    theta = 1e4 if config.rope_theta != 1e4 else 5e5

    def wrong(original: Rope, _: int) -> Rope:
        return Rope(*rope_tables(len(original.cos), config.head_dim, theta, system.device, torch.float32))

    return _stages_wrong(system, ("biased", "bias_free"), ("q_rope", "k_rope"), wrong)


@DEFECTS.plant("rms_norm_eps_not_from_config")
def rms_norm_eps_not_from_config(system: TransformerUnderContract) -> Planting:
    """An eps compiled into the kernel: 1e-6, or 1e-5 where the checkpoint itself says 1e-6."""
    eps = 1e-6 if system.model.config.rms_norm_eps != 1e-6 else 1e-5
    return _everywhere(system, "input_layernorm", lambda original: RMSNorm(original.weight, eps))


@DEFECTS.plant("gelu_for_silu")
def gelu_for_silu(system: TransformerUnderContract) -> Planting:
    """GELU gates the MLP."""
    return _everywhere(system, "swiglu", lambda _: lambda gate_BTF, up_BTF: functional.gelu(gate_BTF) * up_BTF)

"""Planted defects of the upload step: what never reaches the device, or reaches it changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda.upload import upload
from falsifiers.planting import Planting
from falsifiers.projections import QKV
from falsifiers.transformer_system import TransformerUnderContract

DEFECTS = Defects()


def _uploading(
    system: TransformerUnderContract, change: Callable[[TransformerConfig, dict[str, Tensor]], None]
) -> Planting:
    def defective(
        config: TransformerConfig, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
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
    """Two of three biases make it to the device; the third one's memory is never filled."""

    def leave(_: TransformerConfig, uploaded: dict[str, Tensor]) -> None:
        for name in _bias_names(uploaded, "k_proj"):
            uploaded[name] = torch.zeros_like(uploaded[name])

    return _uploading(system, leave)


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


@DEFECTS.plant("bias_precision_lost")
def bias_precision_lost(system: TransformerUnderContract) -> Planting:
    """Labelled float32, but holding bfloat16 values; 8-bit ones where the checkpoint's own are bfloat16 already."""

    def coarsen(_: TransformerConfig, uploaded: dict[str, Tensor]) -> None:
        for name in _bias_names(uploaded):
            bias_N = uploaded[name]
            coarse_N = bias_N.bfloat16().float()
            uploaded[name] = bias_N.to(torch.float8_e5m2).float() if torch.equal(coarse_N, bias_N) else coarse_N

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

"""Planted defects of what a CUDA model is made of: layers, weights, biases, gains and windows of another place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch

from aprender.falsify.probe import Defects
from falsifiers.cuda_model_planting import Planting, stage_elsewhere, stage_wrong
from falsifiers.cuda_model_system import ModelsUnderContract
from falsifiers.projections import bias_with

DEFECTS = Defects()


def _layers(system: ModelsUnderContract, change: Callable[[list[Any]], list[Any]]) -> Planting:
    """The untied model has ``change(its layers)``."""
    with ExitStack() as planted:
        for built in system.in_every_dtype("untied"):
            planted.enter_context(system.replaced(built, "layers", change(built.layers), ("untied",)))
        yield


@DEFECTS.plant("layers_swapped")
def layers_swapped(system: ModelsUnderContract) -> Planting:
    """The last one first."""
    return _layers(system, lambda layers: layers[::-1])


@DEFECTS.plant("layer_skipped")
def layer_skipped(system: ModelsUnderContract) -> Planting:
    """The last one is missing."""
    return _layers(system, lambda layers: layers[:-1])


@DEFECTS.plant("layer_loaded_twice")
def layer_loaded_twice(system: ModelsUnderContract) -> Planting:
    """The second layer has the first one's weights."""
    return _layers(system, lambda layers: [layers[0], replace(layers[0], index=1)])


@DEFECTS.plant("query_norm_for_keys")
def query_norm_for_keys(system: ModelsUnderContract) -> Planting:
    """One gain for both."""
    return stage_elsewhere(system, "untied", "layers.1.k_norm", lambda right, built: built.layers[1].q_norm)


@DEFECTS.plant("o_proj_of_another_layer")
def o_proj_of_another_layer(system: ModelsUnderContract) -> Planting:
    """An index too few."""
    return stage_elsewhere(system, "untied", "layers.1.o_proj", lambda right, built: built.layers[0].o_proj)


@DEFECTS.plant("norms_of_a_layer_swapped")
def norms_of_a_layer_swapped(system: ModelsUnderContract) -> Planting:
    """The first norm has the second one's gain."""

    def other(right: Any, built: Any) -> Any:
        return replace(right, weight=built.layers[0].post_attention_layernorm.weight)

    return stage_elsewhere(system, "tied", "layers.0.input_layernorm", other)


@DEFECTS.plant("key_and_value_biases_swapped")
def key_and_value_biases_swapped(system: ModelsUnderContract) -> Planting:
    """They have one shape."""

    def other(right: Any) -> Any:
        q_bias, k_bias, v_bias = right.bias.split(right.widths)
        return replace(right, bias=torch.cat((q_bias, v_bias, k_bias)))

    return stage_wrong(system, "untied", "layers.1.qkv_proj", other)


@DEFECTS.plant("bias_of_one_layer_dropped")
def bias_of_one_layer_dropped(system: ModelsUnderContract) -> Planting:
    """The founding defect, once."""
    return stage_wrong(
        system, "tied", "layers.1.qkv_proj", lambda right: replace(right, bias=bias_with(right, "q_proj", 0.0))
    )


@DEFECTS.plant("windows_of_the_layers_swapped")
def windows_of_the_layers_swapped(system: ModelsUnderContract) -> Planting:
    """The first layer is the windowed one: here it is windowed too."""
    return stage_wrong(system, "untied", "layers.0.attention", lambda right: replace(right, window=4))


@DEFECTS.plant("final_norm_missing")
def final_norm_missing(system: ModelsUnderContract) -> Planting:
    """The head reads the residual stream."""
    return stage_wrong(system, "untied", "norm", lambda right: lambda x: x)


@DEFECTS.plant("final_norm_of_a_layer")
def final_norm_of_a_layer(system: ModelsUnderContract) -> Planting:
    """Another gain."""
    return stage_elsewhere(system, "tied", "norm", lambda right, built: built.layers[1].input_layernorm)


@DEFECTS.plant("head_is_the_embedding")
def head_is_the_embedding(system: ModelsUnderContract) -> Planting:
    """An untied model is taken for a tied one."""

    def other(right: Any, built: Any) -> Any:
        return replace(right, weight=built.embed_tokens.weight)

    return stage_elsewhere(system, "untied", "lm_head", other)


@DEFECTS.plant("embedding_times_sqrt_hidden")
def embedding_times_sqrt_hidden(system: ModelsUnderContract) -> Planting:
    """As in Gemma."""
    return stage_wrong(system, "tied", "embed_tokens", lambda right: lambda tokens: right(tokens) * 26**0.5)


@DEFECTS.plant("token_ids_shifted")
def token_ids_shifted(system: ModelsUnderContract) -> Planting:
    """The next row of the table."""
    return stage_wrong(system, "tied", "embed_tokens", lambda right: lambda tokens: right((tokens + 1) % 67))

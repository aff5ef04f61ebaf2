"""Planted defects of how a CUDA model is put together: layers, residuals, norms, and who reads whose output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.cuda import model
from aprender.transformer.cuda.batch import Places
from falsifiers.cuda_model_planting import Planting, Seen, rewired, stage_wrong, wrapped
from falsifiers.cuda_model_system import ModelsUnderContract

DEFECTS = Defects()


def _layers(system: ModelsUnderContract, change: Callable[[list[Any]], list[Any]]) -> Planting:
    """The untied model has ``change(its layers)``."""
    return wrapped(system, system.models["untied"], "layers", change, "untied")


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


def _reading(system: ModelsUnderContract, stages: tuple[str, ...], change: Callable[..., Any], of: str) -> Planting:
    """In every layer some stages are called with ``change(inputs, seen)``."""

    def inputs(block: Any, name: str, given: Any, seen: Seen) -> Any:
        return change(given, seen) if name in stages else given

    return rewired(system, inputs=inputs, models=(of,))


def _returning(system: ModelsUnderContract, stage: str, change: Callable[..., Any], of: str) -> Planting:
    """In every layer a stage is said to have returned ``change(its output, seen)``."""

    def output(block: Any, name: str, y: Any, seen: Seen) -> Any:
        return change(y, seen) if name == stage else y

    return rewired(system, output=output, models=(of,))


@DEFECTS.plant("parallel_residual")
def parallel_residual(system: ModelsUnderContract) -> Planting:
    """The MLP reads the layer's input, beside attention."""
    norm = "post_attention_layernorm"

    def inputs(block: Any, name: str, given: Any, seen: Seen) -> Any:
        if name not in ("gate_proj", "up_proj"):
            return given
        return (getattr(block, norm)(seen["x"], torch.zeros_like(seen["x"]))[1],)

    return rewired(system, inputs=inputs, models=("tied",))


@DEFECTS.plant("stale_norm_fed_to_the_mlp")
def stale_norm_fed_to_the_mlp(system: ModelsUnderContract) -> Planting:
    """The buffer of the first norm."""
    return _reading(system, ("gate_proj", "up_proj"), lambda given, seen: (seen["input_layernorm"],), "tied")


@DEFECTS.plant("stale_norm_fed_to_up_alone")
def stale_norm_fed_to_up_alone(system: ModelsUnderContract) -> Planting:
    """Only one of the two projections."""
    return _reading(system, ("up_proj",), lambda given, seen: (seen["input_layernorm"],), "untied")


@DEFECTS.plant("values_of_the_unnormed_input")
def values_of_the_unnormed_input(system: ModelsUnderContract) -> Planting:
    """V is projected from the residual stream."""
    return _reading(system, ("v_proj",), lambda given, seen: (seen["x"],), "tied")


@DEFECTS.plant("residual_of_the_normed_input")
def residual_of_the_normed_input(system: ModelsUnderContract) -> Planting:
    """As in a post-norm transformer."""
    return _reading(
        system, ("post_attention_layernorm",), lambda given, seen: (seen["input_layernorm"], given[1]), "tied"
    )


@DEFECTS.plant("residual_skips_attention")
def residual_skips_attention(system: ModelsUnderContract) -> Planting:
    """The second addition goes on from the layer's input."""
    return _reading(system, ("residual",), lambda given, seen: (seen["x"], given[1]), "untied")


@DEFECTS.plant("residual_added_twice")
def residual_added_twice(system: ModelsUnderContract) -> Planting:
    """In the fused norm and after it."""
    return _reading(system, ("residual",), lambda given, seen: (given[0] + seen["x"], given[1]), "tied")


@DEFECTS.plant("attention_branch_dropped")
def attention_branch_dropped(system: ModelsUnderContract) -> Planting:
    """Its buffer is of zeros."""
    return _returning(system, "o_proj", lambda y, seen: y * 0, "tied")


@DEFECTS.plant("mlp_branch_dropped")
def mlp_branch_dropped(system: ModelsUnderContract) -> Planting:
    """The same of the MLP."""
    return _returning(system, "down_proj", lambda y, seen: y * 0, "tied")


@DEFECTS.plant("gate_and_up_swapped")
def gate_and_up_swapped(system: ModelsUnderContract) -> Planting:
    """SiLU of the wrong one."""
    return _reading(system, ("swiglu",), lambda given, seen: given[::-1], "tied")


@DEFECTS.plant("keys_not_rotated")
def keys_not_rotated(system: ModelsUnderContract) -> Planting:
    """Attention reads what was there before RoPE."""
    return _reading(
        system, ("attention",), lambda given, seen: (given[0], seen["k_proj"].view_as(given[1]), *given[2:]), "tied"
    )


@DEFECTS.plant("key_norm_skipped")
def key_norm_skipped(system: ModelsUnderContract) -> Planting:
    """RoPE reads the projection itself."""

    def inputs(block: Any, name: str, given: Any, seen: Seen) -> Any:
        return (seen["k_proj"].view_as(given[0]), *given[1:]) if name == "k_rope" else given

    return rewired(system, inputs=inputs, models=("untied",))


@DEFECTS.plant("query_norm_for_keys")
def query_norm_for_keys(system: ModelsUnderContract) -> Planting:
    """One gain for both."""
    layer = system.models["untied"].layers[1]
    return stage_wrong(system, "untied", "layers.1.k_norm", lambda right: layer.q_norm)


@DEFECTS.plant("values_also_rotated")
def values_also_rotated(system: ModelsUnderContract) -> Planting:
    """RoPE on v."""

    def inputs(block: Any, name: str, given: Any, seen: Seen) -> Any:
        return (*given[:2], block.k_rope(given[2], given[4]), *given[3:]) if name == "attention" else given

    return rewired(system, inputs=inputs, models=("tied",))


@DEFECTS.plant("o_proj_of_another_layer")
def o_proj_of_another_layer(system: ModelsUnderContract) -> Planting:
    """An index too few."""
    other = system.models["untied"].layers[0].o_proj
    return stage_wrong(system, "untied", "layers.1.o_proj", lambda right: other)


@DEFECTS.plant("norms_of_a_layer_swapped")
def norms_of_a_layer_swapped(system: ModelsUnderContract) -> Planting:
    """The first norm has the second one's gain."""
    gain: Any = system.models["tied"].layers[0].post_attention_layernorm
    return stage_wrong(system, "tied", "layers.0.input_layernorm", lambda right: replace(right, weight=gain.weight))


@DEFECTS.plant("key_and_value_biases_swapped")
def key_and_value_biases_swapped(system: ModelsUnderContract) -> Planting:
    """They have one shape."""
    other: Any = system.models["untied"].layers[1].v_proj
    return stage_wrong(system, "untied", "layers.1.k_proj", lambda right: replace(right, bias=other.bias))


@DEFECTS.plant("bias_of_one_layer_dropped")
def bias_of_one_layer_dropped(system: ModelsUnderContract) -> Planting:
    """The founding defect, once."""
    return stage_wrong(system, "tied", "layers.1.q_proj", lambda right: replace(right, bias=None))


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
    other = system.models["tied"].layers[1].input_layernorm
    return stage_wrong(system, "tied", "norm", lambda right: other)


@DEFECTS.plant("head_is_the_embedding")
def head_is_the_embedding(system: ModelsUnderContract) -> Planting:
    """An untied model is taken for a tied one."""
    table: Any = system.models["untied"].embed_tokens
    return stage_wrong(system, "untied", "lm_head", lambda right: replace(right, weight=table.weight))


@DEFECTS.plant("embedding_times_sqrt_hidden")
def embedding_times_sqrt_hidden(system: ModelsUnderContract) -> Planting:
    """As in Gemma."""
    return stage_wrong(system, "tied", "embed_tokens", lambda right: lambda tokens: right(tokens) * 26**0.5)


@DEFECTS.plant("token_ids_shifted")
def token_ids_shifted(system: ModelsUnderContract) -> Planting:
    """The next row of the table."""
    return stage_wrong(system, "tied", "embed_tokens", lambda right: lambda tokens: right((tokens + 1) % 67))


@DEFECTS.plant("residual_stream_in_bfloat16")
def residual_stream_in_bfloat16(system: ModelsUnderContract) -> Planting:
    """Between the layers."""
    return stage_wrong(
        system, "tied", "layers.0.residual", lambda right: lambda x, y: right(x, y).bfloat16().to(x.dtype)
    )


@DEFECTS.plant("stale_hidden_state")
def stale_hidden_state(system: ModelsUnderContract) -> Planting:
    """The second layer reads the embedding's buffer."""

    def inputs(block: Any, name: str, given: Any, seen: Seen) -> Any:
        return (kept[0],) if name == "input_layernorm" and block.index else given

    kept: list[Tensor] = []

    def output(block: Any, name: str, y: Any, seen: Seen) -> Any:
        if not block.index and name == "input_layernorm":
            kept[:] = [seen["x"]]
        return y

    return rewired(system, inputs=inputs, output=output, models=("tied",))


def _places(system: ModelsUnderContract, change: Callable[[Places], Places]) -> Planting:
    return wrapped(system, model, "places", lambda right: lambda *given: change(right(*given)))


@DEFECTS.plant("positions_not_passed_on")
def positions_not_passed_on(system: ModelsUnderContract) -> Planting:
    """All tokens stand at 0: without rotation, and each sees its whole document."""
    return _places(system, lambda at: Places(at.positions_BT * 0, at.documents_BT))


@DEFECTS.plant("documents_not_passed_on")
def documents_not_passed_on(system: ModelsUnderContract) -> Planting:
    """All tokens of a row see each other, padding too."""

    def inputs(block: Any, name: str, given: Any, seen: Seen) -> Any:
        return given[:5] if name == "attention" else given

    return rewired(system, inputs=inputs, models=("tied",))

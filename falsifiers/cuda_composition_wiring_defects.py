"""Planted defects of how a CUDA model is put together: layers, residuals, norms, and who reads whose output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.cuda import model
from aprender.transformer.cuda.batch import Places
from falsifiers.cuda_model_planting import Planting, Seen, rewired, wrapped
from falsifiers.cuda_model_system import ModelsUnderContract

DEFECTS = Defects()


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

    def output(block: Any, name: str, y: Any, seen: Seen) -> Any:
        return (*y[:2], block.qkv_proj(seen["x"])[2]) if name == "qkv_proj" else y

    return rewired(system, output=output, models=("tied",))


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
        system,
        ("attention",),
        lambda given, seen: (given[0], seen["qkv_proj"][1].view_as(given[1]), *given[2:]),
        "tied",
    )


@DEFECTS.plant("key_norm_skipped")
def key_norm_skipped(system: ModelsUnderContract) -> Planting:
    """RoPE reads the projection itself."""

    def inputs(block: Any, name: str, given: Any, seen: Seen) -> Any:
        return (seen["qkv_proj"][1].view_as(given[0]), *given[1:]) if name == "k_rope" else given

    return rewired(system, inputs=inputs, models=("untied",))


@DEFECTS.plant("values_also_rotated")
def values_also_rotated(system: ModelsUnderContract) -> Planting:
    """RoPE on v."""

    def inputs(block: Any, name: str, given: Any, seen: Seen) -> Any:
        return (*given[:2], block.k_rope(given[2], given[4]), *given[3:]) if name == "attention" else given

    return rewired(system, inputs=inputs, models=("tied",))


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

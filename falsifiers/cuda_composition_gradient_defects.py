"""Planted defects of a CUDA model's gradients: lost, stale, doubled, cut, or another parameter's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.cuda.block import Block
from aprender.transformer.cuda.model import CudaTransformer
from falsifiers.cuda_model_planting import Planting, stage_wrong, wrapped
from falsifiers.cuda_model_system import CONFIGS, ModelsUnderContract

DEFECTS = Defects()
Named = dict[str, Tensor]
EMBEDDING = "model.embed_tokens.weight"
V_BIAS, Q_WEIGHT = "model.layers.1.self_attn.v_proj.bias", "model.layers.0.self_attn.q_proj.weight"


def _changed(system: ModelsUnderContract, of: str, change: Callable[[Named], Named]) -> Planting:
    """The gradients by name of one model are ``change(them)``."""

    def make(right: Any) -> Any:
        def by_name(self: CudaTransformer, gradients: Named) -> Named:
            found: Named = right(self, gradients)
            return change(found) if any(self is built for built in system.in_every_dtype(of)) else found

        return by_name

    return wrapped(system, CudaTransformer, "_by_checkpoint_name", make, of)


def _one(system: ModelsUnderContract, of: str, name: str, change: Callable[[Tensor], Tensor]) -> Planting:
    return _changed(system, of, lambda found: found | {name: change(found[name])})


@DEFECTS.plant("gradient_of_one_bias_zero")
def gradient_of_one_bias_zero(system: ModelsUnderContract) -> Planting:
    """It trains on, but for this."""
    return _one(system, "tied", V_BIAS, torch.zeros_like)


@DEFECTS.plant("gradient_of_one_bias_lost")
def gradient_of_one_bias_lost(system: ModelsUnderContract) -> Planting:
    """It is not among those returned."""
    return _changed(system, "tied", lambda found: {name: g for name, g in found.items() if name != V_BIAS})


@DEFECTS.plant("gradient_of_one_weight_scaled")
def gradient_of_one_weight_scaled(system: ModelsUnderContract) -> Planting:
    """By 1.001."""
    return _one(system, "tied", Q_WEIGHT, lambda g: g * 1.001)


@DEFECTS.plant("gradients_of_two_layers_exchanged")
def gradients_of_two_layers_exchanged(system: ModelsUnderContract) -> Planting:
    """One shape, the other's place."""
    other = Q_WEIGHT.replace(".0.", ".1.")
    return _changed(system, "tied", lambda found: found | {Q_WEIGHT: found[other], other: found[Q_WEIGHT]})


@DEFECTS.plant("gradients_in_bfloat16")
def gradients_in_bfloat16(system: ModelsUnderContract) -> Planting:
    """Rounded on the way out."""
    return _changed(system, "tied", lambda found: {name: g.bfloat16().float() for name, g in found.items()})


@DEFECTS.plant("gradients_accumulate_over_passes")
def gradients_accumulate_over_passes(system: ModelsUnderContract) -> Planting:
    """The last pass's are still in them."""
    total: Named = {}

    def added(found: Named) -> Named:
        total.update({name: g + total[name] if name in total else g for name, g in found.items()})
        return dict(total)

    return _changed(system, "tied", added)


@DEFECTS.plant("gradient_of_the_pass_before")
def gradient_of_the_pass_before(system: ModelsUnderContract) -> Planting:
    """One buffer is read before it is written."""
    last: list[Tensor] = []

    def stale(gradient: Tensor) -> Tensor:
        last.append(gradient)
        return last[max(0, len(last) - 2)]

    return _one(system, "tied", Q_WEIGHT, stale)


def _stage(system: ModelsUnderContract, of: str, name: str, change: Callable[..., Any]) -> Planting:
    """A stage's backward pass returns ``change(saved, d_output, d_inputs, d_parameters)``."""
    return stage_wrong(system, of, name, lambda right: _Changed(right, change))


class _Changed:
    def __init__(self, right: Any, change: Callable[..., Any]) -> None:
        self.right, self.change = right, change

    def forward(self, *inputs: Any) -> Any:
        return self.right.forward(*inputs)

    def backward(self, saved: Any, d_output: Any) -> Any:
        return self.change(saved, d_output, *self.right.backward(saved, d_output))


@DEFECTS.plant("bias_gradient_of_the_last_row")
def bias_gradient_of_the_last_row(system: ModelsUnderContract) -> Planting:
    """Rows are not added up."""

    def change(saved: Any, d_output: tuple[Tensor, ...], d_inputs: Any, found: Named) -> Any:
        d_bias = found["bias"].clone()
        torch.split(d_bias, [d_y.shape[-1] for d_y in d_output])[1].copy_(d_output[1][-1].sum(0))
        return d_inputs, found | {"bias": d_bias}

    return _stage(system, "tied", "layers.0.qkv_proj", change)


@DEFECTS.plant("bias_gradient_summed_over_the_wrong_axis")
def bias_gradient_summed_over_the_wrong_axis(system: ModelsUnderContract) -> Planting:
    """Read as [N, rows]: as many numbers, other sums."""

    def change(saved: Any, d_output: tuple[Tensor, ...], d_inputs: Any, found: Named) -> Any:
        d_y = torch.cat(d_output, -1)
        return d_inputs, found | {"bias": d_y.reshape(d_y.shape[-1], -1).sum(1)}

    return _stage(system, "tied", "layers.1.qkv_proj", change)


@DEFECTS.plant("tied_gradient_without_the_head")
def tied_gradient_without_the_head(system: ModelsUnderContract) -> Planting:
    """Only what tokens looked up is trained."""
    return _stage(system, "tied", "loss", lambda saved, dy, dx, found: (dx, {"weight": 0 * found["weight"]}))


@DEFECTS.plant("tied_gradient_without_the_embedding")
def tied_gradient_without_the_embedding(system: ModelsUnderContract) -> Planting:
    """Only what makes logits is trained."""
    return _stage(system, "tied", "embed_tokens", lambda saved, dy, dx, found: (dx, {"weight": 0 * found["weight"]}))


@DEFECTS.plant("tied_gradient_of_one_use")
def tied_gradient_of_one_use(system: ModelsUnderContract) -> Planting:
    """The second one written takes the first one's place."""

    def make(right: Any) -> Any:
        def by_name(self: CudaTransformer, gradients: Named) -> Named:
            found: Named = right(self, {name: g for name, g in gradients.items() if name != "loss.weight"})
            return found

        return by_name

    return wrapped(system, CudaTransformer, "_by_checkpoint_name", make, "tied")


@DEFECTS.plant("repeated_tokens_counted_once")
def repeated_tokens_counted_once(system: ModelsUnderContract) -> Planting:
    """An assignment where an addition should be."""

    def change(saved: Any, d_output: Tensor, d_inputs: Any, found: Named) -> Any:
        table = torch.zeros_like(found["weight"])
        table[saved[0].flatten()] = d_output.flatten(0, 1)
        return d_inputs, {"weight": table}

    return _stage(system, "untied", "embed_tokens", change)


def _backward(system: ModelsUnderContract, change: Callable[..., Any], *models: str) -> Planting:
    """``change(block, stage, d_inputs)`` is what a stage's backward pass is said to have returned."""

    def make(right: Any) -> Any:
        def backward(self: Block, d_x: Tensor, back: Any) -> Any:
            return right(self, d_x, lambda name, d_output: change(self, name, back(name, d_output)))

        return backward

    return wrapped(system, Block, "backward", make, *(models or tuple(CONFIGS)))


@DEFECTS.plant("residual_gradient_cut")
def residual_gradient_cut(system: ModelsUnderContract) -> Planting:
    """At the second layer nothing passes beside the MLP."""

    def change(block: Block, name: str, found: Any) -> Any:
        return (found[0] * 0, found[1]) if name == "residual" and block.index else found

    return _backward(system, change, "tied")


@DEFECTS.plant("residual_gradient_through_the_norm_alone")
def residual_gradient_through_the_norm_alone(system: ModelsUnderContract) -> Planting:
    """The stream's own gradient does not pass beside attention."""

    def change(block: Block, name: str, found: Any) -> Any:
        return (found[0] * 0, found[1]) if name == "post_attention_layernorm" else found

    return _backward(system, change, "tied")


@DEFECTS.plant("gradient_through_up_dropped")
def gradient_through_up_dropped(system: ModelsUnderContract) -> Planting:
    """Of the two uses of the normed state only one counts."""
    return _backward(system, lambda block, name, found: (found[0] * 0,) if name == "up_proj" else found, "tied")


@DEFECTS.plant("gradient_through_values_dropped")
def gradient_through_values_dropped(system: ModelsUnderContract) -> Planting:
    """Of the three uses of the normed state two count."""

    def make(right: Any) -> Any:
        def backward(self: Block, d_x: Tensor, back: Any) -> Any:
            def without(name: str, d_output: Any) -> Any:
                d_inputs = back(name, d_output)
                if name != "qkv_proj":
                    return d_inputs
                qkv_proj: Any = self.qkv_proj
                return (d_inputs[0] - d_output[2] @ qkv_proj.part(2).weight,)

            return right(self, d_x, without)

        return backward

    return wrapped(system, Block, "backward", make, "tied")


@DEFECTS.plant("gradients_of_q_and_k_dropped")
def gradients_of_q_and_k_dropped(system: ModelsUnderContract) -> Planting:
    """Nothing flows through the probabilities: their projections do not train at all."""

    def change(block: Block, name: str, found: Any) -> Any:
        return (found[0] * 0, found[1] * 0, found[2]) if name == "attention" else found

    return _backward(system, change, "untied")


@DEFECTS.plant("rope_gradient_not_turned_back")
def rope_gradient_not_turned_back(system: ModelsUnderContract) -> Planting:
    """The gradient of the rotated keys is taken for that of the keys."""

    def change(saved: Any, d_output: Tensor, d_inputs: Any, found: Named) -> Any:
        return (d_output,), found

    return _stage(system, "tied", "layers.0.k_rope", change)

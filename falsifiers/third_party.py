"""Hugging Face's ``transformers`` as the third party: its own models, its own autograd, on weights that we hand over.

What it computes shares no line with the oracle. Each document is given to it alone, at positions from 0, without
padding: what it makes of padding and packing is not relied on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.overrides import TorchFunctionMode

from aprender.transformer.config import (
    LinearScaling,
    Llama3Scaling,
    RopeScaling,
    TransformerConfig,
    YarnScaling,
)

MODELS = {"qwen2": "Qwen2", "llama": "Llama", "mistral": "Mistral", "qwen3": "Qwen3"}


class Float64(TorchFunctionMode):
    """Read every float32 as float64: transformers computes norms, softmax and angles in float32 for any model."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def wide(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        func = torch.Tensor.double if func is torch.Tensor.float else func
        return func(*map(wide, args), **{key: wide(value) for key, value in (kwargs or {}).items()})


@dataclass(frozen=True)
class Reference:
    """What transformers computed in float64 for the documents of a batch, one entry a document, in order.

    ``hidden`` are the states after the embedding, each layer and the last norm. ``loss`` is the mean over all targets
    of all documents, in nats; ``gradients`` are its own autograd's, by Hugging Face's names.
    ``float32_gradient_error`` is how far its own float32 run is from them: the largest relative error of a parameter's.
    """

    logits: list[Tensor]  # [t, V]
    hidden: list[list[Tensor]]  # [state][t, D]
    loss: Tensor
    gradients: dict[str, Tensor]
    float32_gradient_error: float


def reference(config: TransformerConfig, weights: Mapping[str, Tensor], documents: Sequence[Tensor]) -> Reference:
    """Run ``documents`` (int64, [t]) through transformers' model of ``config`` in float64, forward and backward."""
    with Float64():
        logits, hidden, loss, gradients = _run(build(config, weights, torch.float64), documents)
    *_, rounded = _run(build(config, weights, torch.float32), documents)
    errors = [(rounded[name] - exact).norm() / exact.norm() for name, exact in gradients.items()]
    return Reference(logits, hidden, loss, gradients, float(torch.stack(errors).max()))


def build(config: TransformerConfig, weights: Mapping[str, Tensor], dtype: torch.dtype) -> Any:
    """The transformers model of ``config`` with eager attention, holding copies of ``weights`` in ``dtype``."""
    model_class, model_config = configured(config, attn_implementation="eager")
    model = model_class(model_config).to(dtype).eval()
    model.load_state_dict(as_stored(config, weights), strict=True)
    return model


def configured(config: TransformerConfig, **more: Any) -> tuple[Any, Any]:
    """Transformers' model class for ``config``, and its own configuration object, with ``more`` settings.

    A configuration that its class has no place for (a window on an odd layer of Mistral) is not looked for here.
    """
    name = MODELS[config.family]
    settings = {
        field: getattr(config, field)
        for field in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "rms_norm_eps",
            "tie_word_embeddings",
        )
    }
    settings["rope_parameters"] = {"rope_theta": config.rope_theta, **_scaling(config.rope_scaling)}
    settings |= _windows(config) | _context(config.rope_scaling)
    return getattr(transformers, f"{name}ForCausalLM"), getattr(transformers, f"{name}Config")(**settings, **more)


def _run(model: Any, documents: Sequence[Tensor]) -> tuple[list[Tensor], list[list[Tensor]], Tensor, dict[str, Tensor]]:
    """Logits and hidden states by document, the mean loss over all targets, and its gradient by every parameter."""
    logits, hidden, losses = [], [], []
    for document in documents:
        states: list[Tensor] = []
        watched = [model.model.embed_tokens, *model.model.layers, model.model.norm]
        hooks = [module.register_forward_hook(_appending(states)) for module in watched]
        logits_TV = model(document[None]).logits[0]
        for hook in hooks:
            hook.remove()
        losses.append(torch.nn.functional.cross_entropy(logits_TV[:-1], document[1:], reduction="none"))
        logits.append(logits_TV.detach())
        hidden.append(states)
    loss = torch.cat(losses).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return logits, hidden, loss.detach(), gradients


def _appending(states: list[Tensor]) -> Callable[[Any, Any, Any], None]:
    def hook(_: Any, __: Any, output: Any) -> None:
        states.append(output[0].detach())

    return hook


def as_stored(config: TransformerConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weights`` under all of transformers' names: a tied head stands there twice."""
    stored = {name: weights[name] for name in config.tensor_shapes()}
    if config.tie_word_embeddings:
        stored["lm_head.weight"] = stored["model.embed_tokens.weight"]
    return stored


def _scaling(scaling: RopeScaling | None) -> dict[str, Any]:
    match scaling:
        case None:
            return {"rope_type": "default"}
        case LinearScaling():
            return {"rope_type": "linear", "factor": scaling.factor}
        case Llama3Scaling():
            return {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_position_embeddings,
            }
        case YarnScaling():
            return {
                "rope_type": "yarn",
                "factor": scaling.factor,
                "beta_fast": scaling.beta_fast,
                "beta_slow": scaling.beta_slow,
                "attention_factor": scaling.attention_factor,
                "truncate": scaling.truncate,
                "original_max_position_embeddings": scaling.original_max_position_embeddings,
            }


def _context(scaling: RopeScaling | None) -> dict[str, Any]:
    """The context that YaRN stretches to: transformers warns where it is not ``factor`` times the original."""
    if not isinstance(scaling, YarnScaling):
        return {}
    return {"max_position_embeddings": int(scaling.factor * scaling.original_max_position_embeddings)}


def _windows(config: TransformerConfig) -> dict[str, Any]:
    """Mistral windows every layer; the Qwens those that ``layer_types`` names; Llama none."""
    width = next((window for window in config.windows if window is not None), None)
    if config.family == "mistral":
        return {"sliding_window": width}
    if width is None:
        return {}
    kinds = ["full_attention" if window is None else "sliding_attention" for window in config.windows]
    return {"use_sliding_window": True, "sliding_window": width, "layer_types": kinds}

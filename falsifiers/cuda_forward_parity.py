"""Probes of FALSIFY-CUDA-FORWARD-PARITY-001..003: the CUDA forward pass equals the CPU's, biases included."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import torch

from aprender.falsify.probe import Observation, probe
from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda import CudaTransformer
from aprender.transformer.cuda.stages import get_stage
from aprender.transformer.oracle import operators
from falsifiers.attention_inputs import AttentionInputs, Response, layer_inputs
from falsifiers.digests import digest_of
from falsifiers.projections import QKV, part
from falsifiers.threads import threads
from falsifiers.transformer_defects import DEFECTS
from falsifiers.transformer_system import SEED, TRANSFORMER, TransformerUnderContract


def on_its_threads(function: Callable[..., Observation]) -> Callable[..., Observation]:
    """``function`` of a system with torch on as many threads as its model is worth."""

    @wraps(function)
    def run(system: TransformerUnderContract, **arguments: Any) -> Observation:
        with threads(system.threads):
            return function(system, **arguments)

    return run


@probe(
    system=TRANSFORMER,
    observes={
        "val_loss": "nats",
        "oracle_val_loss": "nats",
        "mean_token_error": "nats",
        "val_loss_envelope": "nats",
        "forward_token_error": "nats",
        "forward_envelope": "nats",
        "vocab_size": "tokens",
        "tokens_evaluated": "tokens",
        "sequences": "rows",
        "shortest_sequence": "tokens",
    },
    defects=DEFECTS,
)
@on_its_threads
def validation_loss(system: TransformerUnderContract, *, sequences: int, positions: int) -> Observation:
    """Next-token losses of the CUDA path and of the oracle on the same held-out tokens.

    ``mean_token_error`` is the mean over tokens of |loss - oracle's loss|: errors that cancel in the mean loss, or
    losses that are right but at the wrong tokens, show in it. ``forward_token_error`` is the same for losses that the
    oracle's formula takes from the logits of ``forward``, on the first two rows: what users call is looked at too.
    """
    tokens_BT = system.held_out_tokens(sequences, positions)
    losses_BT = system.model.token_losses(tokens_BT.to(system.device)).double().cpu()
    exact_BT = system.exact_losses(system.own, sequences, positions)
    logits_BTV = system.model.forward(tokens_BT[:2].to(system.device)).double().cpu()
    rows = zip(logits_BTV[:, :-1], tokens_BT[:2, 1:], strict=True)
    forward_BT = torch.stack([operators.cross_entropy(logits_TV, targets_T) for logits_TV, targets_T in rows])
    values = {
        "val_loss": float(losses_BT.mean()),
        "oracle_val_loss": float(exact_BT.mean()),
        "mean_token_error": float((losses_BT - exact_BT).abs().mean()),
        "val_loss_envelope": system.loss_envelope(system.own, sequences, positions),
        "forward_token_error": float((forward_BT - exact_BT[:2]).abs().mean()),
        "forward_envelope": system.loss_envelope(system.own, sequences, positions, first=2),
        "vocab_size": system.model.config.vocab_size,
        "tokens_evaluated": losses_BT.numel(),
        "sequences": losses_BT.shape[0],
        "shortest_sequence": losses_BT.shape[1] + 1,
    }
    return _observation(system, values, [losses_BT, forward_BT])


@probe(
    system=TRANSFORMER,
    observes={
        "bias_tensors_expected": "tensors",
        "bias_tensors_present": "tensors",
        "bias_elements_expected": "elements",
        "bias_elements_equal": "elements",
        "largest_bias": "",
        "bias_free_blocks": "blocks",
        "bias_free_tensors_present": "tensors",
    },
    defects=DEFECTS,
)
def bias_tensors(system: TransformerUnderContract) -> Observation:
    """Look at the built blocks: which Q/K/V bias tensors they hold, and whether those are the checkpoint's bits."""
    variant, bias_free = system.variants["biased"], system.models["bias_free"]
    stored = {name: variant.tensors[_tensor_name(name)].float() for name in _projections(variant.config)}
    held = {name: _bias(system.models["biased"], name) for name in stored}
    invented = [_bias(bias_free, name) for name in _projections(system.variants["bias_free"].config)]
    values = {
        "bias_tensors_expected": len(stored),
        "bias_tensors_present": sum(bias_N is not None for bias_N in held.values()),
        "bias_elements_expected": sum(bias_N.numel() for bias_N in stored.values()),
        "bias_elements_equal": sum(_equal_bits(held[name], stored[name]) for name in stored),
        "largest_bias": max(float(bias_N.abs().max()) for bias_N in stored.values()),
        "bias_free_blocks": len(bias_free.layers),
        "bias_free_tensors_present": sum(bias_N is not None for bias_N in invented),
    }
    seen = [bias_N for bias_N in (*held.values(), *invented) if bias_N is not None]
    return _observation(system, values, seen)


@probe(
    system=TRANSFORMER,
    observes={
        "biases_expected": "tensors",
        "biases_answering": "tensors",
        "response_error": "envelopes",
        "projection_error": "envelopes",
        "bias_free_error": "envelopes",
        "bias_free_token_error": "nats",
        "bias_free_envelope": "nats",
        "bias_free_blocks": "blocks",
        "least_sensitivity": "envelopes",
        "rows": "rows",
        "positions": "tokens",
    },
    defects=DEFECTS,
)
@on_its_threads
def bias_response(system: TransformerUnderContract, *, rows: int, positions: int) -> Observation:
    """Perturb each bias in turn and look at what attention is fed: q and k after RoPE, and v.

    A perturbation d of one bias must move that input by the oracle's RoPE of d (of v: by d), at every row, position,
    head and channel, and move the other two by nothing. Without perturbation, and in the bias-free model, attention
    must be fed what the oracle computes from the same layer input. These errors are in units of the float32 envelope.
    The bias-free model's losses are compared with its own oracle's, as in ``validation_loss``.
    ``least_sensitivity`` is the weakest expected response over all rows, positions and heads: what rounding alone could
    move as far was not looked at.
    """
    tokens_BT = system.held_out_tokens(rows, positions)
    generator = torch.Generator().manual_seed(SEED)
    outputs: list[torch.Tensor] = []
    responses: list[Response] = []
    projection_errors, bias_free_errors = [], []
    for index, x_BTD in enumerate(layer_inputs(system.models["biased"], tokens_BT)):
        inputs = AttentionInputs(system, "biased", index, x_BTD)
        base = inputs.observed()
        projection_errors.append(inputs.error(base))
        responses += [inputs.response(projection, base, generator) for projection in QKV]
        outputs += base
    for index, x_BTD in enumerate(layer_inputs(system.models["bias_free"], tokens_BT)):
        inputs = AttentionInputs(system, "bias_free", index, x_BTD)
        base = inputs.observed()
        bias_free_errors.append(inputs.error(base))
        outputs += base
    outputs += [moved for response in responses for moved in response.moved]
    losses_BT = system.models["bias_free"].token_losses(tokens_BT.to(system.device)).double().cpu()
    exact_BT = system.exact_losses("bias_free", rows, positions)
    outputs.append(losses_BT)
    values = {
        "biases_expected": len(_projections(system.variants["biased"].config)),
        "biases_answering": sum(response.error <= 1 for response in responses),
        # torch's max and min, unlike Python's, let no NaN get lost
        "response_error": _largest(response.error for response in responses),
        "projection_error": _largest(projection_errors),
        "bias_free_error": _largest(bias_free_errors),
        "bias_free_token_error": float((losses_BT - exact_BT).abs().mean()),
        "bias_free_envelope": system.loss_envelope("bias_free", rows, positions),
        "bias_free_blocks": len(system.models["bias_free"].layers),
        "least_sensitivity": -_largest(-response.sensitivity for response in responses),
        "rows": tokens_BT.shape[0],
        "positions": tokens_BT.shape[1],
    }
    return _observation(system, values, outputs)


def _projections(config: TransformerConfig) -> list[str]:
    """Names of all Q/K/V projections that there must be, whatever was built."""
    return [f"layers.{index}.{projection}" for index in range(config.num_hidden_layers) for projection in QKV]


def _tensor_name(name: str) -> str:
    """layers.3.q_proj -> model.layers.3.self_attn.q_proj.bias."""
    layer, _, projection = name.rpartition(".")
    return f"model.{layer}.self_attn.{projection}.bias"


def _bias(model: CudaTransformer, name: str) -> torch.Tensor | None:
    layer, _, projection = name.rpartition(".")
    if int(layer.split(".")[1]) >= len(model.layers):
        return None  # the layer itself is missing
    stage: Any = get_stage(model, f"{layer}.qkv_proj")
    return part(stage, projection).bias


def _equal_bits(held_N: torch.Tensor | None, stored_N: torch.Tensor) -> int:
    """How many elements are bit-equal; none where the tensor is absent or has another shape or dtype."""
    if held_N is None or held_N.shape != stored_N.shape or held_N.dtype != stored_N.dtype:
        return 0
    return int((held_N.detach().cpu().view(torch.int32) == stored_N.view(torch.int32)).sum())


def _observation(
    system: TransformerUnderContract, values: dict[str, float | int], outputs: Iterable[torch.Tensor]
) -> Observation:
    """The observation with a digest of the raw ``outputs`` behind it, from a system that left its weights alone."""
    system.check_weights()
    return Observation(values, digest_of(outputs))


def _largest(errors: Iterable[float]) -> float:
    return float(torch.tensor(list(errors), dtype=torch.float64).max())

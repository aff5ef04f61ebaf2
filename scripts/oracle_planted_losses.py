"""What a real model's loss is with one thing wrong at a time, by the oracle in float32: a table in Markdown.

    python -m scripts.oracle_planted_losses MODEL OUTPUT.md

Text: the beginning of the standard library's textwrap.py. The first group is over 512 tokens, the second over 256. A
single-token test (token 100 alone: RED where the cosine of the logits is at most 0.95 and the argmax another) and a
loss gate (RED from 0.7 ln V on) stand beside each loss: what usual tests see of the defect. ``recorded`` are the
numbers measured earlier with transformers on the same file; OUTPUT.md has both side by side.
"""

from __future__ import annotations

import argparse
import math
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aprender.formats import load_checkpoint
from aprender.formats.checkpoint import Checkpoint
from aprender.transformer.config import TransformerConfig
from aprender.transformer.oracle import Batch, Oracle, attention, layer, operators, rope
from aprender.transformer.oracle.attention import Places
from falsifiers.oracle_defects import DEFECTS
from falsifiers.oracle_system import OracleUnderContract

SYSTEM = OracleUnderContract("cpu")
Planted = Callable[[TransformerConfig], AbstractContextManager[Any]]
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Variation:
    """One thing wrong: in the configuration, in the weights, or in the oracle's code."""

    name: str
    recorded_loss: float
    recorded: str  # single-token test, loss gate, mean cosine, argmax agreement
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: Callable[[Weights], Weights] = lambda weights: weights
    planted: Planted = lambda config: nullcontext()


def defect(name: str) -> Planted:
    return lambda config: DEFECTS[name].plant(SYSTEM)


def scaled(scale: Callable[[TransformerConfig], float]) -> Planted:
    return lambda config: SYSTEM.replaced(layer.Setting, "scale", property(lambda setting: scale(setting.config)))


def without(*endings: str) -> Callable[[Weights], Weights]:
    """Tensors whose names end so are zeros."""
    return changed(torch.zeros_like, *endings)


def changed(change: Callable[[Tensor], Tensor], *endings: str) -> Callable[[Weights], Weights]:
    def apply(weights: Weights) -> Weights:
        return {name: change(tensor) if name.endswith(endings) else tensor for name, tensor in weights.items()}

    return apply


def mask_excludes_self(_: TransformerConfig) -> AbstractContextManager[Any]:
    """All but the first position, which would be left without a key."""
    right = attention.allowed_pairs

    def allowed_pairs(queries: Places, keys: Places, window: int | None) -> Tensor:
        query_BT1, key_B1S = queries.positions_BT[:, :, None], keys.positions_BT[:, None, :]
        return right(queries, keys, window) & ((key_B1S != query_BT1) | (query_BT1 == 0))

    return SYSTEM.replaced(attention, "allowed_pairs", allowed_pairs)


def rope_on_first_q_head_only(_: TransformerConfig) -> AbstractContextManager[Any]:
    right = layer.place

    def place(weights: Any, setting: Any, kind: str, heads_BTHC: Tensor) -> Tensor:
        placed_BTHC = right(weights, setting, kind, heads_BTHC)
        return placed_BTHC if kind == "k" else torch.cat((placed_BTHC[:, :, :1], heads_BTHC[:, :, 1:]), 2)

    return SYSTEM.replaced(layer, "place", place)


def k_position_off_by_one(config: TransformerConfig) -> AbstractContextManager[Any]:
    """Each key stands one position too early, the first one where it is."""
    right = layer.place

    def place(weights: Any, setting: Any, kind: str, heads_BTHC: Tensor) -> Tensor:
        if kind == "k":
            positions_BT = torch.arange(-1, heads_BTHC.shape[1] - 1).clamp(min=0).expand(heads_BTHC.shape[:2])
            tables = rope.tables(positions_BT, config.head_dim, config.rope_theta, None, heads_BTHC.dtype)
            setting = replace(setting, cos_BTR=tables[0], sin_BTR=tables[1])
        return right(weights, setting, kind, heads_BTHC)

    return SYSTEM.replaced(layer, "place", place)


def ones_as_final_gain(weights: Weights) -> Weights:
    return {**weights, "model.norm.weight": torch.ones_like(weights["model.norm.weight"])}


LONG = [
    Variation("intact", 1.4257, ""),
    Variation("Q, K and V biases dropped", 13.9908, "RED, RED, 0.419, 0.004", weights=without("_proj.bias")),
    Variation(
        "Q and K biases dropped", 10.0003, "missed, RED, 0.734, 0.027", weights=without("q_proj.bias", "k_proj.bias")
    ),
    Variation("Q bias dropped", 8.9912, "missed, RED, 0.777, 0.035", weights=without("q_proj.bias")),
    Variation("K bias dropped", 10.2260, "missed, RED, 0.786, 0.035", weights=without("k_proj.bias")),
    Variation("V bias dropped", 13.8016, "RED, RED, 0.205, 0.000", weights=without("v_proj.bias")),
]
SHORT = [
    Variation("intact", 1.5821, ""),
    Variation(
        "RoPE in interleaved pairs", 3.6273, "missed, missed, 0.878, 0.426", planted=defect("rope_interleaved_pairs")
    ),
    Variation("RoPE missing", 7.2416, "missed, missed, 0.783, 0.109", planted=defect("rope_missing")),
    Variation("RoPE on Q head 0 only", 13.1276, "missed, RED, 0.694, 0.012", planted=rope_on_first_q_head_only),
    Variation("K position off by one", 14.6607, "missed, RED, 0.739, 0.027", planted=k_position_off_by_one),
    Variation("theta 1e4 for 1e6", 1.7428, "missed, missed, 0.987, 0.824", {"rope_theta": 1e4}),
    Variation("eps 1e-5 for 1e-6", 1.5832, "missed, missed, 1.000, 0.996", {"rms_norm_eps": 1e-5}),
    Variation("eps 1e-3", 1.7283, "missed, missed, 0.982, 0.855", {"rms_norm_eps": 1e-3}),
    Variation(
        "softmax scale 1/sqrt(hidden)",
        4.8821,
        "missed, missed, 0.845, 0.301",
        planted=scaled(lambda c: c.hidden_size**-0.5),
    ),
    Variation(
        "softmax scale +10%", 1.5865, "missed, missed, 0.999, 0.965", planted=scaled(lambda c: 1.1 * c.head_dim**-0.5)
    ),
    Variation("GQA heads tiled, not grouped", 12.0490, "missed, RED, 0.570, 0.008", planted=defect("gqa_heads_tiled")),
    Variation("no causal mask", 3.7131, "missed, missed, 0.792, 0.367", planted=defect("no_causal_mask")),
    Variation(
        "mask leaks one future token",
        2.8663,
        "missed, missed, 0.846, 0.402",
        planted=defect("mask_leaks_the_next_token"),
    ),
    Variation("mask excludes self", 8.3418, "missed, missed, 0.745, 0.074", planted=mask_excludes_self),
    Variation(
        "b_q of layer 13 dropped",
        1.6311,
        "missed, missed, 0.995, 0.910",
        weights=without("layers.13.self_attn.q_proj.bias"),
    ),
    Variation(
        "b_k of layer 13 dropped",
        1.6677,
        "missed, missed, 0.995, 0.898",
        weights=without("layers.13.self_attn.k_proj.bias"),
    ),
    Variation(
        "b_v of layer 13 dropped",
        1.5831,
        "missed, missed, 1.000, 0.988",
        weights=without("layers.13.self_attn.v_proj.bias"),
    ),
    Variation(
        "Q bias added twice",
        4.0378,
        "missed, missed, 0.815, 0.441",
        weights=changed(lambda bias: 2 * bias, "q_proj.bias"),
    ),
    Variation("GELU for SiLU", 3.0770, "missed, missed, 0.883, 0.496", planted=defect("gelu_for_silu")),
    Variation("final norm gain = 1", 8.4785, "RED, RED, 0.347, 0.164", weights=ones_as_final_gain),
    Variation(
        "layer 5 o_proj transposed",
        1.7022,
        "missed, missed, 0.993, 0.902",
        weights=changed(lambda w: w.T, "layers.5.self_attn.o_proj.weight"),
    ),
    Variation(
        "layer 5 down_proj zero",
        1.7013,
        "missed, missed, 0.985, 0.840",
        weights=without("layers.5.mlp.down_proj.weight"),
    ),
]


@dataclass(frozen=True)
class Result:
    loss: float
    logits_TV: Tensor
    one_token_V: Tensor  # the logits after token 100 alone


def run(checkpoint: Checkpoint, variation: Variation, tokens_T: Tensor) -> Result:
    config = replace(checkpoint.config, **variation.config)
    oracle = Oracle(config, variation.weights(checkpoint.tensors), torch.float32)
    with ExitStack() as stack:
        stack.enter_context(variation.planted(config))
        logits_TV = oracle.logits(Batch.of(tokens_T[None]))[0]
        one_token_V = oracle.logits(Batch.of(torch.tensor([[100]])))[0, 0]
    return Result(float(operators.cross_entropy(logits_TV[:-1], tokens_T[1:]).mean()), logits_TV, one_token_V)


def described(result: Result, intact: Result, vocab_size: int) -> str:
    """Single-token test, loss gate, mean cosine, argmax agreement."""
    same = result.one_token_V.argmax() == intact.one_token_V.argmax()
    single = "missed" if same or cosine(result.one_token_V, intact.one_token_V) > 0.95 else "RED"
    gate = "missed" if result.loss < 0.7 * math.log(vocab_size) else "RED"
    agreement = (result.logits_TV.argmax(-1) == intact.logits_TV.argmax(-1)).float().mean()
    return f"{single}, {gate}, {cosine(result.logits_TV, intact.logits_TV).mean():.3f}, {agreement:.3f}"


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1) / ((a * a).sum(-1) * (b * b).sum(-1)).sqrt()


def lines(checkpoint: Checkpoint) -> Iterator[str]:
    text = Path(textwrap.__file__).read_text("utf-8")
    yield "| (tokens) planted defect | loss, oracle | loss, recorded | difference | oracle | recorded |"
    yield "|---|---|---|---|---|---|"
    for characters, count, variations in ((6000, 512, LONG), (3000, 256, SHORT)):
        tokens_T = torch.tensor(checkpoint.tokenizer.encode(text[:characters]).ids[:count])
        intact = run(checkpoint, variations[0], tokens_T)
        for variation in variations:
            result = intact if variation is variations[0] else run(checkpoint, variation, tokens_T)
            seen = described(result, intact, checkpoint.config.vocab_size) if variation.recorded else ""
            difference = result.loss - variation.recorded_loss
            losses = f"{result.loss:.4f} | {variation.recorded_loss:.4f} | {difference:+.4f}"
            yield f"| ({len(tokens_T)}) {variation.name} | {losses} | {seen} | {variation.recorded} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    started = time.perf_counter()
    checkpoint = load_checkpoint(arguments.model)
    print(f"loaded in {time.perf_counter() - started:.1f} s", flush=True)
    with arguments.output.open("w", encoding="utf-8") as output:
        for line in lines(checkpoint):
            print(line, flush=True)
            output.write(f"{line}\n")
            output.flush()
    print(f"done after {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()

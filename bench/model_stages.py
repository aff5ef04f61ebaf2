"""Every operator of a whole model as a pair to compare: fed what the float64 oracle's own operators were fed.

Activations flow through the oracle layer by layer and are rounded to the candidate's dtype. Norms get every second row
scaled by a power of two to about the root of eps, where eps shows; all else is as the model has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda import ops
from aprender.transformer.cuda.build import EMBEDDING, HEAD, QKV, build_block
from aprender.transformer.cuda.rope_tables import rope_tables
from aprender.transformer.oracle import layer, operators, rope
from aprender.transformer.oracle.attention import Places, allowed_pairs
from aprender.transformer.oracle.parameters import Parameters
from bench.operator_stages import Pair
from falsifiers import cuda_operator_references, oracle_attention_stage, oracle_stages

IGNORED = -100


@dataclass(frozen=True)
class Reading:
    """A text and how it is read: tokens_BT, targets_BT (``IGNORED`` where there is none) and where tokens stand.

    ``positions`` is how many the candidates' rotary tables have, ``dtype`` what the candidates compute in. Layer i
    draws its cotangents from ``seed`` + 1 + i.
    """

    config: TransformerConfig
    tokens: Tensor
    targets: Tensor
    places: Places
    positions: int
    dtype: torch.dtype
    seed: int

    @property
    def device(self) -> torch.device:
        """Where tokens, and so everything, are."""
        return self.tokens.device

    def setting(self) -> layer.Setting:
        """The oracle's."""
        turns = (self.config.head_dim, self.config.rope_theta, self.config.rope_scaling)
        return layer.Setting(self.config, *rope.tables(self.places.positions_BT, *turns, torch.float64), 1)

    def small_rows(self, x: Tensor) -> Tensor:
        """x_..C with every second row of it scaled to about the root of eps, in the candidates' dtype."""
        rows = x.to(self.dtype).reshape(1, -1, x.shape[-1])
        return oracle_stages.small_rows_scaled(rows, self.config.rms_norm_eps**0.5).view_as(x)


def head_name(config: TransformerConfig) -> str:
    """The tensor that makes logits."""
    return EMBEDDING if config.tie_word_embeddings else HEAD


def embedding(r: Reading, weight_VD: Tensor) -> Pair:
    """The first operator."""
    reference = oracle_stages.embed("embed_tokens", r.tokens, weight_VD, r.seed, torch.float32)
    return Pair("embed_tokens", reference, ops.Embedding(weight_VD))


def traced(r: Reading, weights: Mapping[str, Tensor], index: int, x_BTD: Tensor) -> layer.Trace:
    """What the oracle computes in layer ``index``, in float64."""
    seen_BTS = allowed_pairs(r.places, r.places, r.config.windows[index])
    of_layer = Parameters(weights, torch.float64, r.device).layer(index)
    return layer.forward(of_layer, r.setting(), x_BTD, seen_BTS)


def of_layer(r: Reading, weights: Mapping[str, Tensor], index: int, trace: layer.Trace) -> Iterator[Pair]:
    """The operators of layer ``index`` in the order of a forward pass, each made when it is asked for."""
    made = _Layer(r, weights, index, trace)
    yield from made.attention_half()
    yield from made.feed_forward_half()


def after_layers(r: Reading, gain_D: Tensor, loss: ops.LinearCrossEntropy, x_BTD: Tensor) -> Iterator[Pair]:
    """The last norm and the mean loss, whose candidate is ``loss``."""
    eps, seed = r.config.rms_norm_eps, r.seed + 1 + r.config.num_hidden_layers
    norm = oracle_stages.rms_norm("norm", r.small_rows(x_BTD), gain_D, eps, seed, torch.float32)
    yield Pair("norm", norm, ops.RMSNorm(gain_D, eps))
    x = operators.rms_norm(x_BTD, gain_D.double(), eps).to(r.dtype)
    reference = cuda_operator_references.linear_cross_entropy("loss", x, r.targets, loss.weight, IGNORED, seed)
    yield Pair("loss", reference, loss)


class _Layer:
    """One layer's stages, its trace, and what their references have in common.

    References take parameters from the checkpoint, not from the block under test, which may have lost one.
    """

    def __init__(self, r: Reading, weights: Mapping[str, Tensor], index: int, trace: layer.Trace) -> None:
        self.r, self.weights, self.trace, self.prefix = r, weights, trace, f"model.layers.{index}."
        self.at, self.seed, self.eps = f"layers.{index}.", r.seed + 1 + index, r.config.rms_norm_eps
        self.window = r.config.windows[index]
        self.oracle = Parameters(weights, torch.float64, r.device).layer(index)
        self.block = build_block(r.config, weights, index, rope_tables(r.config, r.positions, r.device))

    def attention_half(self) -> Iterator[Pair]:
        """From the first norm to o_proj."""
        t, r = self.trace, self.r
        yield self._norm("input_layernorm", t.x_BTD)
        yield self._projections(t.normed_BTD)
        for kind, heads in (("q", t.projected_q_BTHC), ("k", t.projected_k_BTGC)):
            if r.config.qk_norm:
                yield self._norm(f"{kind}_norm", heads)
                heads = layer.norm(self.oracle, r.setting(), f"self_attn.{kind}_norm", heads)
            yield self._rope(f"{kind}_rope", heads)
        qkv = (t.q_BTHC.to(r.dtype), t.k_BSGC.to(r.dtype), t.v_BSGC.to(r.dtype))
        name, scale = f"{self.at}attention", r.config.head_dim**-0.5
        attend = oracle_attention_stage.attend(name, qkv, r.places, r.places, scale, self.window, self.seed)
        yield Pair("attention", attend, self.block.attention)
        yield self._linear("o_proj", t.mixed_BTHC.flatten(-2))

    def feed_forward_half(self) -> Iterator[Pair]:
        """From the norm that adds the residual to the last residual sum."""
        t, r = self.trace, self.r
        yield self._add_norm("post_attention_layernorm", t.x_BTD, t.middle_BTD - t.x_BTD)
        for name in ("gate_proj", "up_proj"):
            yield self._linear(name, t.mlp_normed_BTD)
        gate, up = t.gate_BTF.to(r.dtype), t.up_BTF.to(r.dtype)
        yield Pair("swiglu", oracle_stages.swiglu(f"{self.at}swiglu", gate, up, self.seed), self.block.swiglu)
        yield self._linear("down_proj", operators.swiglu(t.gate_BTF, t.up_BTF))
        x, branch = t.middle_BTD.to(r.dtype), (t.out_BTD - t.middle_BTD).to(r.dtype)
        yield Pair("residual", oracle_stages.add(f"{self.at}residual", x, branch, self.seed), self.block.residual)

    def _projections(self, x: Tensor) -> Pair:
        modules = [f"{self.prefix}self_attn.{name}" for name in QKV]
        weights = [self.weights[f"{module}.weight"] for module in modules]
        biases = [self.weights[f"{module}.bias"] for module in modules] if self.r.config.qkv_bias else None
        parameters = (x.to(self.r.dtype), weights, biases, self.seed, torch.float32)
        reference = cuda_operator_references.projections(f"{self.at}qkv_proj", *parameters)
        return Pair("qkv_proj", reference, self.block.qkv_proj)

    def _linear(self, name: str, x: Tensor) -> Pair:
        weight = self.weights[f"{self.prefix}{'self_attn' if name == 'o_proj' else 'mlp'}.{name}.weight"]
        parameters = (x.to(self.r.dtype), weight, None, self.seed, torch.float32)
        return Pair(name, oracle_stages.linear(f"{self.at}{name}", *parameters), getattr(self.block, name))

    def _norm(self, name: str, x: Tensor) -> Pair:
        gain = self.weights[f"{self.prefix}{'self_attn.' if name[0] in 'qk' else ''}{name}.weight"]
        parameters = (self.r.small_rows(x), gain, self.eps, self.seed, torch.float32)
        return Pair(name, oracle_stages.rms_norm(f"{self.at}{name}", *parameters), getattr(self.block, name))

    def _add_norm(self, name: str, x: Tensor, branch: Tensor) -> Pair:
        gain, small = self.weights[f"{self.prefix}{name}.weight"], self.r.small_rows
        reference = cuda_operator_references.add_rms_norm(
            f"{self.at}{name}", small(x), small(branch), gain, self.eps, self.seed
        )
        return Pair(name, reference, getattr(self.block, name))

    def _rope(self, name: str, heads: Tensor) -> Pair:
        config, x = self.r.config, heads.to(self.r.dtype)
        turns = (self.r.places.positions_BT, config.rope_theta, config.rope_scaling)
        return Pair(name, oracle_stages.rotate_at(f"{self.at}{name}", x, *turns, self.seed), getattr(self.block, name))

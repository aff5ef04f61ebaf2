"""Every operator of a Qwen2 model at its real shape, each with its reference stage and populated inputs of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aprender.parity.stages import ReferenceStage
from aprender.transformer.cuda import ops
from aprender.transformer.oracle import rope
from aprender.transformer.oracle.attention import Places
from falsifiers import cuda_operator_references, oracle_attention_stage, oracle_stages
from falsifiers.cuda_operator_cases import Leading

SEED = 20261124
EPS, THETA, IGNORED = 1e-6, 1e6, -100


@dataclass(frozen=True, slots=True)
class Shape:
    """Widths of a model whose embedding is tied, by the letters of ``cuda.ops``, and T tokens of one row."""

    layers: int
    D: int
    H: int
    G: int
    C: int
    F: int
    V: int
    T: int

    def layer_parameters(self) -> dict[str, tuple[int, ...]]:
        """The shapes of one layer's parameters, by name."""
        q, kv = self.H * self.C, self.G * self.C
        projections = {"q": q, "k": kv, "v": kv}
        return {
            **{f"{name}_proj.weight": (width, self.D) for name, width in projections.items()},
            **{f"{name}_proj.bias": (width,) for name, width in projections.items()},
            "o_proj.weight": (self.D, q),
            "gate_proj.weight": (self.F, self.D),
            "up_proj.weight": (self.F, self.D),
            "down_proj.weight": (self.D, self.F),
            "input_layernorm.weight": (self.D,),
            "post_attention_layernorm.weight": (self.D,),
        }

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all parameters, by name."""
        layers = {
            f"layers.{i}.{name}": shape for i in range(self.layers) for name, shape in self.layer_parameters().items()
        }
        return {"embed_tokens.weight": (self.V, self.D), **layers, "norm.weight": (self.D,)}


QWEN2_5_05B = Shape(layers=24, D=896, H=14, G=2, C=64, F=4864, V=151_936, T=512)
SMALL = Shape(layers=2, D=84, H=6, G=2, C=14, F=130, V=211, T=131)  # fewer rows show too little in bfloat16


class Draw:
    """Seeded draws, made on the device itself and rounded to one dtype."""

    def __init__(self, seed: int, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self.generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int, sd: float = 1.0, outlier: float = 0.0) -> Tensor:
        """Normal numbers; channel 3 is shifted by ``outlier``."""
        x = torch.randn(shape, generator=self.generator, device=self.device) * sd
        x[..., 3] += outlier
        return x.to(self.dtype)

    def gain(self, width: int) -> Tensor:
        """About 1 +- 0.3."""
        return (1 + 0.3 * torch.randn(width, generator=self.generator, device=self.device)).to(self.dtype)

    def weight(self, *shape: int, sd: float = 1.5) -> Tensor:
        """Of a projection, [N, K]: results have ``sd`` times the size of inputs."""
        return self.normal(*shape, sd=sd / shape[1] ** 0.5)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform in 0..high-1, int64."""
        return torch.randint(high, shape, generator=self.generator, device=self.device)

    def small_rows(self, *shape: int, outlier: float = 0.0) -> Tensor:
        """Normal numbers, every second row of about the root of eps."""
        return oracle_stages.small_rows_scaled(self.normal(*shape, outlier=outlier), EPS**0.5)


class Pair(NamedTuple):
    """One operator: what kind of stage it is, its reference and the candidate."""

    kind: str
    reference: ReferenceStage
    candidate: Any


def tables(shape: Shape, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """RoPE's float32 cosines and sines, [positions, R] each."""
    cos, sin = rope.tables(torch.arange(positions)[None], shape.C, THETA, None, torch.float32)
    return cos[0].to(device).contiguous(), sin[0].to(device).contiguous()


def pairs(shape: Shape, dtype: torch.dtype, device: torch.device) -> Iterator[Pair]:
    """All operators in the order of a forward pass, each drawn when it is asked for; only the tied table is kept."""
    d, (T, D) = Draw(SEED, dtype, device), (shape.T, shape.D)
    # Cotangents are drawn from a stage's seed: it must not be one that inputs come from.
    seed, table_VD = SEED - 1, d.weight(shape.V, D, sd=2.0)
    tokens = d.integers(shape.V, 1, T)
    embed = oracle_stages.embed("embed_tokens", tokens, table_VD, seed, torch.float32)
    yield Pair("embed_tokens", embed, ops.Embedding(table_VD))
    for layer in range(shape.layers):
        d = Draw(SEED + 1 + layer, dtype, device)
        yield from _attention_half(shape, d, layer)
        yield from _feed_forward_half(shape, d, layer)
    d = Draw(SEED + 500, dtype, device)  # however many layers there are
    x, gain = d.small_rows(1, T, D, outlier=8.0), d.gain(D)
    yield Pair("norm", oracle_stages.rms_norm("norm", x, gain, EPS, seed, torch.float32), ops.RMSNorm(gain, EPS))
    x, targets = d.normal(1, T, D, sd=1.5), d.integers(shape.V, 1, T)
    targets[:, 5:9] = IGNORED
    targets[0, 0] = shape.V - 1
    loss = cuda_operator_references.linear_cross_entropy("loss", x, targets, table_VD, IGNORED, seed)
    yield Pair("loss", loss, ops.LinearCrossEntropy(table_VD, IGNORED))


def _attention_half(shape: Shape, d: Draw, layer: int) -> Iterator[Pair]:
    name, seed = f"layers.{layer}.", SEED - 2 - layer
    T, D, H, G, C = shape.T, shape.D, shape.H, shape.G, shape.C
    x, gain = d.small_rows(1, T, D, outlier=8.0), d.gain(D)
    norm = oracle_stages.rms_norm(f"{name}input_layernorm", x, gain, EPS, seed, torch.float32)
    yield Pair("input_layernorm", norm, ops.RMSNorm(gain, EPS))
    x = d.normal(1, T, D, outlier=30.0)
    widths = (H * C, G * C, G * C)
    weights, biases = [d.weight(N, D) for N in widths], [d.normal(N, sd=0.5, outlier=50.0) for N in widths]
    reference = cuda_operator_references.projections(f"{name}qkv_proj", x, weights, biases, seed, torch.float32)
    yield Pair("qkv_proj", reference, ops.FusedLinear(torch.cat(weights), torch.cat(biases), widths))
    positions = torch.arange(T, device=d.device)[None]
    rotate = ops.Rope(*tables(shape, T, d.device))
    for kind, heads in (("q_rope", H), ("k_rope", G)):
        x = d.normal(1, T, heads, C)
        yield Pair(kind, oracle_stages.rotate_at(f"{name}{kind}", x, positions, THETA, seed=seed), rotate)
    # One channel shifts the scores of each query past 88, as biases of pretrained Qwen2 do.
    q, k = d.normal(1, T, H, C, sd=1.5, outlier=9.0), d.normal(1, T, G, C, sd=1.5, outlier=10 * C**0.5)
    places, scale = Places(positions, torch.zeros_like(positions)), C**-0.5
    qkv = (q, k, d.normal(1, T, G, C, sd=1.5))
    attend = oracle_attention_stage.attend(f"{name}attention", qkv, places, places, scale, None, seed)
    yield Pair("attention", attend, Leading(ops.Attention(scale), 5))
    yield _linear("o_proj", name, seed, d.normal(1, T, H * C), d.weight(D, H * C))


def _feed_forward_half(shape: Shape, d: Draw, layer: int) -> Iterator[Pair]:
    name, seed = f"layers.{layer}.", SEED - 2 - layer
    T, D, F = shape.T, shape.D, shape.F
    kind, gain = "post_attention_layernorm", d.gain(D)
    x, branch = d.small_rows(1, T, D, outlier=8.0), d.small_rows(1, T, D)
    add_norm = cuda_operator_references.add_rms_norm(f"{name}{kind}", x, branch, gain, EPS, seed)
    yield Pair(kind, add_norm, ops.AddRMSNorm(gain, EPS))
    x = d.normal(1, T, D, outlier=30.0)
    for kind in ("gate_proj", "up_proj"):
        yield _linear(kind, name, seed, x, d.weight(F, D))
    gate, up = d.normal(1, T, F, sd=2.0), d.normal(1, T, F, sd=1.5)
    yield Pair("swiglu", oracle_stages.swiglu(f"{name}swiglu", gate, up, seed), ops.SwiGLU())
    yield _linear("down_proj", name, seed, d.normal(1, T, F, outlier=30.0), d.weight(D, F))
    x, branch = d.normal(1, T, D, outlier=30.0), d.normal(1, T, D)
    yield Pair("residual", oracle_stages.add(f"{name}residual", x, branch, seed), ops.ResidualAdd())


def _linear(kind: str, name: str, seed: int, x: Tensor, weight_NK: Tensor) -> Pair:
    reference = oracle_stages.linear(f"{name}{kind}", x, weight_NK, None, seed, torch.float32)
    return Pair(kind, reference, ops.Linear(weight_NK, None))

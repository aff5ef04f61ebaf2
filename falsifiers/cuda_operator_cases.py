"""What every operator of the CUDA path is fed: populated, uneven inputs, with its reference stage and the operator.

Lengths are no multiples of a tile, biases have standard deviation 0.5 and gains 1 +- 0.3; some channels are outliers,
as in pretrained Qwen2 (biases of 50 that push scores past 88), some rows are small, where eps shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aprender.parity.stages import ReferenceStage
from aprender.transformer.cuda import ops
from aprender.transformer.oracle import rope
from aprender.transformer.oracle.attention import Places
from falsifiers import cuda_operator_references, oracle_attention_stage, oracle_stages

SEED = 20261124
EPS, THETA, IGNORED = 3e-4, 7e4, -100
POSITIONS = 701  # rows of the tables for rotation
WINDOW = 11


@dataclass(frozen=True)
class Case:
    """A stage with its inputs: the reference's, and the operator under contract, whose class is ``kind``."""

    reference: ReferenceStage
    stage: Any
    kind: str


@dataclass(frozen=True)
class Leading:
    """An operator that is called with its first ``count`` inputs only: attention without documents."""

    stage: Any
    count: int

    def __call__(self, *inputs: Tensor) -> Any:
        return self.stage(*inputs[: self.count])

    def forward(self, *inputs: Tensor) -> Any:
        return self.stage.forward(*inputs[: self.count])

    def backward(self, saved: Any, d_output: Any) -> Any:
        return self.stage.backward(saved, d_output)


class Draw:
    """Seeded draws on the CPU, so that every device sees the same numbers; rounded to one dtype."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.generator = torch.Generator().manual_seed(SEED)
        self.T = 29 if device.type == "cpu" else 307  # uneven to the tiles of the interpreter, and of a GPU
        self.rows = 131

    def normal(self, *shape: int, sd: float = 1.0, outlier: float = 0.0) -> Tensor:
        """Normal numbers; channel 3 is shifted by ``outlier``."""
        x = sd * torch.randn(shape, generator=self.generator)
        x[..., 3] += outlier
        return x.to(self.device, self.dtype)

    def gain(self, D: int) -> Tensor:
        return (1 + 0.3 * torch.randn(D, generator=self.generator)).to(self.device, self.dtype)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator).to(self.device)

    def places(self, positions: list[list[int]], documents: list[list[int]]) -> Places:
        return Places(torch.tensor(positions, device=self.device), torch.tensor(documents, device=self.device))


def cases(device: torch.device, dtype: torch.dtype) -> dict[str, Case]:
    """Every case by its stage's name, in the order of a forward pass."""
    d = Draw(device, dtype)
    made = [case for make in MAKERS for case in make(d)]
    return {case.reference.name: case for case in made}


def _embedding(d: Draw) -> list[Case]:
    weight, tokens = d.normal(97, 76), d.integers(0, 97, 2, d.T)  # many tokens are repeated
    reference = oracle_stages.embed("embed_tokens", tokens, weight, SEED, torch.float32)
    return [Case(reference, ops.Embedding(weight), "Embedding")]


def _linear(d: Draw) -> list[Case]:
    """Queries, keys and values of one input, in groups of three heads to one; and a square weight without a bias."""
    x, widths = d.normal(2, d.T, 76, outlier=30.0), (78, 26, 26)
    weights = [d.normal(N, 76, sd=1.5 / 76**0.5) for N in widths]
    biases = [d.normal(N, sd=0.5, outlier=50.0) for N in widths]
    fused = cuda_operator_references.projections("qkv_proj", x, weights, biases, SEED, torch.float32)
    stage = ops.FusedLinear(torch.cat(weights), torch.cat(biases), widths)
    square = d.normal(76, 76, sd=1.5 / 76**0.5)
    plain = oracle_stages.linear("o_proj", x, square, None, SEED, torch.float32)
    return [Case(fused, stage, "FusedLinear"), Case(plain, ops.Linear(square, None), "Linear")]


def _norms(d: Draw) -> list[Case]:
    x, branch = d.normal(2, d.rows, 76, outlier=8.0), d.normal(2, d.rows, 76)
    small = oracle_stages.small_rows_scaled(x, EPS**0.5)
    small_branch = oracle_stages.small_rows_scaled(branch, EPS**0.5)
    heads = oracle_stages.small_rows_scaled(d.normal(1, d.rows, 3, 18), EPS**0.5)
    gains = [d.gain(n) for n in (76, 76, 18)]
    plain = oracle_stages.rms_norm("input_layernorm", small, gains[0], EPS, SEED, torch.float32)
    fused = cuda_operator_references.add_rms_norm("add_norm", small, small_branch, gains[1], EPS, SEED)
    by_head = oracle_stages.rms_norm("k_norm", heads, gains[2], EPS, SEED, torch.float32)
    return [
        Case(plain, ops.RMSNorm(gains[0], EPS), "RMSNorm"),
        Case(fused, ops.AddRMSNorm(gains[1], EPS), "AddRMSNorm"),
        Case(by_head, ops.RMSNorm(gains[2], EPS), "RMSNorm"),
    ]


def _rope(d: Draw) -> list[Case]:
    """Positions from 0 on, and from 300 on: in bfloat16 whole numbers end at 256."""
    positions = torch.stack((torch.arange(d.T), torch.arange(300, 300 + d.T))).to(d.device)
    tables = rope.tables(torch.arange(POSITIONS)[None], 18, THETA, None, torch.float32)
    cos, sin = (table[0].to(d.device).contiguous() for table in tables)
    found = []
    for name, heads in (("rope_q", 14), ("rope_k", 2)):
        reference = oracle_stages.rotate_at(name, d.normal(2, d.T, heads, 18), positions, THETA, seed=SEED)
        found.append(Case(reference, ops.Rope(cos, sin), "Rope"))
    return found


def _heads(
    d: Draw, B: int, T: int, S: int, H: int, G: int, C: int, outliers: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v; with ``outliers`` in one channel of every q and k, as biases of pretrained models make them.

    They shift all scores of a query past 88, where e^score overflows; without them one more in a denominator shows.
    """
    q_outlier, k_outlier = (9.0, 40.0) if outliers else (0.0, 0.0)
    q, k = d.normal(B, T, H, C, sd=1.5, outlier=q_outlier), d.normal(B, S, G, C, sd=1.5, outlier=k_outlier)
    return q, k, d.normal(B, S, G, C, sd=1.5)


def _attention(d: Draw) -> list[Case]:
    """GQA 7:1 over one document; 3:1 with a window, packed documents and padding; and a step of a cached decode.

    Its last values are larger than those before, so that it shows which of them a query sees, however long the cache.
    """
    S = d.T + 16
    order = [list(range(d.T))]
    whole = d.places(order, [[0] * d.T])
    first = d.T // 3
    packed = d.places(
        [[*range(first), *range(d.T - first)], [*range(d.T - 4), 0, 0, 0, 0]],
        [[0] * first + [1] * (d.T - first), [0] * (d.T - 4) + [-1] * 4],
    )
    queries = d.places([[*range(S - 5, S)], [*range(S - 12, S - 7)]], [[0] * 5] * 2)
    cached = d.places([[*range(S)], [*range(S - 7), *[0] * 7]], [[0] * S, [0] * (S - 7) + [-1] * 7])
    decoded = _heads(d, 2, 5, S, 6, 2, 18)
    decoded[2][:, -13:] *= 8
    wanted = [
        ("attention", _heads(d, 1, d.T, d.T, 14, 2, 18, True), whole, whole, None),
        ("attention_packed", _heads(d, 2, d.T, d.T, 6, 2, 20), packed, packed, WINDOW),
        ("attention_decode", decoded, queries, cached, None),
    ]
    found = []
    for name, heads, q_places, k_places, window in wanted:
        scale = heads[0].shape[-1] ** -0.5
        reference = oracle_attention_stage.attend(name, heads, q_places, k_places, scale, window, SEED)
        stage: Any = ops.Attention(scale, window)
        found.append(Case(reference, Leading(stage, 5) if name == "attention" else stage, "Attention"))
    return found


def _rest(d: Draw) -> list[Case]:
    gate, up = d.normal(1, d.T, 130, sd=2.0), d.normal(1, d.T, 130, sd=1.5)
    x, branch = d.normal(2, d.T, 76, outlier=30.0), d.normal(2, d.T, 76)
    final, head = d.normal(2, d.T, 44, sd=1.5), d.normal(211, 44, sd=0.4)
    targets = d.integers(0, 211, 2, d.T)
    targets[:, 5:9] = IGNORED
    targets[0, 0] = 210  # the last row of the vocabulary
    loss = cuda_operator_references.linear_cross_entropy("loss", final, targets, head, IGNORED, SEED)
    # In several chunks of positions, the last of them partial.
    stage = ops.LinearCrossEntropy(head, IGNORED, logits_at_once=211 * 31)
    return [
        Case(oracle_stages.swiglu("swiglu", gate, up, SEED), ops.SwiGLU(), "SwiGLU"),
        Case(oracle_stages.add("residual", x, branch, SEED), ops.ResidualAdd(), "ResidualAdd"),
        Case(loss, stage, "LinearCrossEntropy"),
    ]


MAKERS: tuple[Callable[[Draw], list[Case]], ...] = (_embedding, _linear, _norms, _rope, _attention, _rest)

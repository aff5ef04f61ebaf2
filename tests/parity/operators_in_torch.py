"""Random inputs for every operator, and each operator in plain torch as an honest candidate."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from aprender.parity.stages import Parameters, ReferenceStage, Tensors
from aprender.transformer.oracle import rope
from aprender.transformer.oracle.attention import Places
from falsifiers import oracle_attention_stage, oracle_stages

ROWS = (1, 2, 3)
POSITIONS = (17, 61, 127, 128, 129, 257)  # primes, and both sides of a tile
WIDTHS = (48, 60, 77, 130)
HEADS = ((7, 1, 12), (6, 2, 18), (14, 2, 16), (9, 3, 32))  # query heads, key/value heads, head_dim
EPS = 3e-4


class Draw:
    """Seeded draws of shapes and of tensors: rich values, rounded to one dtype."""

    def __init__(self, seed: int, dtype: torch.dtype, device: str = "cpu", small: bool = False) -> None:
        self.seed, self.dtype, self.device = seed, dtype, device
        self.generator = torch.Generator().manual_seed(seed)
        self.B, self.T, self.D, self.F = (self.one_of(x) for x in (ROWS, POSITIONS, WIDTHS, WIDTHS))
        self.H, self.G, self.C = HEADS[int(torch.randint(len(HEADS), (), generator=self.generator))]

    def one_of(self, choices: tuple[int, ...]) -> int:
        return choices[int(torch.randint(len(choices), (), generator=self.generator))]

    def normal(self, *shape: int, sd: float = 1.0) -> Tensor:
        return (sd * torch.randn(shape, generator=self.generator)).to(self.device, self.dtype)

    def places(self) -> Places:
        positions = torch.arange(self.T, device=self.device).expand(self.B, -1).contiguous()
        return Places(positions, torch.zeros_like(positions))

    def tables(self) -> tuple[Tensor, Tensor]:
        positions = torch.arange(self.T).expand(self.B, -1)
        cos, sin = rope.tables(positions, self.C, 7e4, None, torch.float32)
        return cos.to(self.device), sin.to(self.device)


def linear(d: Draw) -> ReferenceStage:
    x = d.normal(d.B, d.T, d.D)
    return oracle_stages.linear("q_proj", x, d.normal(d.F, d.D, sd=1.5 / d.D**0.5), d.normal(d.F, sd=0.5), d.seed)


def linear_without_bias(d: Draw) -> ReferenceStage:
    x = d.normal(d.B, d.T, d.D)
    return oracle_stages.linear("o_proj", x, d.normal(d.F, d.D, sd=1.5 / d.D**0.5), None, d.seed)


def rms_norm(d: Draw) -> ReferenceStage:
    T = max(d.T, 127)  # in bfloat16 fewer rows say too little about eps, and the comparison says so
    x = oracle_stages.small_rows_scaled(d.normal(d.B, T, d.D), EPS**0.5)
    return oracle_stages.rms_norm("input_layernorm", x, 1 + d.normal(d.D, sd=0.3), EPS, d.seed)


def rotate(d: Draw) -> ReferenceStage:
    return oracle_stages.rotate("rope_q", d.normal(d.B, d.T, d.H, d.C), *d.tables(), seed=d.seed)


def attend(d: Draw) -> ReferenceStage:
    q, k, v = (d.normal(d.B, d.T, heads, d.C, sd=1.5) for heads in (d.H, d.G, d.G))
    return oracle_attention_stage.attend("attention", (q, k, v), d.places(), d.places(), d.C**-0.5, seed=d.seed)


def swiglu(d: Draw) -> ReferenceStage:
    return oracle_stages.swiglu("swiglu", d.normal(d.B, d.T, d.F, sd=1.5), d.normal(d.B, d.T, d.F, sd=1.5), d.seed)


def embed(d: Draw) -> ReferenceStage:
    tokens = torch.randint(211, (d.B, d.T), generator=d.generator).to(d.device)
    return oracle_stages.embed("embed_tokens", tokens, d.normal(211, d.D), d.seed)


def add(d: Draw) -> ReferenceStage:
    return oracle_stages.add("residual", d.normal(d.B, d.T, d.D), d.normal(d.B, d.T, d.D), d.seed)


def cross_entropy(d: Draw) -> ReferenceStage:
    targets = torch.randint(211, (d.B * d.T,), generator=d.generator).to(d.device)
    return oracle_stages.cross_entropy("loss", d.normal(d.B * d.T, 211, sd=3), targets, d.seed)


STAGES: dict[str, Callable[[Draw], ReferenceStage]] = {
    make.__name__: make
    for make in (linear, linear_without_bias, rms_norm, rotate, attend, swiglu, embed, add, cross_entropy)
}


def linear_whole(inputs: Tensors, p: Parameters) -> Tensor:
    """On a GPU in bfloat16 the bias apart: at odd widths cuBLAS adds it to a product that is rounded already."""
    x, weight = inputs[0], tensor(p["weight"])
    if "bias" not in p or x.dtype == torch.float32 or x.device.type == "cpu":
        return functional.linear(x, weight, tensor(p["bias"]) if "bias" in p else None)
    return (functional.linear(x.float(), weight.float()) + tensor(p["bias"]).float()).to(x.dtype)


def linear_permuted(inputs: Tensors, p: Parameters) -> Tensor:
    """The terms of every sum in another order."""
    x, weight = inputs[0].float(), tensor(p["weight"]).float()
    order = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(1)).to(x.device)
    y = x[..., order] @ weight[:, order].T
    return (y + tensor(p["bias"]).float() if "bias" in p else y).to(inputs[0].dtype)


def rms_norm_fused(inputs: Tensors, p: Parameters) -> Tensor:
    weight = tensor(p["weight"])
    x = inputs[0].float()
    return functional.rms_norm(x, weight.shape, weight.float(), float(p["eps"])).to(inputs[0].dtype)


def rms_norm_early(inputs: Tensors, p: Parameters) -> Tensor:
    """As Hugging Face's Qwen2: rounded before the gain."""
    x = inputs[0].float()
    n = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + float(p["eps"]))
    return n.to(inputs[0].dtype) * tensor(p["weight"])


def rotate_complex(inputs: Tensors, p: Parameters) -> Tensor:
    x, cos, sin = inputs
    a, b = x.float().chunk(2, -1)
    turned = torch.complex(a, b) * torch.complex(cos, sin)[:, :, None]
    return torch.cat((turned.real, turned.imag), -1).to(x.dtype)


def rotate_half(inputs: Tensors, p: Parameters) -> Tensor:
    x, cos, sin = inputs
    cos, sin = (torch.cat((table, table), -1)[:, :, None] for table in (cos, sin))
    up = x.float()  # once: autograd rounds the gradient at every cast
    a, b = up.chunk(2, -1)
    return torch.addcmul(up * cos, torch.cat((-b, a), -1), sin).to(x.dtype)


def attend_fused(inputs: Tensors, p: Parameters) -> Tensor:
    q, k, v, *places = inputs
    allowed = oracle_attention_stage.seen(places, None)
    dtype = q.dtype
    group = q.shape[2] // k.shape[2]
    k, v = (x.float().repeat_interleave(group, 2) for x in (k, v))  # in float32: gradients are summed here
    # torch's kernel for CPUs adds dK and dV up in bfloat16 from one block of queries to the next: not legal, and RED
    kernel = torch.float32 if q.device.type == "cpu" else dtype
    q, k, v = (x.transpose(1, 2).to(kernel) for x in (q, k, v))
    out = functional.scaled_dot_product_attention(q, k, v, allowed[:, None], scale=float(p["scale"]))
    return out.transpose(1, 2).to(dtype)


def attend_plain(inputs: Tensors, p: Parameters) -> Tensor:
    """Weights rounded before their product with v, everything else in float32."""
    q, k, v, *places = inputs
    allowed = oracle_attention_stage.seen(places, None)
    k, v = (x.float().repeat_interleave(q.shape[2] // k.shape[2], 2) for x in (k, v))
    scores = torch.einsum("bthc,bshc->bhts", q.float(), k) * float(p["scale"])
    weights = scores.masked_fill(~allowed[:, None], -math.inf).softmax(-1).to(q.dtype)
    return torch.einsum("bhts,bshc->bthc", weights.float(), v).to(q.dtype)


def swiglu_once(inputs: Tensors, p: Parameters) -> Tensor:
    return (functional.silu(inputs[0].float()) * inputs[1].float()).to(inputs[0].dtype)


def swiglu_early(inputs: Tensors, p: Parameters) -> Tensor:
    return functional.silu(inputs[0]) * inputs[1]


def embed_rows(inputs: Tensors, p: Parameters) -> Tensor:
    weight = tensor(p["weight"])
    return functional.embedding(inputs[0], weight.float()).to(weight.dtype)


def add_both(inputs: Tensors, p: Parameters) -> Tensor:
    return torch.add(*inputs)


def cross_entropy_fused(inputs: Tensors, p: Parameters) -> Tensor:
    return functional.cross_entropy(inputs[0].float(), inputs[1], reduction="none")


def cross_entropy_plain(inputs: Tensors, p: Parameters) -> Tensor:
    logits = inputs[0].float()
    return logits.logsumexp(-1) - logits.gather(-1, inputs[1][:, None])[:, 0]


HONEST: dict[str, tuple[Callable[[Tensors, Parameters], Tensor], ...]] = {
    "linear": (linear_whole, linear_permuted),
    "linear_without_bias": (linear_whole, linear_permuted),
    "rms_norm": (rms_norm_fused, rms_norm_early),
    "rotate": (rotate_complex, rotate_half),
    "attend": (attend_fused, attend_plain),
    "swiglu": (swiglu_once, swiglu_early),
    "embed": (embed_rows,),
    "add": (add_both,),
    "cross_entropy": (cross_entropy_fused, cross_entropy_plain),
}


def honest(operator: str, seed: int) -> Callable[[Tensors, Parameters], Tensor]:
    """One of the operator's honest implementations, in turn."""
    return HONEST[operator][seed % len(HONEST[operator])]


def tensor(value: Tensor | float) -> Tensor:
    assert isinstance(value, Tensor)
    return value

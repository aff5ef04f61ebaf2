"""Classic operator defects of defects.md, planted in plain torch candidates; each is named by its id there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from aprender.parity.stages import Parameters, ReferenceStage, Tensors
from aprender.transformer.oracle import rope
from falsifiers import oracle_attention_stage, oracle_stages
from tests.parity.operators_in_torch import (
    EPS,
    HONEST,
    Draw,
    add_both,
    attend_fused,
    embed_rows,
    linear_whole,
    rms_norm_fused,
    rotate_complex,
    swiglu_once,
    tensor,
)

Function = Callable[[Tensors, Parameters], Tensor]
B, T, D, H, G, C, F = 2, 307, 112, 14, 2, 18, 112
THETA = 7e4


class Planted(NamedTuple):
    """A defect: the stage that it is in, how the candidate computes it, and whether only float32 can show it."""

    stage: str
    function: Function
    float32_only: bool = False


def stages(dtype: torch.dtype) -> dict[str, tuple[str, ReferenceStage]]:
    """One layer's operators in forward order: (operator, stage) by name. Square projections, uneven lengths."""
    d = Draw(20261124, dtype)
    d.B, d.T, d.D, d.F, d.H, d.G, d.C = B, T, D, F, H, G, C
    x = d.normal(B, T, D)
    small = oracle_stages.small_rows_scaled(x, EPS**0.5)
    tokens = torch.randint(211, (B, T), generator=d.generator)
    q, k, v = (d.normal(B, T, heads, C, sd=1.5) for heads in (H, G, G))
    logits, targets = d.normal(B * T, 211, sd=3.0), torch.randint(211, (B * T,), generator=d.generator)
    weight = d.normal(D, D, sd=1.5 / D**0.5)
    head = d.normal(211, D, sd=1.5 / D**0.5)
    gate, up = d.normal(B, T, F, sd=1.5), d.normal(B, T, F, sd=1.5)
    made = [
        ("embed", oracle_stages.embed("embed_tokens", tokens, d.normal(211, D))),
        ("rms_norm", oracle_stages.rms_norm("input_layernorm", small, 1 + d.normal(D, sd=0.3), EPS)),
        ("linear", oracle_stages.linear("q_proj", x, weight, d.normal(D, sd=0.5))),
        ("rotate", oracle_stages.rotate("rope", q, *d.tables())),
        ("attend", oracle_attention_stage.attend("attention", (q, k, v), d.places(), d.places(), C**-0.5)),
        ("linear_without_bias", oracle_stages.linear("o_proj", x, d.normal(D, D, sd=1.5 / D**0.5))),
        ("add", oracle_stages.add("residual", x, d.normal(B, T, D))),
        ("swiglu", oracle_stages.swiglu("swiglu", gate, up)),
        ("linear_without_bias", oracle_stages.linear("lm_head", x, head)),
        ("cross_entropy", oracle_stages.cross_entropy("loss", logits, targets)),
    ]
    return {stage.name: (operator, stage) for operator, stage in made}


def honest(dtype: torch.dtype) -> dict[str, Function]:
    """The right function of every stage."""
    return {name: HONEST[operator][0] for name, (operator, _) in stages(dtype).items()}


def with_parameter(function: Function, name: str, change: Callable[[Tensor], Tensor]) -> Function:
    """The function with one parameter changed."""
    return lambda inputs, p: function(inputs, {**p, name: change(tensor(p[name]))})


def with_inputs(function: Function, change: Callable[..., Tensors]) -> Function:
    return lambda inputs, p: function(change(*inputs), p)


def then(function: Function, change: Callable[[Tensor], Tensor]) -> Function:
    return lambda inputs, p: change(function(inputs, p))


def in_dtype(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Rounded to ``dtype`` and back."""
    return lambda x: x.to(dtype).to(x.dtype)


def tail_zero(count: int, axis: int) -> Callable[[Tensor], Tensor]:
    def zero(x: Tensor) -> Tensor:
        keep = torch.arange(x.shape[axis]) < x.shape[axis] - count
        return x * (keep if axis in (-1, x.ndim - 1) else keep[:, None]).to(x.dtype)

    return zero


def split_k_in_bf16(inputs: Tensors, p: Parameters) -> Tensor:
    x, weight = inputs[0].float(), tensor(p["weight"]).float()
    halves = [(x[..., i::2] @ weight[:, i::2].T).bfloat16() for i in range(2)]
    return (halves[0] + halves[1]).to(inputs[0].dtype)


def rms_norm(
    eps: Callable[[float], float] = lambda eps: eps,
    *,
    gain: Callable[[Tensor], Tensor] = lambda gain: gain,
    centred: bool = False,
    divisor: int = 0,
    outside: bool = False,
    statistics: torch.dtype = torch.float32,
) -> Function:
    def function(inputs: Tensors, p: Parameters) -> Tensor:
        x, width = inputs[0].float(), inputs[0].shape[-1]
        if centred:
            x = x - x.mean(-1, keepdim=True)
        mean = ((x * x).sum(-1, keepdim=True) / (width - divisor)).to(statistics).float()
        e = eps(float(p["eps"]))
        root = mean.sqrt() + e if outside else (mean + e).sqrt()
        return (x / root * gain(tensor(p["weight"]).float())).to(inputs[0].dtype)

    return function


def rotate(
    angle: Callable[[Tensor, Tensor], Tensor] = lambda positions, frequency: positions[:, None] * frequency,
    theta: float = THETA,
    frequency: Callable[[Tensor], Tensor] = lambda frequency: frequency,
) -> Function:
    def function(inputs: Tensors, p: Parameters) -> Tensor:
        x = inputs[0]
        table = angle(torch.arange(x.shape[1]).double(), frequency(rope.frequencies(C, theta, None)))
        cos, sin = (t.float().expand(x.shape[0], -1, -1) for t in (table.cos(), table.sin()))
        return rotate_complex((x, cos, sin), p)

    return function


def interleaved(inputs: Tensors, p: Parameters) -> Tensor:
    x = torch.cat((inputs[0][..., 0::2], inputs[0][..., 1::2]), -1)
    a, b = rotate_complex((x, *inputs[1:]), p).chunk(2, -1)
    return torch.stack((a, b), -1).flatten(-2)


def attend(
    *,
    key_of: Callable[[Tensor], Tensor] | None = None,
    value_of: Callable[[Tensor], Tensor] | None = None,
    scale: Callable[[float], float] = lambda scale: scale,
    allowed: Callable[[Tensor], Tensor] = lambda allowed: allowed,
    softmax: Callable[[Tensor], Tensor] = lambda scores: scores.softmax(-1),
) -> Function:
    def function(inputs: Tensors, p: Parameters) -> Tensor:
        q, k, v, *places = inputs
        seen = oracle_attention_stage.seen(places, None)
        heads = torch.arange(H) // (H // G)
        k = k[:, :, heads if key_of is None else key_of(torch.arange(H))].float()
        v = v[:, :, heads if value_of is None else value_of(torch.arange(H))].float()
        scores = torch.einsum("bthc,bshc->bhts", q.float(), k) * scale(float(p["scale"]))
        weights = softmax(torch.where(allowed(seen)[:, None], scores, -1e30))
        return torch.einsum("bhts,bshc->bthc", weights, v).to(q.dtype)

    return function


def one_more(scores: Tensor) -> Tensor:
    largest = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - largest)
    return weights / (weights.sum(-1, keepdim=True) + 1)


def window(size: int) -> Callable[[Tensor], Tensor]:
    return lambda allowed: allowed & torch.ones(T, T, dtype=torch.bool).triu(1 - size)


def tail_of_keys(allowed: Tensor) -> Tensor:
    keep = torch.arange(T) < T // 16 * 16
    return allowed & (keep | torch.eye(T, dtype=torch.bool))


def gated(activation: Callable[[Tensor], Tensor]) -> Function:
    return lambda inputs, p: (activation(inputs[0].float()) * inputs[1].float()).to(inputs[0].dtype)


def split_interleaved(gate: Tensor, up: Tensor) -> Tensors:
    both = torch.cat((gate, up), -1)
    return both[..., 0::2], both[..., 1::2]


def _drop(x: Tensor) -> Tensor:
    return x * 0


BF16 = in_dtype(torch.bfloat16)

PLANTED: Mapping[str, Planted] = {
    "F1 bias dropped": Planted("q_proj", with_parameter(linear_whole, "bias", _drop)),
    "F3 bias rolled by 1": Planted("q_proj", with_parameter(linear_whole, "bias", lambda b: b.roll(1))),
    "F4 bias added twice": Planted("q_proj", with_parameter(linear_whole, "bias", lambda b: b * 2)),
    "F16 RoPE interleaved": Planted("rope", interleaved),
    "F17 RoPE theta 1e4": Planted("rope", rotate(theta=1e4)),
    "F18 RoPE theta halved": Planted("rope", rotate(theta=THETA / 2)),
    "F20 RoPE inv_freq in bf16": Planted("rope", rotate(frequency=BF16)),
    "F21 RoPE positions in bf16": Planted("rope", rotate(lambda t, f: BF16(t)[:, None] * f)),
    "F22 RoPE positions clamped": Planted("rope", rotate(lambda t, f: t.clamp_max(63)[:, None] * f)),
    "F24 RoPE sign of sin flipped": Planted("rope", rotate(lambda t, f: -t[:, None] * f)),
    "F25 RoPE missing": Planted("rope", lambda inputs, p: inputs[0].clone()),
    "F28 RoPE position off by one": Planted("rope", rotate(lambda t, f: (t[:, None] + 1) * f)),
    "F30 rotate-half sign wrong": Planted(
        "rope", with_inputs(rotate_complex, lambda x, cos, sin: (torch.cat((x[..., :9], -x[..., 9:]), -1), cos, sin))
    ),
    "RoPE tables in bf16": Planted("rope", with_inputs(rotate_complex, lambda x, cos, sin: (x, BF16(cos), BF16(sin)))),
    "F32 RoPE also on V": Planted(
        "attention",
        with_inputs(attend_fused, lambda q, k, v, *places: (q, k, rotate()((v,), {}), *places)),
    ),
    "F34 GQA map h % kv": Planted("attention", attend(key_of=lambda h: h % G, value_of=lambda h: h % G)),
    "F35 all heads use kv0": Planted("attention", attend(key_of=lambda h: h * 0, value_of=lambda h: h * 0)),
    "F37 V mapped h % kv, K right": Planted("attention", attend(value_of=lambda h: h % G)),
    "F38 last head uses kv0": Planted("attention", attend(key_of=lambda h: h // 7 * (h < H - 1))),
    "F40 scale 1/d": Planted("attention", attend(scale=lambda s: s * s)),
    "F41 scale 1/sqrt(hidden)": Planted("attention", attend(scale=lambda s: 1 / math.sqrt(H * C))),
    "F42 scale missing": Planted("attention", attend(scale=lambda s: 1.0)),
    "F44 scale x1.01": Planted("attention", attend(scale=lambda s: s * 1.01)),
    "F45 scale x1.001": Planted("attention", attend(scale=lambda s: s * 1.001)),
    "F46 scale rounded to bf16": Planted(
        "attention", attend(scale=lambda s: float(torch.tensor(s).bfloat16())), float32_only=True
    ),
    "F47 softmax in bf16": Planted("attention", attend(softmax=lambda s: s.bfloat16().softmax(-1).float())),
    "F48 softmax over queries": Planted("attention", attend(softmax=lambda s: s.softmax(-2))),
    "F50 softmax sums to 0.999": Planted("attention", attend(softmax=lambda s: s.softmax(-1) * 0.999)),
    "F51 +1 in the denominator": Planted("attention", attend(softmax=one_more)),
    "F52 causal mask missing": Planted("attention", attend(allowed=torch.ones_like)),
    "F53 mask strict": Planted("attention", attend(allowed=lambda a: a & ~torch.eye(T, dtype=torch.bool))),
    "F54 mask sees the next": Planted("attention", attend(allowed=lambda a: torch.ones_like(a).tril(1))),
    "F55 window 64": Planted("attention", attend(allowed=window(64))),
    "F56 window 16": Planted("attention", attend(allowed=window(16))),
    "F58 tail tile of keys dropped": Planted("attention", attend(allowed=tail_of_keys)),
    "F60 heads merged without transpose": Planted(
        "attention", then(attend_fused, lambda y: y.transpose(1, 2).reshape(y.shape))
    ),
    "F61 head and channel swapped": Planted(
        "attention", then(attend_fused, lambda y: y.transpose(2, 3).reshape(y.shape))
    ),
    "F64 eps x10": Planted("input_layernorm", rms_norm(lambda eps: eps * 10)),
    "F65 eps 1e-3": Planted("input_layernorm", rms_norm(lambda eps: 1e-3)),
    "F66 eps missing": Planted("input_layernorm", rms_norm(lambda eps: 0.0)),
    "F67 eps outside sqrt": Planted("input_layernorm", rms_norm(outside=True)),
    "F68 gain + 1": Planted("input_layernorm", rms_norm(gain=lambda g: g + 1)),
    "F69 gain ignored": Planted("input_layernorm", rms_norm(gain=lambda g: g * 0 + 1)),
    "F70 mean subtracted": Planted("input_layernorm", rms_norm(centred=True)),
    "F71 divisor n - 1": Planted("input_layernorm", rms_norm(divisor=1)),
    "F73 statistics in bf16": Planted("input_layernorm", rms_norm(statistics=torch.bfloat16)),
    "F77 norm skipped": Planted("input_layernorm", lambda inputs, p: inputs[0].clone()),
    "F78 gate and up swapped": Planted("swiglu", with_inputs(swiglu_once, lambda gate, up: (up, gate))),
    "F79 GELU": Planted("swiglu", gated(functional.gelu)),
    "F80 GELU-tanh": Planted("swiglu", gated(lambda z: functional.gelu(z, approximate="tanh"))),
    "F81 ReLU": Planted("swiglu", gated(functional.relu)),
    "F82 quick GELU": Planted("swiglu", gated(lambda z: z * torch.sigmoid(1.702 * z))),
    "F83 up dropped": Planted("swiglu", with_inputs(swiglu_once, lambda gate, up: (gate, up * 0 + 1))),
    "F85 gate_up split interleaved": Planted("swiglu", with_inputs(swiglu_once, split_interleaved)),
    "F87 residual from the other": Planted("residual", with_inputs(add_both, lambda x, y: (y, y))),
    "F91 residual in bf16": Planted("residual", then(add_both, BF16), float32_only=True),
    "F92 branch x1.01": Planted("residual", with_inputs(add_both, lambda x, y: (x, y * 1.01))),
    "F93 branch dropped": Planted("residual", with_inputs(add_both, lambda x, y: (x, y * 0))),
    "F96 residual missing": Planted("residual", with_inputs(add_both, lambda x, y: (x * 0, y))),
    "F100 weight transposed": Planted("q_proj", with_parameter(linear_whole, "weight", lambda w: w.T)),
    "F102 o_proj transposed": Planted("o_proj", with_parameter(linear_whole, "weight", lambda w: w.T)),
    "F107 o_proj not loaded": Planted("o_proj", with_parameter(linear_whole, "weight", _drop)),
    "F110 K tail dropped": Planted("o_proj", with_parameter(linear_whole, "weight", tail_zero(8, 1))),
    "F111 N tail not written": Planted("o_proj", then(linear_whole, tail_zero(8, -1))),
    "F118 column 0 zero": Planted(
        "o_proj", with_parameter(linear_whole, "weight", lambda w: w * (torch.arange(D) > 0))
    ),
    "F119 weights in bf16": Planted("o_proj", with_parameter(linear_whole, "weight", BF16), float32_only=True),
    "F120 weights in fp8": Planted("o_proj", with_parameter(linear_whole, "weight", in_dtype(torch.float8_e4m3fn))),
    "F121 bf16 bits read as fp16": Planted(
        "o_proj",
        with_parameter(linear_whole, "weight", lambda w: w.detach().bfloat16().view(torch.float16).to(w.dtype) + w * 0),
    ),
    "F123 sign flipped": Planted("o_proj", with_parameter(linear_whole, "weight", torch.neg)),
    "F124 weights x1.01": Planted("o_proj", with_parameter(linear_whole, "weight", lambda w: w * 1.01)),
    "F125 split-K partials in bf16": Planted("o_proj", split_k_in_bf16),
    "F126 bias in bf16": Planted("q_proj", with_parameter(linear_whole, "bias", BF16), float32_only=True),
    "F129 last rows of the head zero": Planted("lm_head", with_parameter(linear_whole, "weight", tail_zero(16, 0))),
    "F131 head in bf16": Planted("lm_head", with_parameter(linear_whole, "weight", BF16), float32_only=True),
    "F132 logit softcap 30": Planted("lm_head", then(linear_whole, lambda y: torch.tanh(y / 30) * 30)),
    "F133 logits x1.1": Planted("lm_head", then(linear_whole, lambda y: y * 1.1)),
    "F134 logits rounded to bf16": Planted("lm_head", then(linear_whole, BF16), float32_only=True),
    "F135 token ids shifted": Planted("embed_tokens", with_inputs(embed_rows, lambda tokens: ((tokens + 1) % 211,))),
    "F136 embedding x sqrt(d)": Planted("embed_tokens", then(embed_rows, lambda x: x * D**0.5)),
    "F137 embedding in bf16": Planted("embed_tokens", with_parameter(embed_rows, "weight", BF16), float32_only=True),
    "eps x10, fused": Planted(
        "input_layernorm", lambda inputs, p: rms_norm_fused(inputs, {**p, "eps": float(p["eps"]) * 10})
    ),
}

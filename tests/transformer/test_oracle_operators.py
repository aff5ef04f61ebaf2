"""Every vector-Jacobian product of the oracle, against finite differences and against torch's autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from aprender.transformer.oracle import attention, operators, rope

Function = Callable[..., Tensor]


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X_BTK = drawn(2, 5, 7)
TOKENS_BT = torch.tensor([[3, 1, 3, 0, 3], [4, 3, 1, 4, 9]])  # 3 and 4 stand more than once in a row
TARGETS_T = torch.tensor([3, 0, 10, 3, 5])
COS_BTR, SIN_BTR = (1.3 * table for table in (drawn(2, 5, 3, seed=1).cos(), drawn(2, 5, 3, seed=1).sin()))
# Six query heads over two key heads; the last query of the second row is at padding and sees nothing.
ALLOWED_BTS = torch.tril(torch.ones(5, 5, dtype=torch.bool)).repeat(2, 1, 1)
ALLOWED_BTS[1, 4] = False

# name: (function of the differentiable arguments, its VJP as the oracle has it, those arguments)
OPERATORS: dict[str, tuple[Function, Callable[..., Any], list[Tensor]]] = {
    "embed": (
        lambda weight_VD: operators.embed(weight_VD, TOKENS_BT),
        lambda weight_VD, dy: operators.embed_vjp(TOKENS_BT, dy, len(weight_VD)),
        [drawn(11, 6)],
    ),
    "linear": (
        lambda x, weight, bias: operators.linear(x, weight, bias, k_splits=3),
        lambda x, weight, bias, dy: operators.linear_vjp(x, weight, dy),
        [X_BTK, drawn(4, 7, seed=2), drawn(4, seed=3)],
    ),
    "rms_norm": (
        lambda x, gain: operators.rms_norm(x, gain, 0.3),
        lambda x, gain, dy: operators.rms_norm_vjp(x, gain, 0.3, dy),
        [X_BTK, drawn(7, seed=4)],
    ),
    "softmax": (
        operators.softmax,
        lambda scores, dy: operators.softmax_vjp(operators.softmax(scores), dy),
        [drawn(3, 5, 9, scale=3)],
    ),
    "swiglu": (operators.swiglu, operators.swiglu_vjp, [drawn(2, 5, 6, scale=3), drawn(2, 5, 6, seed=5)]),
    "cross_entropy": (
        lambda logits: operators.cross_entropy(logits, TARGETS_T),
        lambda logits, dy: operators.cross_entropy_vjp(logits, TARGETS_T, dy),
        [drawn(5, 11, scale=3)],
    ),
    "rotate": (
        lambda x: rope.rotate(x, COS_BTR, SIN_BTR),
        lambda x, dy: rope.rotate_vjp(dy, COS_BTR, SIN_BTR),
        [drawn(2, 5, 4, 6)],
    ),
    "attention": (
        lambda q, k, v: attention.attention(q, k, v, ALLOWED_BTS, 0.7),
        lambda q, k, v, dy: attention.attention_vjp(q, k, v, ALLOWED_BTS, 0.7, dy),
        [drawn(2, 5, 6, 4), drawn(2, 5, 2, 4, seed=6), drawn(2, 5, 2, 4, seed=7)],
    ),
}


def products(name: str) -> tuple[Function, list[Tensor], Tensor, tuple[Tensor, ...]]:
    """The function, its arguments, a dy, and the VJP by each argument."""
    function, vjp, arguments = OPERATORS[name]
    dy = drawn(*function(*arguments).shape, seed=8)
    gradients = vjp(*arguments, dy)
    return function, arguments, dy, gradients if isinstance(gradients, tuple) else (gradients,)


@pytest.mark.parametrize("name", OPERATORS)
def test_a_vjp_is_what_finite_differences_say(name: str) -> None:
    """Along five random directions of each argument, to 1e-8."""
    function, arguments, dy, gradients = products(name)
    for index, gradient in enumerate(gradients):
        for seed in range(5):
            step = drawn(*arguments[index].shape, seed=20 + seed, scale=1e-5)
            moved = [
                function(*(x + sign * step if i == index else x for i, x in enumerate(arguments))) for sign in (1, -1)
            ]
            slope = ((moved[0] - moved[1]) * dy).sum() / 2
            assert float(slope) == pytest.approx(float((gradient * step).sum()), rel=1e-7, abs=1e-12)
        assert gradient.shape == arguments[index].shape


@pytest.mark.parametrize("name", OPERATORS)
def test_a_vjp_is_what_autograd_says(name: str) -> None:
    """To rounding, for every element of every argument's gradient."""
    function, arguments, dy, gradients = products(name)
    leaves = [x.clone().requires_grad_() for x in arguments]
    expected = torch.autograd.grad(function(*leaves), leaves, dy)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_splits_of_the_sum_differ_by_rounding_only() -> None:
    """Summing in four parts is another float32 result, and the same one to within float32 rounding."""
    x, weight = drawn(3, 7, 130).float(), drawn(33, 130, seed=1).float()
    whole, split = operators.linear(x, weight), operators.linear(x, weight, k_splits=4)
    assert whole.dtype == split.dtype == torch.float32
    assert not torch.equal(whole, split)
    # The classic bound on a sum of K products, either way: K u sum |x w|.
    bound = 2 * 130 * 2.0**-24 * (x.abs().double() @ weight.abs().double().T)
    assert ((whole.double() - split.double()).abs() <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_scores_and_gates_neither_overflow_nor_vanish(dtype: torch.dtype) -> None:
    """Pretrained biases push scores past 88, where float32's exponential ends: no NaN, and the right weights."""
    scores = torch.tensor([[1e4, 1e4 - 1, -1e4], [-1e4, -1e4, -math.inf]], dtype=dtype)
    e = math.exp(-1)
    expected = torch.tensor([[1 / (1 + e), e / (1 + e), 0], [0.5, 0.5, 0]], dtype=dtype)
    torch.testing.assert_close(operators.softmax(scores), expected)
    gate, up = torch.tensor([-1e4, 1e4, 2.0], dtype=dtype), torch.tensor([3.0, 5.0, 7.0], dtype=dtype)
    expected = torch.tensor([0, 5e4, 2 / (1 + math.exp(-2)) * 7], dtype=dtype)
    torch.testing.assert_close(operators.swiglu(gate, up), expected)
    loss_T = operators.cross_entropy(torch.tensor([[1e4, 0.0, 1e4]], dtype=dtype), torch.tensor([0]))
    # A logit of 1e4 is subtracted from one: what is left carries its rounding.
    assert abs(float(loss_T) - math.log(2)) <= 1e4 * torch.finfo(dtype).eps


def test_a_query_that_sees_nothing_attends_to_nothing() -> None:
    """Padding gets zeros, and gives no gradient: not NaN, which would spread."""
    q, k, v = OPERATORS["attention"][2]
    out_BTHC = attention.attention(q, k, v, ALLOWED_BTS, 0.7)
    assert (out_BTHC[1, 4] == 0).all()
    assert out_BTHC.isfinite().all()
    dq, _, _ = attention.attention_vjp(q, k, v, ALLOWED_BTS, 0.7, torch.ones_like(out_BTHC))
    assert (dq[1, 4] == 0).all()


def test_values_of_one_key_head_reach_its_own_query_heads_only() -> None:
    """Query head h reads key head h // 3: taking one key head's values away silences exactly three heads."""
    q, k, v = OPERATORS["attention"][2]
    kept = torch.tensor([1.0, 0.0], dtype=torch.float64)[:, None]
    silent = attention.attention(q, k, v * kept, ALLOWED_BTS, 0.7)[0]
    assert (silent[:, 3:] == 0).all()
    assert torch.equal(silent[:, :3], attention.attention(q, k, v, ALLOWED_BTS, 0.7)[0, :, :3])

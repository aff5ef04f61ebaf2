"""RMSNorm, QK-norm and the fused residual addition against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops import AddRMSNorm, ResidualAdd, RMSNorm
from tests.transformer.cuda_ops.legal import (
    Arithmetic,
    assert_legal,
    backpropagate,
    doubles,
    grad,
    legal_results,
    normal,
)

EPS = 3e-3
SHAPES = [(2, 7, 40), (1, 17, 64), (3, 3, 65), (2, 5, 7, 12), (6, 1, 33), (19, 2)]


def norm(x: Tensor, gain: Tensor) -> Tensor:
    return gain * x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def legal_norm(a: Arithmetic, x: Tensor, gain: Tensor) -> Tensor:
    mean = a.sum(x * x, keepdim=True) / x.shape[-1]
    root = (mean + EPS).sqrt()
    return a.store(x / root * gain if a.splits == 1 else x * (1 / root) * gain)


def legal_d_x(a: Arithmetic, d_y: Tensor, x: Tensor, gain: Tensor, beside: Tensor | float = 0.0) -> Tensor:
    r = 1 / (a.sum(x * x, keepdim=True) / x.shape[-1] + EPS).sqrt()
    g = d_y * gain
    through_r = a.sum(g * (x * r), keepdim=True) / x.shape[-1]
    return a.store(r * (g - x * r * through_r) + beside)


def legal_d_gain(a: Arithmetic, d_y: Tensor, x: Tensor) -> Tensor:
    r = 1 / (a.sum(x * x, keepdim=True) / x.shape[-1] + EPS).sqrt()
    return a.sum((d_y * (x * r)).reshape(-1, x.shape[-1]), axis=0)


def inputs(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    x = normal(1, *shape, dtype=dtype, device=device)
    x[0] *= 0.02  # rows as small as eps: without them no test sees eps
    gain = 1 + normal(2, shape[-1], dtype=dtype, device=device, std=0.3)
    return x, gain, normal(3, *shape, dtype=dtype, device=device)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_norm(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    x, gain, d_y = inputs(shape, dtype, device)
    stage = RMSNorm(gain, EPS)
    y, saved = stage.forward(x)
    (d_x,), parameters = stage.backward(saved, d_y)
    assert y.dtype == d_x.dtype == dtype
    assert parameters["weight"].dtype == torch.float32

    X, GAIN, D_Y = doubles(x, gain, d_y)
    exact = norm(X, GAIN)
    backpropagate(exact, D_Y)
    x, gain, d_y = x.float().cpu(), gain.float().cpu(), d_y.float().cpu()
    assert_legal("y", y, exact, legal_results(dtype, lambda a: legal_norm(a, x, gain)))
    assert_legal("d_x", d_x, grad(X), legal_results(dtype, lambda a: legal_d_x(a, d_y, x, gain)))
    assert_legal("d_gain", parameters["weight"], grad(GAIN), legal_results(dtype, lambda a: legal_d_gain(a, d_y, x)))


@pytest.mark.parametrize("stream", [torch.float32, None], ids=["float32-stream", "same-stream"])
def test_fused_with_the_residual_addition(stream: torch.dtype | None, dtype: torch.dtype, device: torch.device) -> None:
    """The fused stage returns the bits of the two, and its gradient is that of their composition."""
    x, gain, d_y = inputs((2, 7, 40), dtype, device)
    x = x.to(stream or dtype)
    branch, d_sum = (normal(seed, 2, 7, 40, dtype=dtype, device=device) for seed in (4, 5))
    d_sum = d_sum.to(x.dtype)
    stage = AddRMSNorm(gain, EPS)
    (total, y), saved = stage.forward(x, branch)
    (d_x, d_branch), parameters = stage.backward(saved, (d_sum, d_y))
    assert torch.equal(total, ResidualAdd()(x, branch))
    assert torch.equal(y, RMSNorm(gain, EPS)(total))
    assert (total.dtype, y.dtype, d_x.dtype, d_branch.dtype) == (x.dtype, dtype, x.dtype, dtype)
    assert torch.equal(d_branch, d_x.to(dtype))

    H, GAIN, D_SUM, D_Y = doubles(total, gain, d_sum, d_y)
    torch.autograd.backward([H * 1, norm(H, GAIN)], [D_SUM.detach(), D_Y.detach()])
    h, d_sum, gain, d_y = total.float().cpu(), d_sum.float().cpu(), gain.float().cpu(), d_y.float().cpu()
    assert_legal("d_x", d_x, grad(H), legal_results(x.dtype, lambda a: legal_d_x(a, d_y, h, gain, d_sum)))
    assert_legal("d_gain", parameters["weight"], grad(GAIN), legal_results(dtype, lambda a: legal_d_gain(a, d_y, h)))


def test_residual_addition_rounds_once(dtype: torch.dtype, device: torch.device) -> None:
    x, branch = (normal(seed, 3, 7, 11, dtype=dtype, device=device) for seed in (1, 2))
    y, saved = ResidualAdd().forward(x, branch)
    assert torch.equal(y, (x.double() + branch.double()).to(dtype))
    stream = ResidualAdd()(x.float(), branch)
    assert stream.dtype == torch.float32
    assert torch.equal(stream, (x.double() + branch.double()).float())
    assert all(torch.equal(d, branch) for d in ResidualAdd().backward(saved, branch)[0])


def test_strided_rows(device: torch.device) -> None:
    """Heads as a part of a fused projection is normed without a copy being needed by the caller."""
    fused = normal(1, 2, 5, 3, 20, dtype=torch.float32, device=device)
    q = fused[..., 4:16]
    gain = normal(2, 12, dtype=torch.float32, device=device)
    y, saved = RMSNorm(gain, EPS).forward(q)
    assert torch.equal(y, RMSNorm(gain, EPS)(q.contiguous()))
    d_q = RMSNorm(gain, EPS).backward(saved, fused[..., 8:])[0][0]
    assert torch.equal(d_q, RMSNorm(gain, EPS).backward((q.contiguous(), saved[1]), fused[..., 8:].contiguous())[0][0])


def test_refused(device: torch.device) -> None:
    gain = torch.ones(8, device=device)
    for x, message in (
        (torch.ones(2, 9, device=device), "must be \\(8,\\)"),
        (torch.ones(2, 8, device=device, dtype=torch.float64), "float64"),
        (torch.ones(2, 8, device=device, dtype=torch.bfloat16), "may be torch.float32"),
        (torch.ones(0, 8, device=device), "nothing to compute"),
    ):
        with pytest.raises(AprenderError, match=message):
            RMSNorm(gain, EPS)(x)
    with pytest.raises(AprenderError, match="up to 16384"):
        RMSNorm(torch.ones(16385, device=device), EPS)(torch.ones(1, 16385, device=device))

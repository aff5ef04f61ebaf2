"""Rope and SwiGLU against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops import Rope, SwiGLU
from tests.transformer.cuda_ops.legal import (
    Arithmetic,
    assert_legal,
    backpropagate,
    doubles,
    grad,
    legal_results,
    normal,
)

THETA = 700.0


def tables(rows: int, R: int, device: torch.device) -> tuple[Tensor, Tensor]:
    angle = torch.outer(torch.arange(rows).double(), THETA ** -(torch.arange(R).double() / R))
    return angle.cos().float().to(device), angle.sin().float().to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


@pytest.mark.parametrize(("B", "T", "H", "C"), [(2, 13, 7, 12), (1, 9, 3, 64), (3, 1, 2, 10), (2, 5, 1, 256)])
def test_rope(B: int, T: int, H: int, C: int, dtype: torch.dtype, device: torch.device) -> None:
    cos, sin = tables(40, C // 2, device)
    x, d_y = (normal(seed, B, T, H, C, dtype=dtype, device=device) for seed in (1, 2))
    positions = torch.randint(0, 40, (B, T), generator=torch.Generator().manual_seed(3)).to(device)
    positions[0, 0] = 39
    stage = Rope(cos, sin)
    y, saved = stage.forward(x, positions)
    (d_x,), parameters = stage.backward(saved, d_y)
    assert y.dtype == d_x.dtype == dtype
    assert not parameters

    X, COS, SIN = doubles(x, cos, sin)
    at = positions.cpu()
    rotated = rotate(X, COS[at][:, :, None], SIN[at][:, :, None])
    backpropagate(rotated, d_y)
    x, d_y, cos, sin = (tensor.float().cpu() for tensor in (x, d_y, cos, sin))
    cos, sin = cos[at][:, :, None], sin[at][:, :, None]

    def legal(a: Arithmetic, x: Tensor, sin: Tensor) -> Tensor:
        return a.store(rotate(x, cos, sin))

    assert_legal("y", y, rotated, legal_results(dtype, lambda a: legal(a, x, sin)))
    assert_legal("d_x", d_x, grad(X), legal_results(dtype, lambda a: legal(a, d_y, -sin)))


def test_rope_positions_beyond_the_tables_give_nan_there_only(device: torch.device) -> None:
    stage = Rope(*tables(8, 3, device))
    x = normal(1, 1, 4, 2, 6, dtype=torch.float32, device=device)
    y = stage(x, torch.tensor([[7, 8, -1, 0]], device=device))
    assert torch.isnan(y).all(-1).all(-1).tolist() == [[False, True, True, False]]
    assert torch.isfinite(y[0, [0, 3]]).all()


def test_rope_takes_a_part_of_a_fused_projection(device: torch.device) -> None:
    fused = normal(1, 2, 5, 4, 18, dtype=torch.float32, device=device)
    stage, at = Rope(*tables(8, 3, device)), torch.arange(5, device=device).expand(2, 5)
    assert torch.equal(stage(fused[:, :, 1:3, 6:12], at), stage(fused[:, :, 1:3, 6:12].contiguous(), at))


def test_rope_refused(device: torch.device) -> None:
    cos, sin = tables(8, 3, device)
    x, at = torch.ones(1, 2, 1, 6, device=device), torch.zeros(1, 2, dtype=torch.int64, device=device)
    with pytest.raises(AprenderError, match="float32"):
        Rope(cos.bfloat16(), sin)
    with pytest.raises(AprenderError, match="6 channels, it has 8"):
        Rope(cos, sin)(torch.ones(1, 2, 1, 8, device=device), at)
    with pytest.raises(AprenderError, match="int32 or int64"):
        Rope(cos, sin)(x, at.float())
    with pytest.raises(AprenderError, match="positions has shape"):
        Rope(cos, sin)(x, at[:, :1])


@pytest.mark.parametrize("shape", [(2, 7, 88), (1, 1, 64), (13, 65), (3, 1)], ids=str)
def test_swiglu(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    gate, up, d_y = (normal(seed, *shape, dtype=dtype, device=device, std=2.0) for seed in (1, 2, 3))
    gate[0].flatten()[0] = -60.0  # where 1 - sigmoid and e^60 would cancel or overflow
    y, saved = SwiGLU().forward(gate, up)
    (d_gate, d_up), _ = SwiGLU().backward(saved, d_y)
    assert y.dtype == d_gate.dtype == d_up.dtype == dtype

    GATE, UP = doubles(gate, up)
    exact = GATE / (1 + (-GATE).exp()) * UP
    backpropagate(exact, d_y)
    g, u, d = gate.float().cpu(), up.float().cpu(), d_y.float().cpu()
    s = torch.sigmoid(g)

    def twice(x: Tensor) -> list[Tensor]:
        return legal_results(dtype, lambda a: a.store(x))

    assert_legal("y", y, exact, twice(g * s * u))
    assert_legal("d_gate", d_gate, grad(GATE), twice(d * u * (s * (1 + g * (1 - s)))))
    assert_legal("d_up", d_up, grad(UP), twice(d * (g * s)))


def test_swiglu_at_the_ends_of_float32(device: torch.device) -> None:
    gate = torch.tensor([[-1e30, -100.0, 0.0, 100.0, 1e30, float("nan")]], device=device)
    up = torch.ones_like(gate)
    y, saved = SwiGLU().forward(gate, up)
    (d_gate, _), _ = SwiGLU().backward(saved, up)
    assert y[0, :5].tolist() == pytest.approx([0, 0, 0, 100, 1e30], rel=1e-6, abs=1e-37)
    assert d_gate[0, :5].tolist() == pytest.approx([0, 0, 0.5, 1, 1], rel=1e-6, abs=1e-37)
    assert torch.isnan(y[0, 5])
    assert torch.isnan(d_gate[0, 5])


def test_swiglu_takes_halves_of_a_fused_projection(dtype: torch.dtype, device: torch.device) -> None:
    gate, up = normal(1, 3, 5, 22, dtype=dtype, device=device).chunk(2, -1)
    y, saved = SwiGLU().forward(gate, up)
    assert torch.equal(y, SwiGLU()(gate.contiguous(), up.contiguous()))
    gradients = SwiGLU().backward(saved, y)[0]
    dense = SwiGLU().backward((gate.contiguous(), up.contiguous()), y)[0]
    assert all(torch.equal(a, b) for a, b in zip(gradients, dense, strict=True))


@pytest.mark.cuda
def test_more_elements_than_int32_counts(device: torch.device) -> None:
    """2^31 + 2^22 elements of bfloat16: an int32 offset would wrap around."""
    if device.type == "cpu":
        pytest.skip("takes 13 GiB and a GPU")
    rows, F = 2**9 + 1, 2**22
    gate = torch.ones(rows, F, dtype=torch.bfloat16, device=device)
    gate[-1] = normal(1, F, dtype=torch.bfloat16, device=device)
    y = SwiGLU()(gate, gate)
    assert torch.equal(y[-1:], SwiGLU()(gate[-1:].clone(), gate[-1:].clone()))
    assert torch.equal(y[0], y[rows // 2])

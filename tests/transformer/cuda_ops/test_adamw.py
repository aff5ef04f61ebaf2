"""One optimizer step from a fixed (w, g, m, v, t) against float64, and clipping by the global norm."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops import AdamW, clip_scale, global_norm
from tests.transformer.cuda_ops.legal import assert_legal, normal

OPTIMIZER = AdamW(lr=0.03, beta1=0.8, beta2=0.97, eps=3e-3, weight_decay=0.2)


class State(NamedTuple):
    w: Tensor
    g: Tensor
    m: Tensor
    v: Tensor


def state(dtype: torch.dtype, device: torch.device) -> State:
    """Moments as after many steps, some v of the size of eps^2, so that eps shows."""
    w, g, m = (normal(seed, 13, 41, dtype=torch.float32, device=device) for seed in (1, 2, 3))
    v = normal(4, 13, 41, dtype=torch.float32, device=device).square()
    g[0], m[0], v[0] = 1e-3 * g[0], 1e-3 * m[0], 1e-6 * v[0]
    return State(w, g.to(dtype), 0.3 * m, v)


def step(w: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, decay_first: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The formula, in the tensors' arithmetic; the decay as a factor, or as a part of the change."""
    o = OPTIMIZER
    m = o.beta1 * m + (1 - o.beta1) * g
    v = o.beta2 * v + (1 - o.beta2) * g * g
    change = o.lr * (m / (1 - o.beta1**t)) / ((v / (1 - o.beta2**t)).sqrt() + o.eps)
    w = w * (1 - o.lr * o.weight_decay) - change if decay_first else w - (change + o.lr * o.weight_decay * w)
    return w, m, v


@pytest.mark.parametrize("clip", [None, 0.21], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("t", [1, 2, 1000])
def test_step(t: int, clip: float | None, dtype: torch.dtype, device: torch.device) -> None:
    w, g, m, v = state(dtype, device)
    before = State(*(x.cpu().clone() for x in (w, g, m, v)))
    copy = torch.full_like(w, float("nan"), dtype=torch.bfloat16)
    scale = None if clip is None else torch.tensor(clip, device=device)
    OPTIMIZER.update(w, g, m, v, t, clip=scale, copy=copy)
    assert torch.equal(copy, w.bfloat16())
    assert torch.equal(g.cpu(), before.g), "the gradient is the caller's"

    factor = 1.0 if clip is None else clip
    w64, g64, m64, v64 = (x.double() for x in before)
    exact = step(w64, g64 * torch.tensor(factor).double(), m64, v64, t, decay_first=False)
    gradient = before.g.float() * torch.tensor(factor)
    legal = [step(before.w, gradient, before.m, before.v, t, decay_first) for decay_first in (True, False)]
    for index, (name, got) in enumerate((("w", w), ("m", m), ("v", v))):
        assert_legal(name, got, exact[index], [results[index] for results in legal])


def test_a_step_is_torch_s(device: torch.device) -> None:
    w, g, m, v = state(torch.float32, device)
    o = OPTIMIZER
    parameter = torch.nn.Parameter(w.cpu().double())
    parameter.grad = g.cpu().double()
    theirs: torch.optim.AdamW = torch.optim.AdamW([parameter], o.lr, (o.beta1, o.beta2), o.eps, o.weight_decay)
    theirs.state[parameter] = {
        "step": torch.tensor(4.0),
        "exp_avg": m.cpu().double(),
        "exp_avg_sq": v.cpu().double(),
    }
    theirs.step()
    OPTIMIZER.update(w, g, m, v, t=5)
    assert torch.allclose(w.cpu().double(), parameter.detach(), rtol=3e-7, atol=3e-7)


def test_defaults_are_those_of_large_language_models() -> None:
    """Brown et al. 2020 (arXiv 2005.14165), appendix B: betas 0.9 and 0.95, eps 1e-8, weight decay 0.1."""
    assert AdamW(1e-3) == AdamW(1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)


def test_global_norm_in_float64(device: torch.device) -> None:
    """Squares of 1e-25 are 0 in float32, those of 1e25 inf; a bfloat16 gradient is one among the others."""
    gradients = [normal(seed, 7, 31, dtype=torch.float32, device=device) for seed in (1, 2)]
    gradients.append(normal(3, 129, dtype=torch.bfloat16, device=device))
    exact = torch.cat([g.double().cpu().flatten() for g in gradients]).norm()
    assert global_norm(gradients).dtype == torch.float64
    assert global_norm(gradients).item() == pytest.approx(exact.item(), rel=1e-14)
    for size in (1e-25, 1e25):
        scaled = torch.full((200,), size, device=device)
        assert global_norm([scaled]).item() == pytest.approx(scaled[0].double().item() * math.sqrt(200), rel=1e-12)


def test_clip_scale(device: torch.device) -> None:
    norm = torch.tensor(4.0, dtype=torch.float64, device=device)
    assert clip_scale(norm, 1.0).item() == 0.25
    assert clip_scale(norm, 5.0).item() == 1.0
    assert clip_scale(norm * 0, 5.0).item() == 1.0
    assert math.isnan(clip_scale(norm * float("nan"), 1.0).item()), "a NaN gradient must stay visible"
    assert clip_scale(norm, 1.0).dtype == torch.float32


def test_refused(device: torch.device) -> None:
    w, g, m, v = state(torch.float32, device)
    with pytest.raises(AprenderError, match="the first step is 1"):
        OPTIMIZER.update(w, g, m, v, t=0)
    with pytest.raises(AprenderError, match="m is torch\\.bfloat16"):
        OPTIMIZER.update(w, g, m.bfloat16(), v, t=1)
    with pytest.raises(AprenderError, match="float32 memory"):
        OPTIMIZER.update(w.bfloat16(), g.bfloat16(), m.bfloat16(), v.bfloat16(), t=1)
    with pytest.raises(AprenderError, match="v has shape"):
        OPTIMIZER.update(w, g, m, v[:5], t=1)
    with pytest.raises(AprenderError, match="dense"):
        OPTIMIZER.update(w.T, g.T, m.T, v.T, t=1)
    with pytest.raises(AprenderError, match="betas"):
        AdamW(lr=1e-3, beta1=1.0)
    with pytest.raises(AprenderError, match="negative"):
        AdamW(lr=-1e-3)
    with pytest.raises(AprenderError, match="no gradients at all"):
        global_norm([])
    with pytest.raises(AprenderError, match="must be positive"):
        clip_scale(torch.ones(()), 0.0)

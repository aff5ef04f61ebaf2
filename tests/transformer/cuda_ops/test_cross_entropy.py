"""LinearCrossEntropy against its formula: per token, mean and gradients, over chunks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops import LinearCrossEntropy
from tests.transformer.cuda_ops.legal import (
    Arithmetic,
    assert_legal,
    backpropagate,
    doubles,
    grad,
    legal_results,
    normal,
)

IGNORED = -7


def given(V: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and targets: the first and last token of the vocabulary occur, and ignored ones in odd places."""
    x, weight = (normal(seed, *shape, dtype=dtype, device=device) for seed, shape in ((1, (2, 17, 20)), (2, (V, 20))))
    targets = torch.randint(0, V, (2, 17), generator=torch.Generator().manual_seed(3)).to(device)
    targets[0, :3] = torch.tensor([0, V - 1, IGNORED], device=device)
    targets[1, 9:12] = IGNORED
    return x, weight, targets


def legal_losses(a: Arithmetic, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    z = a.matmul(x, weight.T)
    peak = z.amax(-1, keepdim=True)
    sums = a.sum((z - peak).exp())
    return (peak[..., 0] - z.gather(-1, targets.clamp(min=0)[..., None])[..., 0]) + sums.log()


def legal_d_logits(a: Arithmetic, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    z = a.matmul(x, weight.T)
    valid = targets != IGNORED
    p = torch.softmax(z, -1) - torch.nn.functional.one_hot(targets.clamp(min=0), z.shape[-1])
    return a.store(p * (valid[..., None] / valid.sum()))


@pytest.mark.parametrize("rows_at_once", [5, 34, 100])
@pytest.mark.parametrize("V", [131, 128, 3])
def test_loss_and_gradients(V: int, rows_at_once: int, dtype: torch.dtype, device: torch.device) -> None:
    x, weight, targets = given(V, dtype, device)
    stage = LinearCrossEntropy(weight, ignore_index=IGNORED, logits_at_once=rows_at_once * V)
    loss, saved = stage.forward(x, targets)
    (d_x,), parameters = stage.backward(saved, torch.tensor(0.37, device=device))
    losses = stage.token_losses(x, targets)
    assert (loss.dtype, losses.dtype, d_x.dtype) == (torch.float32, torch.float32, dtype)
    assert parameters["weight"].dtype == torch.float32
    assert dtype == torch.float32 or not torch.equal(saved[0], saved[0].to(dtype).float()), "d_x would be rounded twice"
    valid = (targets != IGNORED).cpu()
    assert losses.cpu()[~valid].tolist() == [0.0] * int((~valid).sum())
    mean = losses.cpu().double().sum() / valid.sum()
    assert loss.item() == pytest.approx(mean.item(), rel=2**-23)
    assert torch.equal(stage(x, targets), loss)

    X, W = doubles(x, weight)
    at = targets.cpu()
    z = X @ W.T
    exact = z.logsumexp(-1) - z.gather(-1, at.clamp(min=0)[..., None])[..., 0]
    backpropagate(exact[valid].mean(), torch.tensor(0.37))
    x, w = x.float().cpu(), weight.float().cpu()
    legal = [y[valid] for y in legal_results(torch.float32, lambda a: legal_losses(a, x, w, at))]
    assert_legal("losses", losses.cpu()[valid], exact[valid], legal)

    def legal_d_x(a: Arithmetic) -> Tensor:
        return a.store(a.matmul(legal_d_logits(a, x, w, at), w) * 0.37)

    def legal_d_weight(a: Arithmetic) -> Tensor:
        return a.matmul(legal_d_logits(a, x, w, at).flatten(0, 1).T, x.flatten(0, 1)) * 0.37

    assert_legal("d_x", d_x, grad(X), legal_results(dtype, legal_d_x))
    assert_legal("d_weight", parameters["weight"], grad(W), legal_results(dtype, legal_d_weight))
    assert not d_x.cpu()[~valid].any()


def test_chunks_do_not_change_a_loss(dtype: torch.dtype, device: torch.device) -> None:
    x, weight, targets = given(131, dtype, device)
    whole = LinearCrossEntropy(weight, IGNORED).token_losses(x, targets)
    for rows in (1, 4, 33):
        chunked = LinearCrossEntropy(weight, IGNORED, logits_at_once=rows * 131).token_losses(x, targets)
        assert (chunked - whole).abs().max() < 1e-5  # the library's products may be in another order


def test_no_valid_target(device: torch.device) -> None:
    x, weight, targets = given(31, torch.float32, device)
    stage = LinearCrossEntropy(weight, IGNORED)
    loss, saved = stage.forward(x, torch.full_like(targets, IGNORED))
    (d_x,), parameters = stage.backward(saved, torch.ones((), device=device))
    assert math.isnan(loss.item())
    assert not d_x.any()
    assert not parameters["weight"].any()


def test_a_target_outside_the_vocabulary_has_no_loss(device: torch.device) -> None:
    x, weight, targets = given(31, torch.float32, device)
    targets[0, 0], targets[1, 0] = 31, -2
    losses = LinearCrossEntropy(weight, IGNORED).token_losses(x, targets)
    assert torch.isnan(losses).nonzero().tolist() == [[0, 0], [1, 0]]


def test_uniform_and_extreme_logits(device: torch.device) -> None:
    x = torch.tensor([[0.0], [1.0], [-1.0]], device=device)
    weight = torch.zeros(131, 1, device=device)
    weight[17] = 3e4
    targets = torch.tensor([5, 17, 17], device=device)
    losses = LinearCrossEntropy(weight).token_losses(x, targets)
    assert losses.tolist() == pytest.approx([math.log(131), 0.0, 3e4 + math.log(130)], rel=1e-6)


def test_refused(device: torch.device) -> None:
    weight, x = torch.ones(5, 3, device=device), torch.ones(2, 3, device=device)
    with pytest.raises(AprenderError, match="is a token of the vocabulary"):
        LinearCrossEntropy(weight, ignore_index=4)
    with pytest.raises(AprenderError, match="targets has shape"):
        LinearCrossEntropy(weight)(x, torch.zeros(3, dtype=torch.int64, device=device))
    with pytest.raises(AprenderError, match="x has shape"):
        LinearCrossEntropy(weight)(x[:, :2], torch.zeros(2, dtype=torch.int64, device=device))
    with pytest.raises(AprenderError, match="int32 or int64"):
        LinearCrossEntropy(weight)(x, torch.zeros(2, device=device))

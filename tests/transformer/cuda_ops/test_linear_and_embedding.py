"""Linear and Embedding against their formulas."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops import Embedding, FusedLinear, Linear
from tests.transformer.cuda_ops.legal import (
    Arithmetic,
    assert_legal,
    backpropagate,
    doubles,
    grad,
    legal_results,
    normal,
)


@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize(("B", "T", "K", "N"), [(2, 13, 40, 29), (1, 1, 31, 64), (3, 5, 129, 7)])
def test_linear(B: int, T: int, K: int, N: int, with_bias: bool, dtype: torch.dtype, device: torch.device) -> None:
    x, d_y = (normal(seed, B, T, width, dtype=dtype, device=device) for seed, width in ((1, K), (2, N)))
    weight = normal(3, N, K, dtype=dtype, device=device, std=K**-0.5)
    bias = normal(4, N, dtype=dtype, device=device) if with_bias else None
    stage = Linear(weight, bias)
    y, saved = stage.forward(x)
    (d_x,), parameters = stage.backward(saved, d_y)
    assert y.dtype == d_x.dtype == dtype
    assert {name: gradient.dtype for name, gradient in parameters.items()} == dict.fromkeys(
        ["weight", "bias"] if with_bias else ["weight"], torch.float32
    )

    X, W, D_Y = doubles(x, weight, d_y)
    exact = X @ W.T
    if bias is not None:
        (BIAS,) = doubles(bias)
        exact = exact + BIAS
    backpropagate(exact, D_Y)
    x, w, d_y = x.float().cpu(), weight.float().cpu(), d_y.float().cpu()
    b = 0.0 if bias is None else bias.float().cpu()
    rows_x, rows_d = x.view(-1, K), d_y.view(-1, N)
    assert_legal("y", y, exact, legal_results(dtype, lambda a: a.store(a.matmul(x, w.T) + b)))
    assert_legal("d_x", d_x, grad(X), legal_results(dtype, lambda a: a.store(a.matmul(d_y, w))))
    assert_legal("d_weight", parameters["weight"], grad(W), legal_results(dtype, lambda a: a.matmul(rows_d.T, rows_x)))
    if bias is not None:
        assert_legal("d_bias", parameters["bias"], grad(BIAS), legal_results(dtype, lambda a: a.sum(rows_d, axis=0)))


def test_a_linear_stage_with_zero_weights_returns_its_bias(dtype: torch.dtype, device: torch.device) -> None:
    bias = normal(1, 13, dtype=dtype, device=device)
    stage = Linear(torch.zeros(13, 7, dtype=dtype, device=device), bias)
    assert torch.equal(stage(torch.ones(2, 3, 7, dtype=dtype, device=device)), bias.expand(2, 3, 13))


@pytest.mark.parametrize(("K", "N"), [(257, 77), (60, 130), (64, 48)])
def test_a_projection_with_a_bias_rounds_once(K: int, N: int, dtype: torch.dtype, device: torch.device) -> None:
    """Whole numbers and eighths, whose sums float32 holds: every bit is that of one rounding, at odd widths as well.

    cuBLAS adds a bias of its own, at widths that are no multiple of 8, to a product that it has rounded already.
    """
    draw = torch.Generator().manual_seed(K)
    x, weight = (torch.randint(-8, 9, (n, K), generator=draw).to(device, dtype) for n in (509, N))
    bias = (torch.randint(-1000, 1000, (N,), generator=draw) / 8).to(device, dtype)
    product = x.double() @ weight.double().T
    exact = product + bias.double()
    assert torch.equal(exact.float().double(), exact)
    assert torch.equal(Linear(weight, bias)(x), exact.to(dtype))
    if dtype == torch.bfloat16:
        assert not torch.equal((product.to(dtype).double() + bias.double()).to(dtype), exact.to(dtype)), "twice shows"


def test_linear_refused(device: torch.device) -> None:
    stage = Linear(torch.ones(4, 3, device=device), torch.ones(4, device=device))
    with pytest.raises(AprenderError, match="x has shape \\(2, 5\\), must be \\(2, 3\\)"):
        stage(torch.ones(2, 5, device=device))
    with pytest.raises(AprenderError, match="bfloat16, but weight is"):
        stage(torch.ones(2, 3, device=device, dtype=torch.bfloat16))
    with pytest.raises(AprenderError, match="bias has shape"):
        Linear(torch.ones(4, 3, device=device), torch.ones(3, device=device))(torch.ones(2, 3, device=device))


@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no-bias"])
def test_fused_projections(with_bias: bool, dtype: torch.dtype, device: torch.device) -> None:
    """Outputs are those of each projection by its own parameters; the input's gradient is one sum over all outputs."""
    widths, K = (29, 7, 13), 40
    x, weight = normal(1, 2, 13, K, dtype=dtype, device=device), normal(2, 49, K, dtype=dtype, device=device, std=0.2)
    bias = normal(3, 49, dtype=dtype, device=device) if with_bias else None
    d_outputs = tuple(normal(4 + i, 2, 13, N, dtype=dtype, device=device) for i, N in enumerate(widths))
    stage = FusedLinear(weight, bias, widths)
    outputs, saved = stage.forward(x)
    (d_x,), parameters = stage.backward(saved, d_outputs)
    assert [y.shape for y in outputs] == [(2, 13, N) for N in widths]
    assert {*parameters} == ({"weight", "bias"} if with_bias else {"weight"})

    first = 0
    for index, (y, d_y, N) in enumerate(zip(outputs, d_outputs, widths, strict=True)):
        rows = slice(first, first + N)
        alone = Linear(weight[rows].clone(), None if bias is None else bias[rows].clone())
        assert torch.equal(stage.part(index).weight, alone.weight)
        X, W = doubles(x, alone.weight)
        exact = X @ W.T if alone.bias is None else X @ W.T + doubles(alone.bias)[0]
        assert_legal(f"y {index}", y, exact.detach(), legal_results(dtype, partial(_projected, x, alone)))
        _, expected = alone.backward((x,), d_y)
        for name, gradient in expected.items():
            torch.testing.assert_close(parameters[name][rows], gradient)
        first += N
    d_y = torch.cat(d_outputs, -1).float().cpu()
    w = weight.float().cpu()
    assert_legal("d_x", d_x, d_y.double() @ w.double(), legal_results(dtype, lambda a: a.store(a.matmul(d_y, w))))


def _projected(x: Tensor, stage: Linear, a: Arithmetic) -> Tensor:
    b = 0.0 if stage.bias is None else stage.bias.float().cpu()
    return a.store(a.matmul(x.float().cpu(), stage.weight.float().cpu().T) + b)


def test_fused_projections_refused(device: torch.device) -> None:
    """Widths that are not the weight's, and a gradient of another width or dtype."""
    weight, x = torch.ones(6, 3, device=device), torch.ones(2, 3, device=device)
    with pytest.raises(AprenderError, match=r"weight has shape \(6, 3\), must be \(5, 3\)"):
        FusedLinear(weight, None, (4, 1))(x)
    stage = FusedLinear(weight, None, (4, 2))
    with pytest.raises(AprenderError, match=r"d_output_1 has shape \(2, 4\), must be \(2, 2\)"):
        stage.backward((x,), (torch.ones(2, 4, device=device), torch.ones(2, 4, device=device)))
    with pytest.raises(AprenderError, match=r"d_output_1 is torch\.bfloat16, but x is"):
        stage.backward((x,), (torch.ones(2, 4, device=device), torch.ones(2, 2, device=device).bfloat16()))


@pytest.mark.cuda
def test_cublas_in_another_precision_is_refused(device: torch.device) -> None:
    if device.type == "cpu":
        pytest.skip("cuBLAS needs a GPU")
    x = torch.ones(4, 4, device=device)
    torch.set_float32_matmul_precision("high")
    with pytest.raises(AprenderError, match="TF32"):
        Linear(x, None)(x)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = True
    with pytest.raises(AprenderError, match="partial sums"):
        Linear(x, None)(x)


@pytest.mark.parametrize(("V", "D"), [(23, 70), (31, 64), (5, 3)])
def test_embedding(V: int, D: int, dtype: torch.dtype, device: torch.device) -> None:
    """One token is frequent, more often than the kernel adds up at a time; some are absent."""
    weight = normal(1, V, D, dtype=dtype, device=device)
    tokens = torch.randint(0, V // 2, (2, 17), generator=torch.Generator().manual_seed(2)).to(device)
    tokens[:, ::2] = 1
    tokens[0, 0] = V - 1
    d_x = normal(3, 2, 17, D, dtype=dtype, device=device)
    x, saved = Embedding(weight).forward(tokens)
    inputs, parameters = Embedding(weight).backward(saved, d_x)
    assert torch.equal(x, weight[tokens])
    assert inputs == ()
    assert parameters["weight"].dtype == torch.float32

    exact = torch.zeros(V, D, dtype=torch.float64)
    exact.index_add_(0, tokens.flatten().cpu(), d_x.double().cpu().view(-1, D))
    d, at = d_x.float().cpu().view(-1, D), torch.nn.functional.one_hot(tokens.flatten().cpu(), V).float()
    assert_legal("d_weight", parameters["weight"], exact, legal_results(dtype, lambda a: a.matmul(at.T, d)))
    absent = [v for v in range(V) if v not in tokens]
    assert absent
    assert not parameters["weight"][absent].any()


def test_embedding_outside_the_vocabulary(device: torch.device) -> None:
    weight = torch.ones(5, 3, device=device)
    x, saved = Embedding(weight).forward(torch.tensor([[0, 5, -1, 4]], device=device))
    assert torch.isnan(x).all(-1).tolist() == [[False, True, True, False]]
    _, parameters = Embedding(weight).backward(saved, torch.ones_like(x))
    assert parameters["weight"][:, 0].tolist() == [1, 0, 0, 0, 1]


def test_embedding_refused(device: torch.device) -> None:
    with pytest.raises(AprenderError, match="int32 or int64"):
        Embedding(torch.ones(5, 3, device=device))(torch.zeros(1, 2, device=device))
    with pytest.raises(AprenderError, match="float16"):
        Embedding(torch.ones(5, 3, device=device).half())(torch.zeros(1, 2, device=device, dtype=torch.int64))


@pytest.mark.parametrize("step", [2, 3])
def test_a_table_that_is_not_dense_is_read_by_its_strides(step: int, device: torch.device) -> None:
    table_VD = torch.arange(7.0 * 5 * step, device=device).view(7, 5 * step)[:, ::step]
    tokens_BT = torch.tensor([[6, 0, 3]], device=device)
    assert torch.equal(Embedding(table_VD)(tokens_BT), table_VD[tokens_BT])

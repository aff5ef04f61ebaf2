"""Attention, forward and backward, against its formula; and the laws that need no reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops import Attention
from aprender.transformer.cuda.ops.blocks import attention_tile
from tests.transformer.cuda_ops.attention_reference import Case, exact_attention, inputs, legal_attention
from tests.transformer.cuda_ops.legal import arithmetics, assert_legal, backpropagate, doubles, grad, normal

CASES = [
    Case("7to1", H=7, G=1, C=12, tiles=1, T=1, B=2),
    Case("3to1-window", H=6, G=2, C=20, tiles=2, T=3, window=9),
    Case("window-wider-than-a-tile", H=2, G=2, C=10, tiles=3, T=-1, window=37),
    Case("documents-and-padding", H=3, G=1, C=64, tiles=2, T=2, documents=True, B=2),
    Case("documents-longer-than-a-tile", H=2, G=1, C=12, tiles=3, T=-1, documents=True, B=2),
    Case("documents-and-window", H=2, G=1, C=16, tiles=2, T=-3, documents=True, window=6, B=2),
    Case("whole-tiles", H=1, G=1, C=128, tiles=2, T=0),
    Case("decode", H=6, G=2, C=12, tiles=0, T=1, cached=36, B=2),
    Case("decode-several", H=7, G=1, C=20, tiles=0, T=5, cached=33, window=20, documents=True, B=2),
    Case("many-tiles", H=1, G=1, C=16, tiles=4, T=5),
    Case("widest", H=1, G=1, C=256, tiles=1, T=-1),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_attention(case: Case, dtype: torch.dtype, device: torch.device) -> None:
    given = inputs(case, dtype, device)
    scale = 1.3 * case.C**-0.5
    stage = Attention(scale, case.window)
    out, saved = stage.forward(*given.all)
    gradients, parameters = stage.backward(saved, given.d_out)
    assert {x.dtype for x in (out, *gradients)} == {dtype}
    assert not parameters

    seen = given.seen(case.window)
    leaves = doubles(given.q, given.k, given.v)
    exact = exact_attention(leaves[0], leaves[1], leaves[2], seen, scale)
    backpropagate(exact, given.d_out)
    q, k, v, d_out = (x.float().cpu() for x in (given.q, given.k, given.v, given.d_out))
    legal = [legal_attention(a, q, k, v, seen, scale, d_out) for a in arithmetics(dtype)]
    exact_results = (exact, *(grad(leaf) for leaf in leaves))
    for index, name in enumerate(("out", "d_q", "d_k", "d_v")):
        got = (out, *gradients)[index]
        assert_legal(name, got, exact_results[index], [results[index] for results in legal])


def small(device: torch.device, T: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v of 2:1 heads of 8 channels, and positions; by default over two tiles."""
    T = T or attention_tile(8, torch.float32, device).queries + 4
    q, k, v = (
        normal(seed, 2, T, heads, 8, dtype=torch.float32, device=device) for seed, heads in ((1, 2), (2, 1), (3, 1))
    )
    return q, k, v, torch.arange(T, device=device).repeat(2, 1)


def test_what_a_query_does_not_see_may_be_anything(dtype: torch.dtype, device: torch.device) -> None:
    """The future and all padding replaced by NaN and inf: the outputs before it do not change by a bit."""
    q, k, v, at = small(device)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    clean = Attention(0.4)(q, k, v, at, at)
    for cut, junk, also_keys in ((7, "nan", True), (at.shape[1] - 3, "inf", True), (9, "nan", False)):
        k_junk, v_junk = k.clone(), v.clone()
        v_junk[:, cut:] = float(junk)
        if also_keys:
            k_junk[:, cut:] = float(junk)
        out = Attention(0.4)(q, k_junk, v_junk, at, at)
        assert torch.equal(out[:, :cut], clean[:, :cut])
        assert not torch.isfinite(out[:, cut:]).any(), "what is seen must not be hidden either"


def test_padding_is_never_read_and_gets_zeros(dtype: torch.dtype, device: torch.device) -> None:
    q, k, v, at = (x.to(dtype) if x.is_floating_point() else x for x in small(device))
    d_out = normal(9, *q.shape, dtype=dtype, device=device)
    documents = torch.zeros_like(at)
    documents[0, -5:] = -1
    documents[1, :3] = -2
    padding = documents < 0
    stage = Attention(0.4)
    out, saved = stage.forward(q, k, v, at, at, documents, documents)
    gradients, _ = stage.backward(saved, d_out)
    for x in (out, *gradients):
        assert not x[padding].any()
        assert torch.isfinite(x).all()
    q, k, v, d_out = (x.clone() for x in (q, k, v, d_out))
    for x in (q, k, v, d_out):
        x[padding] = float("nan")
    junk_out, saved = stage.forward(q, k, v, at, at, documents, documents)
    assert torch.equal(junk_out, out)
    for a, b in zip(stage.backward(saved, d_out)[0], gradients, strict=True):
        assert torch.equal(a, b)


def passes(stage: Attention, given: list[Tensor], places: list[Tensor], d_out: Tensor) -> tuple[Tensor, ...]:
    """(out, d_q, d_k, d_v)."""
    out, saved = stage.forward(*given, *places)
    return (out, *stage.backward(saved, d_out)[0])


@pytest.mark.parametrize("first", [5, -3])
def test_a_document_of_nan_leaves_the_others_alone(first: int, dtype: torch.dtype, device: torch.device) -> None:
    """Documents share tiles of queries and of keys: 0 times NaN must not carry one into the other's gradients."""
    q, k, v, at = small(device)
    given = [x.to(dtype) for x in (q, k, v)]
    d_out = normal(9, *q.shape, dtype=dtype, device=device)
    documents = torch.ones_like(at)
    documents[:, :first] = 0
    places = [at, at, documents, documents]
    clean = passes(Attention(0.4), given, places, d_out)
    for poisoned in range(2):
        wild = documents == poisoned
        for which in ((0, 3), (1, 2)):
            tensors = [x.clone() for x in (*given, d_out)]
            for i in which:
                tensors[i][wild] = float("nan")
            found = passes(Attention(0.4), tensors[:3], places, tensors[3])
            for a, b in zip(found, clean, strict=True):
                assert torch.equal(a[~wild], b[~wild])
            assert any(x[wild].isnan().any() for x in found), "what is seen must not be hidden either"


@pytest.mark.parametrize("junk", ["nan", "inf"])
def test_gradients_of_queries_that_do_not_see_it(junk: str, dtype: torch.dtype, device: torch.device) -> None:
    """Later keys and values hold junk; queries that see them have no d_out, so nobody counted does."""
    q, k, v, at = small(device)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    for cut in (7, at.shape[1] - 3):
        d_out = normal(9, *q.shape, dtype=dtype, device=device)
        d_out[:, cut:] = 0
        clean = passes(Attention(0.4), [q, k, v], [at, at], d_out)
        k_junk, v_junk = k.clone(), v.clone()
        k_junk[:, cut:] = v_junk[:, cut:] = float(junk)
        found = passes(Attention(0.4), [q, k_junk, v_junk], [at, at], d_out)
        for a, b in zip(found[1:], clean[1:], strict=True):
            assert torch.equal(a[:, :cut], b[:, :cut])
            assert not a[:, cut:].any()


@pytest.mark.parametrize("which", range(4))
def test_nan_that_is_seen_shows_in_every_gradient_that_it_reaches(
    which: int, dtype: torch.dtype, device: torch.device
) -> None:
    """NaN in one channel of one q, k, v or d_out: the gradients of all that it meets, and of nothing else, are NaN."""
    q, k, v, at = small(device)
    d_out = normal(9, *q.shape, dtype=dtype, device=device)
    clean = passes(Attention(0.4), [x.to(dtype) for x in (q, k, v)], [at, at], d_out)
    for place in (0, 9, at.shape[1] - 1):
        tensors = [x.to(dtype, copy=True) for x in (q, k, v, d_out)]
        tensors[which][0, place, 0, 3] = float("nan")
        _, d_q, d_k, d_v = passes(Attention(0.4), tensors[:3], [at, at], tensors[3])
        is_query = which in (0, 3)
        queries = slice(place, place + 1) if is_query else slice(place, None)
        heads = slice(0, 1) if is_query else slice(None)
        reached = torch.zeros_like(d_q, dtype=torch.bool)
        reached[0, queries, heads] = True
        assert d_q[reached].isnan().all()
        assert torch.equal(d_q[~reached], clean[1][~reached])
        last = place + 1 if is_query else None  # a query that is NaN reaches what it sees; one that sees NaN, too
        reached = torch.zeros_like(d_k, dtype=torch.bool)
        reached[0, :last] = True
        for found, right in ((d_k, clean[2]), (d_v, clean[3])):
            assert found[reached].isnan().all()
            assert torch.equal(found[~reached], right[~reached])


@pytest.mark.parametrize("sign", [1, -1])
def test_an_infinite_gradient_is_not_taken_for_none(sign: int, dtype: torch.dtype, device: torch.device) -> None:
    """Whatever the sign that delta gets by it."""
    q, k, v, at = small(device, T=9)
    d_out = normal(9, *q.shape, dtype=dtype, device=device)
    d_out[0, 4, 0, 3] = sign * float("inf")
    _, *gradients = passes(Attention(0.4), [x.to(dtype) for x in (q, k, v)], [at, at], d_out)
    for x, heads in zip(gradients, (slice(0, 1), slice(None), slice(None)), strict=True):
        reached = x[0, 4:5, heads] if heads.stop else x[0, :5]
        assert not torch.isfinite(reached).any()
        assert torch.isfinite(x[0, 5:]).all()


def test_padded_rows_equal_unpadded_ones(device: torch.device) -> None:
    """Right padding, and a longer row beside it, do not change a bit of the shorter row."""
    q, k, v, at = small(device)
    n = at.shape[1] - 5
    documents = torch.zeros_like(at)
    documents[0, n:] = -1
    out, saved = Attention(0.4).forward(q, k, v, at, at, documents, documents)
    alone = [x[:1, :n].contiguous() for x in (q, k, v, at, at)]
    alone_out, alone_saved = Attention(0.4).forward(*alone)
    assert torch.equal(out[:1, :n], alone_out)
    d_out = normal(9, *q.shape, dtype=q.dtype, device=device)
    for padded, short in zip(
        Attention(0.4).backward(saved, d_out)[0],
        Attention(0.4).backward(alone_saved, d_out[:1, :n])[0],
        strict=True,
    ):
        assert torch.equal(padded[:1, :n], short)


def test_a_query_that_sees_nothing_gives_zeros(device: torch.device) -> None:
    q, k, v, at = small(device, T=9)
    stage = Attention(0.4)
    out, saved = stage.forward(q, k, v, at, at + 4)  # queries 0 to 3 come before every key
    gradients, _ = stage.backward(saved, torch.full_like(out, float("nan")).where(at[..., None, None] < 4, 1.0))
    assert not out[:, :4].any()
    assert out[:, 4:].any()
    assert not gradients[0][:, :4].any()
    assert all(torch.isfinite(x).all() for x in (out, *gradients))
    assert not gradients[1][:, 5:].any(), "keys that no query sees"


def test_cached_decode_equals_prefill(device: torch.device) -> None:
    q, k, v, at = small(device)
    whole = Attention(0.4, window=13)(q, k, v, at, at)
    for t in (0, 1, 11, at.shape[1] - 1):
        step = Attention(0.4, window=13)(q[:, t : t + 1], k, v, at[:, t : t + 1], at)
        assert torch.allclose(step[:, 0], whole[:, t], rtol=0, atol=1e-6)


def test_without_keys_it_is_a_running_mean_and_with_one_hot_values_the_weights(device: torch.device) -> None:
    q, k, v, at = small(device, T=7)
    mean = Attention(0.4)(q, torch.zeros_like(k), v, at, at)
    assert torch.allclose(mean[:, :, 0], v[:, :, 0].cumsum(1) / torch.arange(1, 8, device=device)[:, None], atol=1e-6)
    one_hot = torch.eye(7, 8, device=device).repeat(2, 1, 1)[:, :, None]
    weights = Attention(0.4)(q, k, one_hot, at, at)
    assert torch.allclose(weights.sum(-1), torch.ones(()).to(device), atol=1e-6)
    assert not weights[:, 2, :, 3:].any()


def test_scores_far_beyond_what_e_to_the_x_holds(dtype: torch.dtype, device: torch.device) -> None:
    """Real key biases push scores past 88: e^88 is inf in float32."""
    q, k, v, at = (x.to(dtype) if x.is_floating_point() else x for x in small(device, T=9))
    out = Attention(60.0)(q, k, v, at, at)
    seen = (at[:, :, None] >= at[:, None]).cpu()
    exact = exact_attention(q.double().cpu(), k.double().cpu(), v.double().cpu(), seen, 60.0)
    assert (out.double().cpu() - exact).abs().max() < (1e-3 if dtype == torch.float32 else 3e-2)


def test_strides_of_a_fused_projection(device: torch.device) -> None:
    _, _, _, at = small(device)
    fused = normal(1, *at.shape, 4, 8, dtype=torch.float32, device=device)
    q, k, v = fused[:, :, :2], fused[:, :, 2:3], fused[:, :, 3:]
    out, saved = Attention(0.4).forward(q, k, v, at, at)
    dense, dense_saved = Attention(0.4).forward(q.contiguous(), k.contiguous(), v.contiguous(), at, at)
    assert torch.equal(out, dense)
    d_out = normal(2, *at.shape, 4, 8, dtype=torch.float32, device=device)[:, :, 1:3]
    for a, b in zip(
        Attention(0.4).backward(saved, d_out)[0],
        Attention(0.4).backward(dense_saved, d_out.contiguous())[0],
        strict=True,
    ):
        assert torch.equal(a, b)


def test_refused(device: torch.device) -> None:
    q, k, v, at = small(device, T=3)
    attention = Attention(0.4)
    wide = torch.ones(1, 3, 1, 258, device=device)
    odd = torch.ones(1, 3, 1, 7, device=device)
    for arguments, message in (
        ((q.half(), k.half(), v.half(), at, at), "float16"),
        ((q, k.bfloat16(), v, at, at), "k is torch.bfloat16, but q is torch.float32"),
        ((wide, wide, wide, at[:1], at[:1]), "head_dim is 258"),
        ((odd, odd, odd, at[:1], at[:1]), "head_dim is 7"),
        ((q[:, :, :1].repeat(1, 1, 3, 1), k.repeat(1, 1, 2, 1), v.repeat(1, 1, 2, 1), at, at), "can't be grouped"),
        ((q, k, v, at[:, :2], at), "q_positions has shape"),
        ((q, k, v, at.float(), at), "int32 or int64"),
        ((q, k, v, at, at, at), "both or neither"),
        ((q.mT.contiguous().mT, k, v, at, at), "not dense"),
    ):
        with pytest.raises(AprenderError, match=message):
            attention(*arguments)
    with pytest.raises(AprenderError, match="window of 0"):
        Attention(0.4, window=0)

"""Each law holds for a right callable, is broken by the defect that it is for, and says when it could not have failed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from aprender.parity import attention_laws, laws
from aprender.transformer.oracle import rope

B, T, H, G, C = 2, 37, 6, 2, 8


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    group: Callable[[Tensor], Tensor] = lambda h: h // (H // G),
    diagonal: int = 0,
    scale: float = C**-0.5,
    factor: float = 1.0,
) -> Tensor:
    heads = group(torch.arange(H))
    seen = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(diagonal)
    scores = torch.einsum("bthc,bshc->bhts", q, k[:, :, heads]) * scale
    weights = scores.masked_fill(~seen, -math.inf).softmax(-1).nan_to_num() * factor
    return torch.einsum("bhts,bshc->bthc", weights, v[:, :, heads])


class Mixer:
    """A causal toy model over vectors: every position sees the mean of those up to it."""

    def __init__(self, *, leak: float = 0.0, multiply: bool = False) -> None:
        self.leak, self.multiply = leak, multiply

    def __call__(self, x_BTD: Tensor) -> Tensor:
        mask = torch.ones(x_BTD.shape[1], x_BTD.shape[1]).tril() + self.leak
        if self.multiply:
            return mask @ x_BTD  # 0 times NaN is NaN
        rows = [x_BTD[:, : t + 1].mean(1) for t in range(x_BTD.shape[1])]
        mixed = torch.stack(rows, 1)
        return mixed + self.leak * x_BTD.nan_to_num().mean(1, keepdim=True)


FUTURES = (normal(B, T - 12, 4, seed=9), torch.full((B, T - 12, 4), math.nan))


def test_causality_holds_for_a_causal_model_and_not_where_the_future_leaks() -> None:
    x = normal(B, T, 4)
    assert laws.causality(Mixer(), x, 11, FUTURES).holds
    assert not laws.causality(Mixer(leak=1e-3), x, 11, FUTURES).holds


def test_causality_sees_a_mask_that_multiplies_instead_of_selecting() -> None:
    assert not laws.causality(Mixer(multiply=True), normal(B, T, 4), 11, FUTURES).holds


def test_causality_is_vacuous_for_a_model_that_reads_nothing() -> None:
    record = laws.causality(lambda x: torch.ones_like(x), normal(B, T, 4), 11, FUTURES)
    assert not record.holds
    assert record.vacuous


def test_rows_that_see_each_other_break_batch_permutation() -> None:
    x = normal(3, T, 4)
    assert laws.batch_permutation(Mixer(), x).holds
    assert not laws.batch_permutation(lambda x: Mixer()(x) + x.cumsum(0), x).holds
    assert laws.batch_permutation(Mixer(), x[:1]).vacuous


def test_padding_that_is_seen_breaks_padded_equals_unpadded() -> None:
    x = normal(B, T, 4)
    places = torch.ones(B, T, dtype=torch.bool)
    places[1, 20:] = False
    model = Mixer()
    assert laws.padding(model, model, x, places, allowed=1e-6).holds
    assert not laws.padding(model, lambda x: model(x) + x.mean(1, keepdim=True), x, places, allowed=1e-6).holds
    assert laws.padding(model, model, x, torch.ones(B, T, dtype=torch.bool)).vacuous


@pytest.mark.parametrize(("offset", "holds"), [(0, True), (1, False)])
def test_cached_decode_is_prefill_unless_the_cache_is_off_by_one(offset: int, holds: bool) -> None:
    def decode(x: Tensor) -> Iterator[Tensor]:
        for t in range(x.shape[1]):
            yield x[:, max(0, offset) : t + 1].sum(1, keepdim=True)

    record = laws.cached_decode(lambda x: x.cumsum(1), decode, normal(B, T, 4), allowed=1e-5)
    assert record.holds is holds


def test_determinism_sees_one_run_in_twenty() -> None:
    calls = iter(range(100))
    x = normal(4)
    assert laws.determinism(lambda: x * 2).holds
    assert not laws.determinism(lambda: x * 2 + (1e-7 if next(calls) == 17 else 0)).holds


def test_poison_shows_memory_that_is_read_before_it_is_written() -> None:
    scratch = torch.zeros(8)

    @contextmanager
    def poison(value: float | None) -> Iterator[None]:
        scratch.copy_(-scratch if value is None else torch.full_like(scratch, value))
        yield

    def careless() -> Tensor:
        result = scratch + 1  # the sum was never set to zero
        scratch.fill_(2.0)
        return result

    assert laws.poisoned(lambda: torch.ones(8), poison).holds
    assert not laws.poisoned(careless, poison).holds


def test_zero_weights_leave_the_bias() -> None:
    x, bias = normal(B, T, 8), normal(5)
    assert laws.bias_only(lambda x: functional.linear(x, torch.zeros(5, 8), bias), x, bias).holds
    assert not laws.bias_only(lambda x: functional.linear(x, torch.zeros(5, 8)), x, bias).holds
    assert laws.bias_only(lambda x: functional.linear(x, torch.zeros(5, 8)), x, torch.zeros(5)).vacuous


@pytest.mark.parametrize(("eps", "holds"), [(1e-3, True), (1e-2, False), (0.0, False)])
def test_the_response_to_scale_isolates_eps(eps: float, holds: bool) -> None:
    x = normal(B, T, 16) * 0.05
    record = laws.scale_response(lambda x: functional.rms_norm(x, (16,), eps=eps), x, 1e-3, 4.0, allowed=1e-5)
    assert record.holds is holds


def test_the_response_to_scale_is_vacuous_where_eps_moves_nothing() -> None:
    record = laws.scale_response(lambda x: functional.rms_norm(x, (16,), eps=1e-9), normal(B, T, 16), 1e-9, 4.0, 1e-5)
    assert record.vacuous


def test_head_isolation_proves_the_grouped_query_mapping() -> None:
    q, k, v = normal(B, T, H, C), normal(B, T, G, C, seed=1), normal(B, T, G, C, seed=2)
    assert attention_laws.head_isolation(attend, q, k, v).holds
    for wrong in (lambda h: h % G, lambda h: h * 0, lambda h: (h // (H // G)) * (h < H - 1)):
        record = attention_laws.head_isolation(lambda *x, g=wrong: attend(*x, group=g), q, k, v)
        assert not record.holds
    assert attention_laws.head_isolation(lambda q, k, v: q, q, k[:, :, :1], v[:, :, :1]).vacuous


@pytest.mark.parametrize(
    ("change", "holds"), [({}, True), ({"diagonal": 1}, False), ({"diagonal": -1}, False), ({"factor": 0.999}, False)]
)
def test_no_keys_make_attention_a_running_mean(change: dict[str, float], holds: bool) -> None:
    q, v = normal(B, T, H, C), normal(B, T, G, C, seed=2)
    record = attention_laws.running_mean(lambda *x: attend(*x, **change), q, v)  # type: ignore[arg-type]
    assert record.holds is holds


@pytest.mark.parametrize(
    ("change", "holds"), [({}, True), ({"scale": 1.001 * C**-0.5}, False), ({"diagonal": 1}, False)]
)
def test_one_hot_values_show_the_probabilities(change: dict[str, float], holds: bool) -> None:
    q, k = normal(B, T, H, C), normal(B, T, G, C, seed=1)
    record = attention_laws.one_hot_values(lambda *x: attend(*x, **change), q, k, C**-0.5)  # type: ignore[arg-type]
    assert record.holds is holds


def test_shifting_all_positions_leaves_the_scores_of_rope() -> None:
    def rotate(x: Tensor, positions: Tensor) -> Tensor:
        return rope.rotate(x, *rope.tables(positions, C, 1e4, None, torch.float32))

    q, k, positions = normal(B, T, H, C), normal(B, T, H, C, seed=1), torch.arange(T).expand(B, -1)
    assert attention_laws.rope_shift(rotate, q, k, positions, 129).holds
    clamped = attention_laws.rope_shift(lambda x, p: rotate(x, p.clamp_max(63)), q, k, positions, 129)
    assert not clamped.holds
    assert attention_laws.rope_shift(lambda x, p: x, q, k, positions, 129).vacuous

"""The key/value cache: decoding equals reading at once, for rows of different length, whatever unfilled memory holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda import CudaTransformer
from aprender.transformer.cuda.cache import KVCache
from aprender.transformer.cuda.ops import poisoned
from aprender.transformer.oracle import Batch, Oracle
from falsifiers.oracle_cases import CASES

CASES = {name: replace(CASES[name], lengths=((71,), (58,))) for name in ("qwen2", "qwen3-yarn-windows")}
QWEN = CASES["qwen2"]
POISONS = (float("nan"), 1e30)


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest, device: torch.device) -> CudaTransformer:
    case = CASES[request.param]
    return CudaTransformer.from_checkpoint(case.config, case.weights(), device)


@pytest.fixture
def qwen(device: torch.device) -> CudaTransformer:
    return CudaTransformer.from_checkpoint(QWEN.config, QWEN.weights(), device)


def poison(cache: KVCache, value: float) -> None:
    """Fill every slot that no token is in."""
    for layer in cache.layers:
        for row, length in enumerate(cache.lengths_B.tolist()):
            layer.k[row, length:] = value
            layer.v[row, length:] = value


def stepwise(model: CudaTransformer, cache: KVCache, chunks: list[tuple[int, int]], value: float) -> list[Tensor]:
    """Read the first ``chunk`` tokens that each of two rows has left, chunk by chunk; logits_TV of each row."""
    documents, done, rows = QWEN.documents(), [0, 0], [[], []]  # type: ignore[var-annotated]
    for chunk in chunks:
        T = max(chunk)
        tokens_BT, documents_BT = torch.full((2, T), 3), torch.full((2, T), -1)
        for row, n in enumerate(chunk):
            # A row's tokens stand on the left in one and on the right in the other: padding may be anywhere.
            where = slice(0, n) if row else slice(T - n, T)
            tokens_BT[row, where] = documents[row][done[row] : done[row] + n]
            documents_BT[row, where] = 0
        poison(cache, value)
        logits_BTV = model.forward(tokens_BT, documents_BT=documents_BT, cache=cache)
        for row, n in enumerate(chunk):
            rows[row].append(logits_BTV[row, slice(0, n) if row else slice(T - n, T)])
            done[row] += n
        assert cache.lengths_B.tolist() == done
    return [torch.cat(parts) for parts in rows]


@pytest.mark.parametrize("value", POISONS)
def test_decoding_equals_reading_at_once(model: CudaTransformer, value: float) -> None:
    """A prefill of unequal rows, then token by token, then rows that pause: the logits of reading each row alone."""
    chunks = [(33, 20), (1, 1), (1, 1), (0, 1), (5, 0), (1, 1), (30, 34)]
    cache = model.new_cache(2, 71)
    rows = stepwise(model, cache, chunks, value)
    with pytest.raises(AprenderError, match=r"row 0 would hold 72 tokens, but the cache has 71 positions: make one"):
        model.forward(torch.zeros(2, 1, dtype=torch.int64), cache=cache)
    assert cache.lengths_B.tolist() == [71, 58], "what failed was not kept"
    for row_TV, document in zip(rows, QWEN.documents(), strict=True):
        assert_reads(model, document, row_TV)

    cache.reset()
    again = stepwise(model, cache, chunks, value)
    assert all(torch.equal(a, b) for a, b in zip(rows, again, strict=True)), "nothing is left of the first requests"


def assert_reads(model: CudaTransformer, document: Tensor, found_TV: Tensor, first: int = 0) -> None:
    """The logits from position ``first`` on round as reading the document at once does: in another order, no worse."""
    exact_TV = Oracle(model.config, weights_of(model)).logits(Batch.of(document[None]))[0]
    whole_TV = model.forward(document[None])[0].cpu()
    exact_tV = exact_TV[first : first + len(found_TV)]
    assert len(exact_tV) == len(found_TV) > 0
    error, honest = (found_TV.cpu() - exact_tV).norm() / exact_tV.norm(), (whole_TV - exact_TV).norm() / exact_TV.norm()
    assert float(error) <= 2 * float(honest), "decoding rounds as reading at once does"


def weights_of(model: CudaTransformer) -> dict[str, Tensor]:
    return next(case.weights() for case in CASES.values() if case.config == model.config)


def test_nothing_is_read_before_it_is_written(qwen: CudaTransformer) -> None:
    """All new memory of passes and of the cache filled with NaN, with a huge number: not a bit changes."""

    def run() -> list[Tensor]:
        return stepwise(qwen, qwen.new_cache(2, 40), [(17, 9), (1, 1), (1, 0)], 0.0)

    clean = run()
    for value in POISONS:
        with poisoned(value, guard=64):
            assert all(torch.equal(a, b) for a, b in zip(run(), clean, strict=True))


def test_without_documents_every_token_is_appended(qwen: CudaTransformer) -> None:
    """Positions go on by themselves, also from one that was given."""
    document = QWEN.documents()[0][:12]
    cache = qwen.new_cache(1, 12)
    first_TV = qwen.forward(document[None, :7], positions_BT=100 + torch.arange(7)[None], cache=cache)[0]
    rest_TV = qwen.forward(document[None, 7:], cache=cache)[0]
    assert_reads(qwen, document, torch.cat((first_TV, rest_TV)))  # from 0 on: RoPE sees differences only


def test_packed_documents_in_a_cache_do_not_see_each_other(qwen: CudaTransformer) -> None:
    """Two requests in one row: each goes on at its own position, and sees itself only."""
    first, second = (document[:10] for document in QWEN.documents())
    cache = qwen.new_cache(1, 20)
    documents_BT = torch.tensor([[4] * 8 + [6] * 9])
    qwen.forward(torch.cat((first[:8], second[:9]))[None], documents_BT=documents_BT, cache=cache)
    last_BT = torch.stack((second[9], first[8], first[9]))[None]
    logits_TV = qwen.forward(last_BT, documents_BT=torch.tensor([[6, 4, 4]]), cache=cache)[0]
    assert_reads(qwen, second, logits_TV[:1], first=9)
    assert_reads(qwen, first, logits_TV[1:], first=8)


def test_a_failed_pass_keeps_nothing(qwen: CudaTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that ends in an error leaves the cache as it was, and can be tried again."""
    document = QWEN.documents()[0][:9]
    cache = qwen.new_cache(1, 9)
    qwen.forward(document[None, :8], cache=cache)
    head: Callable[[Tensor], Tensor] = qwen.lm_head
    qwen.lm_head = lambda x_BTD: head(x_BTD).to("meta")
    with pytest.raises(AprenderError, match="on meta"):
        qwen.forward(document[None, 8:], cache=cache)
    qwen.lm_head = head
    assert cache.lengths_B.tolist() == [8]
    assert_reads(qwen, document, qwen.forward(document[None, 8:], cache=cache)[0], first=8)


def test_another_cache_and_other_rows_are_refused(qwen: CudaTransformer, device: torch.device) -> None:
    """A cache of no room, of another number of rows, of another model, in another dtype."""
    tokens_BT = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(AprenderError, match="both must be at least 1"):
        qwen.new_cache(2, 0)
    with pytest.raises(AprenderError, match="2 rows of tokens, but the cache has 3"):
        qwen.forward(tokens_BT, cache=qwen.new_cache(3, 5))
    other = CASES["qwen3-yarn-windows"]
    for foreign in (
        CudaTransformer.from_checkpoint(other.config, other.weights(), device),
        CudaTransformer.from_checkpoint(QWEN.config, QWEN.weights(), device, dtype=torch.bfloat16),
    ):
        with pytest.raises(AprenderError, match="made by another model"):
            qwen.forward(tokens_BT, cache=foreign.new_cache(2, 5))

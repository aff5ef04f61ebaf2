"""The oracle as a whole: gradients, laws that need no reference, caches, and what it refuses.

That it computes what transformers computes is shown by the falsifiers of oracle-reference-parity-v1.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from aprender.errors import AprenderError, FormatError
from aprender.transformer.oracle import PADDING, Batch, Oracle
from falsifiers.oracle_cases import CASES, Case

BIASED, WINDOWED = CASES["qwen2"], CASES["qwen3-yarn-windows"]
SHORT = ((29,), (14, 9))
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Where the oracle runs: on the CPU everywhere, and on the GPU where there is one."""
    name: str = request.param
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, torch finds none")
    return name


def oracle_of(case: Case, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Oracle:
    return Oracle(case.config, case.weights(), dtype, device=device)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.cpu() - theirs.cpu()).norm() / theirs.cpu().norm())


@pytest.mark.parametrize("name", CASES)
def test_the_gradients_of_the_whole_model_are_those_of_autograd(name: str, device: str) -> None:
    """Hand-written VJPs against autograd through the same forward functions, for every parameter of every family."""
    case = CASES[name]
    weights = {key: weight.double().to(device).requires_grad_() for key, weight in case.weights().items()}
    loss = Oracle(case.config, weights, device=device).loss(case.batch())
    loss.backward()  # type: ignore[no-untyped-call]
    ours = oracle_of(case, device=device).backward(case.batch())
    assert list(ours.gradients) == list(case.config.tensor_shapes())
    assert float(ours.loss) == pytest.approx(float(loss.detach()), rel=1e-14)
    for key, weight in weights.items():
        assert weight.grad is not None
        assert weight.grad.any()
        assert relative(ours.gradients[key], weight.grad) <= 1e-12, key


@pytest.mark.parametrize("name", ["qwen2-tied", "qwen3-yarn-windows"])
def test_the_gradients_of_the_whole_model_are_finite_differences(name: str) -> None:
    """Along a random direction of each parameter the loss moves as its gradient says."""
    case = replace(CASES[name], lengths=SHORT)
    weights = {key: weight.double() for key, weight in case.weights().items()}
    gradients = Oracle(case.config, weights).backward(case.batch()).gradients
    generator = torch.Generator().manual_seed(1)
    for key, weight in weights.items():
        step = 1e-6 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        up, down = (Oracle(case.config, weights | {key: weight + sign * step}).loss(case.batch()) for sign in (1, -1))
        slope = float(up - down) / 2
        # What central differences leave: the third derivative, and the rounding of a loss of about 5.
        assert slope == pytest.approx(float((gradients[key] * step).sum()), rel=1e-4, abs=1e-14), key


@pytest.mark.parametrize("case", [BIASED, WINDOWED], ids=lambda case: case.name)
def test_the_future_does_not_change_the_past(case: Case, device: str) -> None:
    """Other tokens from position 37 on leave every logit before it bit-equal, and change those after it."""
    oracle = oracle_of(case, device=device)
    tokens_BT = torch.stack([case.documents()[0][:61], case.documents()[1][:61]])
    other_BT = tokens_BT.clone()
    other_BT[:, 37:] = (other_BT[:, 37:] + 1) % case.config.vocab_size
    logits_BTV, other_BTV = oracle.logits(Batch.of(tokens_BT)), oracle.logits(Batch.of(other_BT))
    assert torch.equal(logits_BTV[:, :37], other_BTV[:, :37])
    assert ((logits_BTV - other_BTV)[:, 37:].abs().amax(-1) > 0.1).all()


@pytest.mark.parametrize("case", [BIASED, WINDOWED], ids=lambda case: case.name)
def test_documents_rows_and_padding_do_not_touch_each_other(case: Case) -> None:
    """Each document alone gets what it gets beside others, wherever it stands and whatever the padding holds."""
    oracle, batch = oracle_of(case), case.batch()
    alone = [oracle.logits(Batch.of(document[None]))[0] for document in case.documents()]
    padded_BT = batch.documents_BT == PADDING
    others = replace(
        batch,
        tokens_BT=torch.where(padded_BT, 7, batch.tokens_BT),
        positions_BT=torch.where(padded_BT, 3, batch.positions_BT),
    )
    swapped = replace(case, lengths=case.lengths[::-1])
    for logits_BTV in (oracle.logits(batch), oracle.logits(others)):
        for beside, single in zip(case.by_document(logits_BTV), alone, strict=True):
            assert relative(beside, single) <= 1e-14
    flipped = Batch(batch.tokens_BT.flip(0), batch.positions_BT.flip(0), batch.documents_BT.flip(0))
    flipped_alone = [*alone[1:], alone[0]]
    for beside, single in zip(swapped.by_document(oracle.logits(flipped)), flipped_alone, strict=True):
        assert relative(beside, single) <= 1e-14
    assert float(oracle.loss(others)) == float(oracle.loss(batch))


def test_the_order_of_slots_means_nothing() -> None:
    """Tokens shuffled within their rows, positions and documents with them: the same logits, shuffled."""
    case = WINDOWED
    oracle, batch = oracle_of(case), case.batch()
    order_T = torch.randperm(batch.tokens_BT.shape[1], generator=torch.Generator().manual_seed(2))
    shuffled = Batch(batch.tokens_BT[:, order_T], batch.positions_BT[:, order_T], batch.documents_BT[:, order_T])
    expected_BTV = oracle.logits(batch)[:, order_T]
    real_BT = shuffled.documents_BT != PADDING
    assert relative(oracle.logits(shuffled)[real_BT], expected_BTV[real_BT]) <= 1e-14


def test_shifting_every_position_of_a_document_changes_rounding_only() -> None:
    """RoPE and windows see differences of positions."""
    batch = WINDOWED.batch()
    moved = replace(batch, positions_BT=batch.positions_BT + 1000)
    real_BT = batch.documents_BT != PADDING
    oracle = oracle_of(WINDOWED)
    assert 0 < relative(oracle.logits(moved)[real_BT], oracle.logits(batch)[real_BT]) <= 1e-11


def test_a_cache_is_not_changed_by_what_continues_it() -> None:
    """Two continuations of one prompt can be decoded from one cache, and the first does not show in the second."""
    document = BIASED.documents()[0]
    oracle = oracle_of(BIASED)
    _, cache = oracle.prefill(Batch.of(document[None, :50]))
    next_B1 = torch.tensor([[50]])
    first = Batch(torch.tensor([[3]]), next_B1, torch.zeros_like(next_B1))
    second = Batch(document[None, 50:51], next_B1, torch.zeros_like(next_B1))
    before_B1V, _ = oracle.decode(second, cache)
    oracle.decode(first, cache)
    after_B1V, longer = oracle.decode(second, cache)
    assert torch.equal(before_B1V, after_B1V)
    assert relative(after_B1V[0], oracle.logits(Batch.of(document[None, :51]))[0, 50:]) <= 1e-13
    with pytest.raises(AprenderError, match="document 0 has more than one token at position 50"):
        oracle.decode(second, longer)
    with pytest.raises(AprenderError, match="2 rows, but the cache holds 1"):
        oracle.decode(Batch.of(document[:4].reshape(2, 2)), cache)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_any_float_dtype_are_cast_on_use_and_never_changed(stored: torch.dtype) -> None:
    """A bfloat16 checkpoint gives what the same values in float64 give, bit for bit."""
    weights = {name: weight.to(stored) for name, weight in BIASED.weights().items()}
    before = {name: weight.clone() for name, weight in weights.items()}
    wide = {name: weight.double() for name, weight in weights.items()}
    batch = replace(BIASED, lengths=SHORT).batch()
    ours, theirs = (Oracle(BIASED.config, w).backward(batch) for w in (weights, wide))
    assert ours.loss.dtype == torch.float64
    assert torch.equal(ours.loss, theirs.loss)
    assert all(torch.equal(ours.gradients[name], theirs.gradients[name]) for name in weights)
    assert all(torch.equal(weight, before[name]) and weight.dtype == stored for name, weight in weights.items())


def test_losses_are_nan_where_nothing_is_predicted_and_the_mean_leaves_them_out() -> None:
    """Across a document's end and into padding there is no target."""
    losses_BT = oracle_of(BIASED).token_losses(BIASED.batch())
    assert losses_BT.shape == (2, 306)
    assert losses_BT[1].isnan().nonzero().flatten().tolist() == [150, *range(151 + 97 - 1, 306)]
    assert not losses_BT[0].isnan().any()
    assert float(oracle_of(BIASED).loss(BIASED.batch())) == pytest.approx(float(losses_BT.nanmean()), rel=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_are_in_the_dtype_and_on_the_device_asked_for(dtype: torch.dtype, device: str) -> None:
    """Logits, hidden states, losses and gradients."""
    case = replace(BIASED, lengths=SHORT)
    oracle = oracle_of(case, dtype, device)
    loss, gradients = oracle.backward(case.batch())
    results = [oracle.logits(case.batch()), *oracle.hidden_states(case.batch()), loss, *gradients.values()]
    assert {result.dtype for result in results} == {dtype}
    assert {result.device.type for result in results} == {device}


@pytest.mark.parametrize(("token", "row", "column"), [(211, 1, 40), (-1, 0, 60)])
def test_a_token_outside_the_vocabulary_is_named(token: int, row: int, column: int) -> None:
    """The message names the token, where it is and how large the vocabulary is; nothing wraps around."""
    tokens_BT = torch.zeros(2, 61, dtype=torch.int64)
    tokens_BT[row, column] = token
    with pytest.raises(AprenderError, match=f"token {token} at row {row}, column {column} .* vocabulary of 211"):
        oracle_of(BIASED).logits(Batch.of(tokens_BT))


def test_nothing_to_predict_is_an_error() -> None:
    """A row of one token, and documents of one token each, are refused, not averaged to NaN."""
    tokens_BT = torch.tensor([[5], [6]])
    with pytest.raises(AprenderError, match="at least 2 tokens"):
        oracle_of(BIASED).token_losses(Batch.of(tokens_BT))
    singles = Batch.packed([[torch.tensor([5]), torch.tensor([6])]])
    for method in (oracle_of(BIASED).loss, oracle_of(BIASED).backward):
        with pytest.raises(AprenderError, match="no token of the batch has a predecessor"):
            method(singles)


def test_a_malformed_batch_is_refused() -> None:
    """No row, one dimension, floats, unlike shapes, and two tokens at one position of a document."""
    tokens_BT = torch.zeros(2, 5, dtype=torch.int64)
    for wrong in (tokens_BT[:0], tokens_BT[0], tokens_BT.double(), tokens_BT.int()):
        with pytest.raises(AprenderError, match=r"must be int64 of shape \[rows, positions\]"):
            Batch.of(wrong)
    right = Batch.of(tokens_BT)
    with pytest.raises(AprenderError, match=r"positions have shape \(2, 4\), tokens \(2, 5\)"):
        replace(right, positions_BT=right.positions_BT[:, :4])
    with pytest.raises(AprenderError, match="row 0: document 0 has more than one token at position 3"):
        replace(right, positions_BT=right.positions_BT.clamp(max=3))
    twice_BT = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]])
    documents_BT = torch.tensor([[4] * 5, [PADDING, 4, 4, 5, 5]])
    with pytest.raises(AprenderError, match="row 1: document 4 has more than one token at position 0"):
        replace(right, positions_BT=twice_BT, documents_BT=documents_BT)


def test_weights_unlike_the_configuration_are_refused() -> None:
    """A missing bias, a transposed matrix and integers are found before anything is computed."""
    weights, config = BIASED.weights(), BIASED.config
    name = "model.layers.1.self_attn.k_proj.bias"
    with pytest.raises(FormatError, match=f"{name} is missing"):
        Oracle(config, {key: weight for key, weight in weights.items() if key != name})
    name = "model.layers.1.mlp.down_proj.weight"
    with pytest.raises(FormatError, match=f"{name} has shape"):
        Oracle(config, {**weights, name: weights[name].T})
    with pytest.raises(FormatError, match=f"{name} is torch.int8"):
        Oracle(config, {**weights, name: weights[name].to(torch.int8)})

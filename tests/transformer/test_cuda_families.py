"""Every family on the CUDA path, forward and backward: documents, padding, windows, scaled RoPE, QK-norm, dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda import CudaTransformer
from aprender.transformer.cuda.ops import kernels_that_ran
from aprender.transformer.cuda.ops.blocks import attention_tile, small_tiles
from aprender.transformer.cuda.rope_tables import rope_tables
from aprender.transformer.cuda.stages import get_stage, recorded, replaced, stage_names
from aprender.transformer.oracle import PADDING, Batch, Oracle, rope
from falsifiers.oracle_cases import CASES, Case

# Two rows, of one document and of two, the second padded; longer than the windows and the contexts that were scaled.
CASES = {name: replace(case, lengths=((67,), (41, 15))) for name, case in CASES.items()}
QWEN3 = CASES["qwen3-yarn-windows"]


def model_of(case: Case, device: torch.device, dtype: torch.dtype = torch.float32) -> CudaTransformer:
    return CudaTransformer.from_checkpoint(case.config, case.weights(), device, dtype=dtype)


def given(batch: Batch) -> dict[str, Any]:
    return {"positions_BT": batch.positions_BT, "documents_BT": batch.documents_BT}


def distance(ours: Tensor, exact: Tensor) -> float:
    return float((ours.cpu().double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("name", CASES)
def test_logits_losses_and_gradients_are_the_oracles(name: str, device: torch.device) -> None:
    """No farther from float64 than twice what legal float32 orders of summation are."""
    case = CASES[name]
    batch, model = case.batch(), model_of(case, device)
    exact, plans = Oracle(case.config, case.weights()), legal_oracles(case.config, case.weights())
    real_BT, (_, counted_BT) = batch.documents_BT != PADDING, batch.targets()

    logits_BTV = model.forward(batch.tokens_BT, **given(batch)).cpu()
    losses_BT = model.token_losses(batch.tokens_BT, **given(batch)).cpu()
    loss, gradients = model.loss_and_gradients(batch.tokens_BT, **given(batch))
    assert {x.dtype for x in (logits_BTV, losses_BT, loss, *gradients.values())} == {torch.float32}
    for ours, method, where in ((logits_BTV, "logits", real_BT), (losses_BT, "token_losses", counted_BT)):
        expected = getattr(exact, method)(batch)[where]
        legal = max(distance(getattr(plan, method)(batch)[where], expected) for plan in plans)
        assert distance(ours[where], expected) <= 2 * legal, method
    assert not losses_BT[~counted_BT].any()

    backward = exact.backward(batch)
    # A mean is off by no more than the mean of what each is off by, and by one rounding of its own.
    each = (losses_BT.double() - exact.token_losses(batch))[counted_BT].abs().mean()
    assert abs(float(loss) - float(backward.loss)) <= float(each) + 2.0**-24 * float(backward.loss)
    assert list(gradients) == list(case.config.tensor_shapes())
    assert_gradients(gradients, backward.gradients, [plan.backward(batch).gradients for plan in plans])


def assert_gradients(
    gradients: dict[str, Tensor], exact: dict[str, Tensor], legal: Sequence[dict[str, Tensor]]
) -> None:
    """No parameter is farther from float64 than twice the farthest of a legal plan (docs/envelopes.md)."""
    bound = 2 * max(distance(plan[name], exact[name]) for plan in legal for name in exact)
    assert bound < 5e-5
    errors = {name: distance(gradients[name], exact[name]) for name in exact}
    assert {name: error for name, error in errors.items() if not 0 < error <= bound} == {}


def legal_oracles(config: TransformerConfig, weights: dict[str, Tensor]) -> list[Oracle]:
    return [Oracle(config, weights, torch.float32, k_splits=splits) for splits in (1, 4)]


@dataclass
class Rounding:
    """A float32 stage whose outputs and input gradients are rounded to bfloat16: a legal rounding plan."""

    stage: Any

    def __call__(self, *inputs: Any) -> Any:
        return rounded(self.stage(*inputs))

    def forward(self, *inputs: Any) -> Any:
        output, saved = self.stage.forward(*inputs)
        return rounded(output), saved

    def backward(self, saved: Any, d_output: Any) -> Any:
        inputs, parameters = self.stage.backward(saved, d_output)
        return rounded(inputs), parameters


def rounded(x: Any) -> Any:
    return x.bfloat16().float() if isinstance(x, Tensor) else tuple(rounded(part) for part in x)


@pytest.mark.parametrize("name", ["qwen2", "qwen3-yarn-windows"])
def test_bfloat16_rounds_no_more_than_a_rounded_reference(name: str, device: torch.device) -> None:
    """The weights are bfloat16 for all; the reference rounds each stage's results to bfloat16, and nothing between."""
    case = CASES[name]
    weights = {key: weight.bfloat16().float() for key, weight in case.weights().items()}
    batch, exact = case.batch(), Oracle(case.config, weights)
    model = CudaTransformer.from_checkpoint(case.config, weights, device, dtype=torch.bfloat16)
    reference = CudaTransformer.from_checkpoint(case.config, weights, device)
    logits_BTV = model.forward(batch.tokens_BT, **given(batch))
    loss, gradients = model.loss_and_gradients(batch.tokens_BT, **given(batch))
    assert {x.dtype for x in (logits_BTV, loss, *gradients.values())} == {torch.float32}
    with ExitStack() as stack:
        for stage in stage_names(reference)[:-2]:
            stack.enter_context(replaced(reference, stage, Rounding(get_stage(reference, stage))))
        legal_BTV = reference.forward(batch.tokens_BT, **given(batch))
        _, legal_gradients = reference.loss_and_gradients(batch.tokens_BT, **given(batch))
    real_BT = batch.documents_BT != PADDING
    expected = exact.logits(batch)[real_BT]
    assert 1e-3 < distance(logits_BTV.cpu()[real_BT], expected) <= 1.3 * distance(legal_BTV.cpu()[real_BT], expected)
    for parameter, expected in exact.backward(batch).gradients.items():
        legal = distance(legal_gradients[parameter], expected)
        assert 1e-3 < distance(gradients[parameter], expected) <= 2 * legal, parameter


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_rows_about_as_long_as_a_tile(extra: int, device: torch.device) -> None:
    """One position less than a tile of attention, as many, and one more."""
    config, weights = QWEN3.config, QWEN3.weights()
    with small_tiles():
        T = attention_tile(config.head_dim, torch.float32, device).queries + extra
        tokens_BT = torch.arange(2 * T).reshape(2, T) * 7 % config.vocab_size
        model = model_of(QWEN3, device)
        logits_BTV = model.forward(tokens_BT).cpu()
        _, gradients = model.loss_and_gradients(tokens_BT)
    batch, plans = Batch.of(tokens_BT), legal_oracles(config, weights)
    exact = Oracle(config, weights)
    expected = exact.logits(batch)
    assert distance(logits_BTV, expected) <= 2 * max(distance(plan.logits(batch), expected) for plan in plans)
    legal = [plan.backward(batch).gradients for plan in plans]
    assert_gradients(gradients, exact.backward(batch).gradients, legal)


@pytest.mark.parametrize("case", [CASES["qwen2"], QWEN3], ids=lambda case: case.name)
def test_documents_rows_and_padding_do_not_touch_each_other(case: Case, device: torch.device) -> None:
    """Each document alone has the logits that it has beside others, padded on either side, whatever the padding is."""
    model, first, second = model_of(case, device), *case.documents()[:2]
    n, m = len(first), len(second)
    exact, honest = zip(*(alone(model, case, document) for document in (first, second)), strict=True)
    tokens_BT = torch.full((3, n + m), 7)
    documents_BT = torch.full((3, n + m), -1)
    tokens_BT[0], documents_BT[0] = torch.cat((first, second)), torch.tensor([5] * n + [2] * m)
    tokens_BT[1, :n], documents_BT[1, :n] = first, 0  # padding on the right
    tokens_BT[2, n:], documents_BT[2, n:] = second, 3  # and on the left
    logits_BTV = model.forward(tokens_BT, documents_BT=documents_BT).cpu()
    for beside, which in (
        (logits_BTV[0, :n], 0),
        (logits_BTV[0, n:], 1),
        (logits_BTV[1, :n], 0),
        (logits_BTV[2, n:], 1),
    ):
        # The products of matrices may be cut otherwise for another number of rows, and what a tile skips be added as 0:
        # one more order of the same sums.
        assert distance(beside, exact[which]) <= 2 * honest[which]
    losses_BT = model.token_losses(tokens_BT, documents_BT=documents_BT)
    assert not losses_BT[0, n - 1]
    assert not losses_BT[1, n - 1 :].any()
    assert not losses_BT[2, :n].any()
    loss, gradients = model.loss_and_gradients(tokens_BT, documents_BT=documents_BT)
    mean = float(losses_BT.double().sum() / (2 * (n - 1) + 2 * (m - 1)))
    assert float(loss) == pytest.approx(mean, rel=2.0**-23)  # summed in float64, rounded to float32
    other_BT = tokens_BT.where(documents_BT >= 0, 90)
    same_loss, same = model.loss_and_gradients(other_BT, documents_BT=documents_BT)
    assert torch.equal(loss, same_loss)
    assert all(torch.equal(gradients[key], same[key]) for key in gradients)


def alone(model: CudaTransformer, case: Case, document: Tensor) -> tuple[Tensor, float]:
    """The oracle's logits_TV of one document, and how far from them the model is that reads it alone."""
    exact = Oracle(case.config, case.weights()).logits(Batch.of(document[None]))[0]
    return exact, distance(model.forward(document[None])[0], exact)


def test_positions_are_counted_within_each_document_also_out_of_order(device: torch.device) -> None:
    """Two documents with their tokens dealt out alternately: positions by default are those within each of them."""
    model = model_of(QWEN3, device)
    first, second = QWEN3.documents()[0][:20], QWEN3.documents()[1][:20]
    dealt_BT = torch.stack((first, second), 1).reshape(1, 40)
    documents_BT = torch.tensor([9, 4]).repeat(20)[None]
    logits_BTV = model.forward(dealt_BT, documents_BT=documents_BT)
    for start, document in ((0, first), (1, second)):
        exact, honest = alone(model, QWEN3, document)
        assert distance(logits_BTV[0, start::2], exact) <= 2 * honest
    explicit = model.forward(dealt_BT, documents_BT=documents_BT, positions_BT=torch.arange(40)[None] // 2)
    assert torch.equal(logits_BTV, explicit)
    assert not torch.equal(
        logits_BTV, model.forward(dealt_BT, documents_BT=documents_BT, positions_BT=3 + torch.arange(40)[None])
    )


@pytest.mark.parametrize("name", CASES)
def test_rotary_tables_are_the_oracles(name: str) -> None:
    """Two derivations in float64, rounded once: at most one rounding apart."""
    config = CASES[name].config
    theirs = rope.tables(
        torch.arange(500)[None], config.head_dim, config.rope_theta, config.rope_scaling, torch.float64
    )
    for ours, exact in zip(rope_tables(config, 500, torch.device("cpu")), theirs, strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - exact[0]).abs().max()) <= 2.0**-24 * float(exact.abs().max())


def test_only_kernels_run(device: torch.device) -> None:
    """A pass with gradients is made of the stages' own kernels, and of nothing else that a stage could fall back to."""
    model, tokens_BT = model_of(QWEN3, device), QWEN3.batch().tokens_BT
    with kernels_that_ran() as ran:
        model.loss_and_gradients(tokens_BT)
    prefix, library = ("triton-interpreter", "cpu") if device.type == "cpu" else ("triton", "cublas")
    kernels = ("embedding", "rms_norm", "swiglu", "attention")
    expected = {f"{prefix}:{kernel}_forward" for kernel in kernels} | {
        f"{prefix}:{kernel}_backward" for kernel in kernels[:3]
    }
    expected |= {f"{prefix}:attention_backward_{part}" for part in ("delta", "queries", "keys")}
    expected |= {f"{prefix}:{name}" for name in ("rope_rotate", "residual_add", "cross_entropy")}
    assert set(ran) == expected | {f"{library}:mm", "torch:cat", "torch:sum"}
    layers = QWEN3.config.num_hidden_layers
    assert ran.count(f"{prefix}:attention_forward") == layers
    assert ran.count(f"{prefix}:rope_rotate") == 4 * layers


def test_gradients_refuse_a_stage_without_a_backward_pass(device: torch.device) -> None:
    """Logits and losses are made with a plain function in a stage's place; gradients name it."""
    model, tokens_BT = model_of(QWEN3, device), QWEN3.batch().tokens_BT
    with replaced(model, "layers.1.k_norm", lambda x_BTGC: x_BTGC):
        model.forward(tokens_BT)
        model.token_losses(tokens_BT)
        with pytest.raises(
            AprenderError, match=r"stage layers\.1\.k_norm was replaced by one without forward and backw"
        ):
            model.loss_and_gradients(tokens_BT)
    with replaced(model, "loss", lambda x, targets: x), pytest.raises(AprenderError, match="without token_losses"):
        model.token_losses(tokens_BT)


def test_recording_sees_forward_and_backward(device: torch.device) -> None:
    """Of a pass with gradients: what went in, what came out, and both gradients, without changing any."""
    model, tokens_BT = model_of(QWEN3, device), QWEN3.batch().tokens_BT
    loss, gradients = model.loss_and_gradients(tokens_BT)
    with recorded(model, [name for name in stage_names(model) if name != "lm_head"]) as calls:
        again, same = model.loss_and_gradients(tokens_BT)
    assert torch.equal(loss, again)
    assert all(torch.equal(gradients[key], same[key]) for key in gradients)
    for name, (call,) in calls.items():
        assert call.gradients is not None, name
    (gate,), (down,) = calls["layers.1.gate_proj"], calls["layers.1.down_proj"]
    assert gate.gradients is not None
    assert torch.equal(gate.gradients[1]["weight"], gradients["model.layers.1.mlp.gate_proj.weight"])
    assert down.d_output.shape == down.output.shape


def test_misshapen_places_and_a_batch_without_targets_are_refused(device: torch.device) -> None:
    """Unlike shapes, floats, positions outside the tables, a dtype without kernels."""
    model, tokens_BT = model_of(QWEN3, device), QWEN3.batch().tokens_BT
    for name in ("positions_BT", "documents_BT"):
        for misshapen in (torch.zeros(2, 5, dtype=torch.int64), torch.zeros(tokens_BT.shape)):
            wrong: dict[str, Any] = {name: misshapen}
            with pytest.raises(AprenderError, match=rf"{name[:-3]} must be integers of the tokens' shape"):
                model.forward(tokens_BT, **wrong)
    with pytest.raises(AprenderError, match=r"position -1 \(row 0, column 0\)"):
        model.forward(tokens_BT, positions_BT=torch.full_like(tokens_BT, -1))
    with pytest.raises(AprenderError, match=r"documents must lie within \+-1073741824"):
        model.forward(tokens_BT, documents_BT=torch.full_like(tokens_BT, 2**32))
    with pytest.raises(AprenderError, match="there is no loss"):
        model.loss_and_gradients(tokens_BT, documents_BT=torch.full_like(tokens_BT, -1))
    with pytest.raises(AprenderError, match=r"a model in torch\.float16: there are kernels for"):
        model_of(QWEN3, device, torch.float16)

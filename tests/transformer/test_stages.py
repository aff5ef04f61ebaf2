"""Stages by name: in forward order, replaced and recorded without a trace left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aprender.errors import AprenderError
from aprender.transformer.cuda import CudaTransformer
from aprender.transformer.cuda.stages import BLOCK_STAGES, get_stage, recorded, replaced, stage_names
from tests.transformer.random_models import CONFIGS, random_tokens, random_weights

CONFIG = CONFIGS["qwen2-6to2-tied"]
TOKENS_BT = random_tokens(CONFIG)


@pytest.fixture
def model(device: torch.device) -> CudaTransformer:
    return CudaTransformer.from_checkpoint(CONFIG, random_weights(CONFIG), device)


def stages_of(model: CudaTransformer) -> dict[str, Any]:
    return {name: get_stage(model, name) for name in stage_names(model)}


def test_names_are_in_forward_order(model: CudaTransformer) -> None:
    """The stages are called in the order in which they are listed, and every one of them is called."""
    called: list[str] = []

    def logged(name: str, stage: Any) -> Any:
        def call(*args: torch.Tensor) -> Any:
            called.append(name)
            return stage(*args)

        return call

    for name, stage in stages_of(model).items():
        owner: Any = model.layers[int(name.split(".")[1])] if "." in name else model
        setattr(owner, name.split(".")[-1], logged(name, stage))
    model.forward(TOKENS_BT)
    assert called == stage_names(model)[:-1]  # all but the loss
    assert stage_names(model)[1:13] == [f"layers.0.{name}" for name in BLOCK_STAGES if name not in ("q_norm", "k_norm")]


def test_a_replaced_stage_acts_and_is_put_back(model: CudaTransformer) -> None:
    """The replacement changes the logits while it is there; afterwards stages and logits are as before."""
    before, logits_BTV = stages_of(model), model.forward(TOKENS_BT)
    with replaced(model, "layers.1.k_rope", lambda x_BTHC, positions_BT: x_BTHC):
        assert not torch.allclose(model.forward(TOKENS_BT), logits_BTV, atol=0.1)
    assert all(get_stage(model, name) is stage for name, stage in before.items())
    assert torch.equal(model.forward(TOKENS_BT), logits_BTV)


def test_stages_are_put_back_after_an_exception(model: CudaTransformer) -> None:
    """A probe that crashes in the middle, while replacing and recording, leaves the model as it found it."""
    before = stages_of(model)

    def broken(*args: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("crashed")

    with (
        pytest.raises(RuntimeError, match="crashed"),
        replaced(model, "layers.2.up_proj", broken),
        recorded(model, stage_names(model)),
    ):
        model.forward(TOKENS_BT)
    assert all(get_stage(model, name) is stage for name, stage in before.items())


def test_recording_changes_nothing_and_chains(model: CudaTransformer) -> None:
    """What is recorded is what flowed: each output is the next stage's argument, and the last one the logits."""
    logits_BTV = model.forward(TOKENS_BT)
    with recorded(model, stage_names(model)) as calls:
        assert torch.equal(model.forward(TOKENS_BT), logits_BTV)
    assert list(calls) == stage_names(model)
    assert [len(calls[name]) for name in stage_names(model)] == [1] * (len(stage_names(model)) - 1) + [0]
    (queries,), (keys,) = calls["layers.1.q_rope"], calls["layers.1.k_rope"]
    q_BTHC, k_BTGC, *_ = calls["layers.1.attention"][0].args
    assert queries.output is q_BTHC
    assert keys.output is k_BTGC
    assert q_BTHC.shape == (2, 61, 6, 18)
    assert k_BTGC.shape == (2, 61, 2, 18)
    assert calls["lm_head"][0].args[0] is calls["norm"][0].output
    assert torch.equal(calls["lm_head"][0].output, logits_BTV)


def test_a_defect_planted_before_recording_is_recorded(model: CudaTransformer) -> None:
    """Recording wraps what is there: a probe sees the planted stage's output, not the clean one's."""
    with (
        replaced(model, "layers.0.o_proj", lambda x_BTK: torch.zeros_like(x_BTK[..., : CONFIG.hidden_size])),
        recorded(model, ["layers.0.o_proj"]) as calls,
    ):
        model.forward(TOKENS_BT)
    assert not calls["layers.0.o_proj"][0].output.any()


@pytest.mark.parametrize("name", ["layers.1.q_porj", "layers.1.head_dim", "layers.3.q_proj", "layers.-1.q_proj"])
def test_an_unknown_stage_is_an_error_with_the_nearest_name(model: CudaTransformer, name: str) -> None:
    """A misspelt stage, a field that isn't one and a layer that isn't there are refused before anything runs."""
    with pytest.raises(AprenderError, match=r"no stage .*did you mean 'layers\.\d\."):
        get_stage(model, name)
    with pytest.raises(AprenderError, match="no stage"), recorded(model, ["norm", name]):
        pytest.fail("must not get here")
    with pytest.raises(AprenderError, match="no stage"), replaced(model, name, torch.neg):
        pytest.fail("must not get here")

"""The oracle against a third party: Hugging Face's implementations in float64, with eager attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from aprender.errors import AprenderError, FormatError
from aprender.transformer.config import TransformerConfig
from aprender.transformer.oracle import Floats, Oracle, linear, rope, rope_tables, swiglu
from tests.transformer.random_models import CONFIGS, as_tensors, random_tokens, random_weights

FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rms_norm_eps",
    "tie_word_embeddings",
)


class Float64(TorchFunctionMode):
    """Read every float32 as float64: transformers computes norms, softmax and angles in float32 for any model."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def wide(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        func = torch.Tensor.double if func is torch.Tensor.float else func
        return func(*map(wide, args), **{key: wide(value) for key, value in (kwargs or {}).items()})


def third_party(config: TransformerConfig) -> Any:
    """Build the transformers model of the same weights, in float64."""
    fields = {name: getattr(config, name) for name in FIELDS}
    rotary = {"rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta}}
    config_class, model_class = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
    }[config.family]
    with Float64():
        model = model_class(config_class(**fields, **rotary, attn_implementation="eager")).double().eval()
    result = model.load_state_dict(as_tensors(random_weights(config)), strict=False)
    assert result.unexpected_keys == []
    assert result.missing_keys == (["lm_head.weight"] if config.tie_word_embeddings else [])
    return model


def relative_error(ours: Floats, theirs: torch.Tensor) -> float:
    assert ours.shape == tuple(theirs.shape)
    return float(np.abs(ours - theirs.numpy()).max() / np.abs(theirs.numpy()).max())


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_losses_equal_those_of_transformers(name: str) -> None:
    """Every supported family, head ratio and kind of head agrees with transformers to 1e-12 in float64."""
    config = CONFIGS[name]
    model, oracle, tokens_BT = third_party(config), Oracle(config, random_weights(config)), random_tokens(config)
    with torch.no_grad(), Float64():
        theirs_BTV = model(torch.from_numpy(tokens_BT)).logits
    targets_BT = torch.from_numpy(tokens_BT[:, 1:])
    losses_BT = torch.nn.functional.cross_entropy(theirs_BTV[:, :-1].mT, targets_BT, reduction="none")
    assert relative_error(oracle.logits(tokens_BT), theirs_BTV) <= 1e-12
    assert relative_error(oracle.token_losses(tokens_BT), losses_BT) <= 1e-12


@pytest.mark.parametrize("name", CONFIGS)
def test_rotary_tables_equal_those_of_transformers(name: str) -> None:
    """The configured theta reaches the tables: they agree with transformers' own in float64."""
    config, T = CONFIGS[name], 61
    with Float64():
        theirs = third_party(config).model.rotary_emb(torch.zeros(1, dtype=torch.float64), torch.arange(T)[None])
    for ours_TR, theirs_BTC in zip(rope_tables(T, config.head_dim, config.rope_theta), theirs, strict=True):
        # An angle of up to T radians is rounded to T * 2^-53, twice on either side.
        assert np.abs(np.concatenate((ours_TR, ours_TR), axis=-1) - theirs_BTC[0].numpy()).max() <= 4 * T * 2.0**-53


def test_rope_depends_on_relative_position_only() -> None:
    """Shifting query and key by the same number of positions leaves their product as it was."""
    rng = np.random.default_rng(3)
    cos_TR, sin_TR = rope_tables(70, 18, 4_000.0)
    q_C, k_C = rng.normal(size=(2, 18))
    q_TC = rope(np.tile(q_C, (1, 70, 1, 1)), cos_TR, sin_TR)[0, :, 0]
    k_TC = rope(np.tile(k_C, (1, 70, 1, 1)), cos_TR, sin_TR)[0, :, 0]
    nine_back = np.array([q_TC[t] @ k_TC[t - 9] for t in range(9, 70)])
    assert np.ptp(nine_back) <= 1e-13
    assert abs(nine_back[0] - q_TC[20] @ k_TC[12]) > 1e-3


def test_splits_of_the_sum_differ_by_rounding_only() -> None:
    """Summing in four parts is another float32 result, and the same one to within float32 rounding."""
    rng = np.random.default_rng(5)
    x, weight = rng.normal(size=(3, 7, 130)).astype(np.float32), rng.normal(size=(33, 130)).astype(np.float32)
    whole, split = linear(x, weight), linear(x, weight, k_splits=4)
    assert whole.dtype == split.dtype == np.float32
    assert not np.array_equal(whole, split)
    # The classic bound on a sum of K products, either way: K u sum |x w|.
    bound = 2 * 130 * 2.0**-24 * (np.abs(x).astype(np.float64) @ np.abs(weight).T)
    assert (np.abs(whole.astype(np.float64) - split) <= bound).all()


def test_swiglu_survives_large_gates() -> None:
    """A gate of -1e4 gives zero and one of 1e4 passes through, without a warning about overflow."""
    gate, up = np.array([[-1e4, 1e4, 2.0]]), np.array([[3.0, 5.0, 7.0]])
    np.testing.assert_allclose(swiglu(gate, up), [[0.0, 5e4, 2.0 / (1.0 + np.exp(-2.0)) * 7.0]], rtol=1e-15)


@pytest.mark.parametrize(("token", "row", "column"), [(211, 1, 40), (-1, 0, 60)])
def test_a_token_outside_the_vocabulary_is_named(token: int, row: int, column: int) -> None:
    """The message names the token, where it is and how large the vocabulary is; nothing wraps around."""
    config = CONFIGS["qwen2-6to2-tied"]
    tokens_BT = random_tokens(config)
    tokens_BT[row, column] = token
    with pytest.raises(AprenderError, match=f"token {token} at row {row}, column {column} .* vocabulary of 211"):
        Oracle(config, random_weights(config)).logits(tokens_BT)


def test_nothing_to_predict_is_an_error() -> None:
    """A row of one token, no row at all and tokens that aren't integers are refused, not averaged to NaN."""
    config = CONFIGS["qwen2-6to2-tied"]
    oracle, tokens_BT = Oracle(config, random_weights(config)), random_tokens(config)
    with pytest.raises(AprenderError, match="at least 2 tokens"):
        oracle.token_losses(tokens_BT[:, :1])
    wrong: Any
    for wrong in (tokens_BT[:0], tokens_BT[0], tokens_BT.astype(np.float64)):
        with pytest.raises(AprenderError, match="must be integers of shape"):
            oracle.token_losses(wrong)


def test_incomplete_weights_are_refused() -> None:
    """A missing bias or a transposed matrix is found before anything is computed."""
    config = CONFIGS["qwen2-7to1-untied"]
    weights = random_weights(config)
    name = "model.layers.1.self_attn.k_proj.bias"
    with pytest.raises(FormatError, match=f"{name} is missing"):
        Oracle(config, {key: weight for key, weight in weights.items() if key != name})
    name = "model.layers.2.mlp.down_proj.weight"
    with pytest.raises(FormatError, match=f"{name} has shape"):
        Oracle(config, {**weights, name: weights[name].T})


def test_the_future_does_not_change_the_past() -> None:
    """Other tokens from position 37 on leave every logit before it bit-equal, and change those after it."""
    config = CONFIGS["qwen2-7to1-untied"]
    oracle, tokens_BT = Oracle(config, random_weights(config)), random_tokens(config)
    other_BT = tokens_BT.copy()
    other_BT[:, 37:] = (other_BT[:, 37:] + 1) % config.vocab_size
    logits_BTV, other_BTV = oracle.logits(tokens_BT), oracle.logits(other_BT)
    assert np.array_equal(logits_BTV[:, :37], other_BTV[:, :37])
    assert (np.abs(logits_BTV - other_BTV)[:, 37:].max(axis=-1) > 0.1).all()

"""Rotary positions: scaled frequencies against hand-made numbers and transformers' own, and the law they obey."""

from __future__ import annotations

import math

import pytest
import torch

from aprender.transformer.config import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling
from aprender.transformer.oracle import rope
from falsifiers.oracle_cases import CASES
from falsifiers.third_party import Float64, build


@pytest.mark.parametrize("name", CASES)
def test_frequencies_and_tables_equal_those_of_transformers(name: str) -> None:
    """The configured theta and scaling reach the tables: they agree with transformers' own in float64."""
    case, T = CASES[name], 311
    config = case.config
    with Float64():
        rotary = build(config, case.weights(), torch.float64).model.rotary_emb
        theirs = rotary(torch.zeros(1, dtype=torch.float64), torch.arange(T)[None])
    ours_R = rope.frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
    torch.testing.assert_close(ours_R, rotary.inv_freq, rtol=1e-14, atol=0)
    ours = rope.tables(torch.arange(T)[None], config.head_dim, config.rope_theta, config.rope_scaling, torch.float64)
    for ours_BTR, theirs_BTC in zip(ours, theirs, strict=True):
        # An angle of up to T radians is rounded to T * 2^-53, a few times on either side.
        assert (torch.cat((ours_BTR, ours_BTR), -1) - theirs_BTC).abs().max() <= 8 * T * 2.0**-53


def test_llama3_keeps_short_waves_and_stretches_long_ones() -> None:
    """Frequencies of many turns over the original context are as they were, those of few are divided by the factor."""
    scaling = Llama3Scaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
    )
    plain_R, scaled_R = rope.frequencies(128, 5e5, None), rope.frequencies(128, 5e5, scaling)
    turns_R = 8192 * plain_R / (2 * math.pi)
    assert torch.equal(scaled_R[turns_R > 4], plain_R[turns_R > 4])
    torch.testing.assert_close(scaled_R[turns_R < 1], plain_R[turns_R < 1] / 8, rtol=1e-15, atol=0)
    between_R = (turns_R > 1) & (turns_R < 4)
    assert between_R.sum() >= 3
    assert ((scaled_R > plain_R / 8) & (scaled_R < plain_R))[between_R].all()


def test_yarn_ramps_between_the_betas() -> None:
    """Pairs that turn more than beta_fast times are kept, those below beta_slow are divided; amplitude is the factor's."""
    scaling = YarnScaling(4.0, 32.0, 1.0, 1.1386, True, 32768)
    plain_R, scaled_R = rope.frequencies(128, 1e6, None), rope.frequencies(128, 1e6, scaling)
    turns_R = 32768 * plain_R / (2 * math.pi)
    kept_R = (scaled_R / plain_R - 0.25) / 0.75
    assert kept_R[turns_R > 40].min() == pytest.approx(1)
    assert kept_R[turns_R < 0.8].max() == pytest.approx(0, abs=1e-15)
    assert (kept_R[1:] <= kept_R[:-1] + 1e-15).all()
    cos_BTR, _ = rope.tables(torch.tensor([[0]]), 128, 1e6, scaling, torch.float64)
    assert torch.allclose(cos_BTR, torch.full_like(cos_BTR, 1.1386))


@pytest.mark.parametrize(
    "scaling",
    [None, LinearScaling(3.0), Llama3Scaling(6.0, 1.25, 3.5, 48), YarnScaling(4.5, 6.0, 0.5, 0.83, False, 80)],
    ids=["plain", "linear", "llama3", "yarn"],
)
def test_rope_depends_on_relative_position_only(scaling: RopeScaling | None) -> None:
    """Shifting query and key by the same number of positions leaves their product as it was."""
    cos_BTR, sin_BTR = rope.tables(torch.arange(70)[None], 18, 4e3, scaling, torch.float64)
    q_C, k_C = torch.randn(2, 18, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    q_TC, k_TC = (rope.rotate(x_C.expand(1, 70, 1, 18), cos_BTR, sin_BTR)[0, :, 0] for x_C in (q_C, k_C))
    nine_back_T = (q_TC[9:] * k_TC[:-9]).sum(-1)
    assert nine_back_T.max() - nine_back_T.min() <= 1e-13
    assert abs(nine_back_T[0] - q_TC[20] @ k_TC[12]) > 1e-3

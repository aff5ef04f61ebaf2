"""Choices must agree where they are decidable, stay near where they are not, and too few decidable ones prove nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aprender.parity.generation import common_prefix, compare_generation

STEPS, VOCABULARY = 200, 97


def normal(seed: int, sd: float = 1.0) -> Tensor:
    return sd * torch.randn(STEPS, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logits(peak: float = 6.0) -> Tensor:
    """One token clearly ahead on every step."""
    z = normal(0)
    z[torch.arange(STEPS), torch.arange(STEPS) % VOCABULARY] += peak
    return z


NOISE = 1e-3


def test_rounding_noise_is_green_and_nearly_all_is_decidable() -> None:
    z = logits()
    record = compare_generation(z, [z + normal(1, NOISE)], z + normal(2, NOISE))
    assert record.verdict == "GREEN"
    assert record.decidable > 0.95
    assert record.disagreements == ()


def test_a_wrong_choice_on_a_clear_step_is_red_and_named() -> None:
    z = logits()
    wrong = z + normal(2, NOISE)
    wrong[17, 3] = 20.0
    record = compare_generation(z, [z + normal(1, NOISE)], wrong)
    assert record.verdict == "RED"
    assert record.disagreements == ((17, 3, 17),)


def test_a_tie_may_be_broken_either_way() -> None:
    z = logits()
    z[17, 3] = z[17, 17] - NOISE / 10
    other = z.clone()
    other[17, 3] += NOISE
    assert compare_generation(z, [z + normal(1, NOISE)], other).verdict == "GREEN"


def test_on_a_tie_a_token_that_rounding_could_not_choose_is_red() -> None:
    z = logits()
    z[17, 3] = z[17, 17] - NOISE / 10
    other = z.clone()
    other[17, 50] = 20.0
    assert compare_generation(z, [z + normal(1, NOISE)], other).disagreements == ((17, 50, 17),)


def test_the_same_choices_with_other_probabilities_are_red() -> None:
    """The argmax agrees on every step: only the divergence shows it."""
    z = logits()
    record = compare_generation(z, [z + normal(1, NOISE)], z * 1.01)
    assert record.verdict == "RED"
    assert record.disagreements == ()
    assert record.over_divergence > 0
    assert record.divergence > record.allowed_divergence


def test_too_few_decidable_steps_are_an_error_not_green() -> None:
    z = normal(0)
    record = compare_generation(z, [z + normal(1, 0.5)], z + normal(2, 0.1))
    assert record.verdict == "ERROR"
    assert "decidable" in record.reason


def test_what_does_not_compare_is_an_error() -> None:
    z = logits()
    assert compare_generation(z, [z], z[:, :-1]).verdict == "ERROR"
    assert compare_generation(z, [z], z * math.nan).verdict == "ERROR"
    assert compare_generation(z, [], z).verdict == "ERROR"
    assert compare_generation(z[:0], [z[:0]], z[:0]).verdict == "ERROR"


def test_free_streams_are_equal_up_to_the_first_undecidable_step() -> None:
    assert common_prefix([1, 2, 3], [1, 2, 3], [False] * 3) is None
    assert common_prefix([1, 2, 3], [1, 9, 4], [False, True, False]) is None
    assert common_prefix([1, 2, 3], [1, 9, 4], [False] * 3) == 1
    assert common_prefix([1, 2, 3], [1, 2], [False] * 3) == 2

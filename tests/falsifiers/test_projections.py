"""Defects of one projection inside the fused stage: they change that one and leave the others, and the right stage, alone."""

from __future__ import annotations

import pytest
import torch

from aprender.transformer.cuda.ops import FusedLinear
from falsifiers.projections import QKV, WrongParts, bias_of, bias_with, part

WIDTHS = (6, 2, 2)


@pytest.fixture
def fused() -> FusedLinear:
    generator = torch.Generator().manual_seed(4)
    return FusedLinear(torch.randn(10, 7, generator=generator), torch.randn(10, generator=generator), WIDTHS)


@pytest.mark.parametrize("name", QKV)
def test_a_part_is_the_stages_own_rows(name: str, fused: FusedLinear) -> None:
    rows = slice(*{"q_proj": (0, 6), "k_proj": (6, 8), "v_proj": (8, 10)}[name])
    assert fused.bias is not None
    assert torch.equal(part(fused, name).weight, fused.weight[rows])
    assert torch.equal(bias_of(part(fused, name)), fused.bias[rows])
    before = fused.bias.clone()
    changed = bias_with(fused, name, 0.0)
    assert torch.equal(fused.bias, before)
    assert not changed[rows].any()
    assert torch.equal(
        torch.cat((changed[: rows.start], changed[rows.stop :])), torch.cat((before[: rows.start], before[rows.stop :]))
    )


@pytest.mark.parametrize("name", QKV)
def test_a_wrong_part_changes_its_own_output_alone(name: str, fused: FusedLinear) -> None:
    """It is computed by its own weight and bias, and a bias that a probe perturbs reaches the right stage."""
    x = torch.randn(3, 7, generator=torch.Generator().manual_seed(5))
    wrong = WrongParts(fused, (name,), lambda linear, x: x @ linear.weight.T)
    for of, right, found in zip(QKV, fused(x), wrong(x), strict=True):
        if of == name:
            torch.testing.assert_close(found + bias_of(part(fused, name)), right)
        else:
            assert torch.equal(found, right)
    assert wrong.bias is fused.bias
    wrong.bias = None
    assert fused.bias is None
    assert not bias_of(part(fused, name)).any()

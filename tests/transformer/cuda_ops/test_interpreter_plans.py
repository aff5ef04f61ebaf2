"""Plans of the interpreter's operations: what was worked out for some operands holds for others of their types alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aprender.transformer.cuda.ops import runtime
from aprender.transformer.cuda.ops.runtime import launch, tl, triton

pytestmark = pytest.mark.skipif(not runtime.INTERPRETED, reason="on a GPU kernels are compiled")


@triton.jit
def product(x, y, out, SAME: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.arange(0, 16)
    a, b = tl.load(x + place), tl.load(y + place)
    tl.store(out + place, a * a if SAME else a * b)


@triton.jit
def table(x, y, out):  # type: ignore[no-untyped-def]
    place = tl.arange(0, 16)
    a, b = tl.load(x + place), tl.load(y + place)
    tl.store(out + place[:, None] * 16 + place[None, :], a[:, None] - b[None, :])


@triton.jit
def scaled(x, out, FACTOR: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.arange(0, 16)
    tl.store(out + place, tl.load(x + place) * FACTOR)


@triton.jit
def shifted(x, out, by):  # type: ignore[no-untyped-def]
    place = tl.arange(0, 16)
    tl.store(out + place, tl.load(x + place) + by)


@triton.jit
def chosen(x, out, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + place, tl.where(tl.load(x + place) > 0.0, place, -1))


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("same_first", [True, False])
def test_a_square_is_not_the_plan_of_a_product(same_first: bool) -> None:
    """``x * x`` and ``x * y`` have operands of the same types, in whatever order they come."""
    x, y = normal(2, 16)
    for same in (same_first, not same_first, same_first):
        out = torch.empty(16)
        launch(product, (1,), x, y, out, SAME=same)
        assert torch.equal(out, x * x if same else x * y)


def test_rows_are_not_spread_as_columns() -> None:
    """In a square block the two would have one shape."""
    x, y = normal(2, 16)
    for a, b in ((x, y), (y, x)):
        out = torch.empty(16, 16)
        launch(table, (1,), a, b, out)
        assert torch.equal(out, a[:, None] - b[None, :])


def test_equal_constants_that_differ_have_plans_of_their_own() -> None:
    """0.0 and -0.0 (which triton 3.6 itself takes for 0.0), and 1, 1.0 and True."""
    x, bits = torch.ones(16), []
    for factor in (-0.0, 0.0, -0.0):
        out = torch.empty(16)
        launch(scaled, (1,), x, out, FACTOR=factor)
        bits.append(out.view(torch.int32))
    assert torch.equal(bits[0], bits[2])
    assert not bits[1].any()
    whole = torch.full((16,), 3, dtype=torch.int32)
    for kind in (1, 1.0, True):
        out = torch.empty(16)
        launch(scaled, (1,), whole, out, FACTOR=kind)
        assert out.tolist() == [3.0] * 16


def test_every_program_has_its_own_number() -> None:
    """What is asked of the launch is no constant."""
    x, out = normal(64), torch.empty(64, dtype=torch.int32)
    launch(chosen, (4,), x, out, BLOCK=16)
    assert torch.equal(out, torch.where(x > 0, torch.arange(64), -1).int())


def test_an_integer_overflow_is_an_error_the_second_time_too() -> None:
    """int32 has room for the first sum, not for the second."""
    x, out = torch.full((16,), 2**30, dtype=torch.int32), torch.empty(16, dtype=torch.int32)
    launch(shifted, (1,), x, out, 7)
    assert out.tolist() == [2**30 + 7] * 16
    with pytest.raises(Exception, match="integer add"):
        launch(shifted, (1,), x, out, 2**30)

"""Faults of composition, which no stage alone can show: the hash chain sees them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from aprender.parity.wiring import Call, Recorder, check, digest, edges_of

STAGES: dict[str, Callable[..., Tensor]] = {
    "norm1": lambda x: x / 2,
    "mix": lambda x: x.flip(1),
    "add1": torch.add,
    "norm2": lambda x: x / 3,
    "mlp": torch.tanh,
    "add2": torch.add,
}


def run(model: Callable[[dict[str, Callable[..., Tensor]], Tensor], Tensor]) -> list[Call]:
    recorder = Recorder()
    stages = {name: recorder.wrap(name, stage) for name, stage in STAGES.items()}
    model(stages, torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0)))
    return recorder.calls


def right(s: dict[str, Callable[..., Tensor]], x: Tensor) -> Tensor:
    y = s["add1"](x, s["mix"](s["norm1"](x)))
    return s["add2"](y, s["mlp"](s["norm2"](y)))


def residual_from_the_norm(s: dict[str, Callable[..., Tensor]], x: Tensor) -> Tensor:
    y = s["add1"](x, s["mix"](s["norm1"](x)))
    normed = s["norm2"](y)
    return s["add2"](normed, s["mlp"](normed))


def stale_norm(s: dict[str, Callable[..., Tensor]], x: Tensor) -> Tensor:
    first = s["norm1"](x)
    y = s["add1"](x, s["mix"](first))
    s["norm2"](y)
    return s["add2"](y, s["mlp"](first))


def permuted_between(s: dict[str, Callable[..., Tensor]], x: Tensor) -> Tensor:
    y = s["add1"](x, s["mix"](s["norm1"](x)))
    return s["add2"](y, s["mlp"](s["norm2"](y)).roll(1, 2))


def overwritten_before_reading(s: dict[str, Callable[..., Tensor]], x: Tensor) -> Tensor:
    y = s["add1"](x, s["mix"](s["norm1"](x)))
    normed = s["norm2"](y)
    normed.mul_(1.0000001).add_(1e-3)  # a buffer that somebody else was given
    return s["add2"](y, s["mlp"](normed))


def in_another_order(s: dict[str, Callable[..., Tensor]], x: Tensor) -> Tensor:
    y = s["add2"](x, s["mlp"](s["norm2"](x)))
    return s["add1"](y, s["mix"](s["norm1"](y)))


def test_a_right_run_has_every_edge_of_the_reference() -> None:
    assert len(edges_of(run(right))) == 6
    assert check(run(right), run(right)) == []


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (residual_from_the_norm, "add2 input 0 is output 0 of norm2, not output 0 of add1"),
        (stale_norm, "mlp input 0 is output 0 of norm1, not output 0 of norm2"),
        (permuted_between, "add2 input 1 is what no stage returned, not output 0 of mlp"),
        (overwritten_before_reading, "mlp input 0 is what no stage returned, not output 0 of norm2"),
    ],
)
def test_wrong_wiring_is_named(model: Callable[..., Tensor], said: str) -> None:
    assert said in [fault.message for fault in check(run(right), run(model))]


def test_another_order_of_stages_is_a_fault() -> None:
    faults = check(run(right), run(in_another_order))
    assert faults[0].edge is None
    assert faults[0].message == "call 0 is norm2, the reference's is norm1"


def test_a_stage_that_does_not_run_is_a_fault() -> None:
    messages = [fault.message for fault in check(run(right), run(right)[:-1])]
    assert messages[0] == "5 calls of stages, the reference makes 6"
    assert any(message.startswith("add2 input 0") for message in messages)


def test_digests_depend_on_order_and_not_on_strides() -> None:
    """A permutation has the same norm and another digest; a view of the same elements in order has the same."""
    x = torch.arange(12.0).view(3, 4)
    assert digest(x) != digest(x.flip(1))
    assert digest(x) == digest(x.view(12)) == digest(x.T.contiguous().T)
    assert digest(x.bfloat16()) != digest(x)

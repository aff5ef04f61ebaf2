"""What holds for every stage: equal bits each time, nothing read before it is written, honest kernel names."""

from __future__ import annotations

import copy

import pytest
import torch

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops import AdamW, global_norm, kernels_that_ran, poisoned
from aprender.transformer.cuda.ops.memory import empty
from tests.transformer.cuda_ops.legal import normal
from tests.transformer.cuda_ops.stage_runs import all_runs

RUNS = all_runs()
GUARD = 64


@pytest.mark.parametrize("name", RUNS)
def test_equal_inputs_give_equal_bits(name: str, dtype: torch.dtype, device: torch.device) -> None:
    run = RUNS[name](dtype, device)
    given = copy.deepcopy(run)
    first = run.results()
    for _ in range(3 if device.type == "cpu" else 50):
        assert all(torch.equal(a, b) for a, b in zip(run.results(), first, strict=True))
    for x, before in zip(run.inputs, given.inputs, strict=True):
        assert torch.equal(x, before), "a stage never changes its inputs"


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_read_before_it_is_written(name: str, dtype: torch.dtype, device: torch.device) -> None:
    """NaN, a huge number, and the previous result negated, each in all new memory: not a bit of a result changes."""
    run = RUNS[name](dtype, device)
    clean = run.results()
    with poisoned(float("nan"), guard=GUARD) as given:
        results = [run.results()]
    assert given
    with poisoned(1e30, guard=GUARD):
        results.append(run.results())
    with poisoned([x.clone() for x in given], guard=GUARD):
        results.append(run.results())
    for result in results:
        assert all(torch.equal(a, b) for a, b in zip(result, clean, strict=True))


@pytest.mark.parametrize("name", RUNS)
def test_stages_say_which_kernels_run(name: str, dtype: torch.dtype, device: torch.device) -> None:
    run = RUNS[name](dtype, device)
    with kernels_that_ran() as forward:
        _, saved = run.forward()
    with kernels_that_ran() as backward:
        run.backward(saved)
    assert list(dict.fromkeys(forward)) == list(dict.fromkeys(run.stage.kernel.split("+")))
    assert "+".join(backward) == run.stage.backward_kernel
    prefix = "triton-interpreter:" if device.type == "cpu" else "triton:"
    assert all(
        kernel.startswith((prefix, "cpu:" if device.type == "cpu" else "cublas:", "torch:")) for kernel in forward
    )
    with kernels_that_ran() as called:
        output = run.stage(*run.inputs)
    assert called
    expected = run.forward()[0]
    outputs = [output] if isinstance(output, torch.Tensor) else list(output)
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))


def test_the_optimizer_is_deterministic_and_reads_no_new_memory(device: torch.device) -> None:
    def update() -> list[torch.Tensor]:
        w, g, m, v = (normal(seed, 7, 31, dtype=torch.float32, device=device) for seed in range(4))
        AdamW(1e-2).update(w, g, m, v.abs_(), t=3)
        return [w, m, v, global_norm([g, w])]

    clean = update()
    with poisoned(float("nan"), guard=GUARD):
        again = update()
    assert all(torch.equal(a, b) for a, b in zip(clean, again, strict=True))


def write_beside_a_tensor(offset: int, device: torch.device) -> None:
    with poisoned(0.0, guard=4):
        x = empty((2, 3), torch.float32, device)
        x.as_strided((1,), (1,), x.storage_offset() + offset).fill_(1.0)


def test_a_read_before_a_write_and_a_write_out_of_bounds_are_seen(device: torch.device) -> None:
    """The poison itself can fail a test: it fills, negates, and notices a write beyond a tensor's end."""
    with poisoned(float("nan")) as given:
        assert torch.isnan(empty((2, 3), torch.bfloat16, device)).all()
        assert (empty((4,), torch.int32, device) == torch.iinfo(torch.int32).min).all()
    given[0].fill_(2.0)
    with poisoned(given):
        assert (empty((2, 3), torch.bfloat16, device) == -2).all()
        with pytest.raises(AprenderError, match="no previous tensor"):
            empty((5,), torch.int32, device)
    for offset in (-1, 6):
        with pytest.raises(AprenderError, match="outside its bounds"):
            write_beside_a_tensor(offset, device)

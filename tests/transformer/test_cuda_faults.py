"""The CUDA path's model when memory runs out, a kernel breaks, the GPU is unfit or the weights are no numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from aprender.errors import AprenderError, FormatError
from aprender.faults import DeviceFault
from aprender.transformer.cuda import CudaTransformer
from aprender.transformer.cuda.ops import runtime, swiglu
from aprender.transformer.cuda.stages import get_stage, replaced
from tests.broken_kernels import products, unlike_shapes
from tests.transformer.random_models import CONFIGS, Weights, random_weights

CONFIG = CONFIGS["qwen2-6to2-tied"]
STAGE = "layers.1.swiglu"
NORM = "model.layers.1.input_layernorm.weight"
Q_BIAS = "model.layers.0.self_attn.q_proj.bias"


@pytest.fixture
def weights() -> Weights:
    return random_weights(CONFIG)


@pytest.fixture
def model(weights: Weights, device: torch.device) -> CudaTransformer:
    return CudaTransformer.from_checkpoint(CONFIG, weights, device)


@pytest.fixture
def tokens() -> Tensor:
    return torch.arange(18).reshape(2, 9) % CONFIG.vocab_size


@dataclass
class Hungry:
    """A stage that asks for a petabyte, forward or backward."""

    stage: Any
    backward_only: bool = False

    def __call__(self, *inputs: Tensor) -> Any:
        self._ask(inputs[0], self.backward_only)
        return self.stage(*inputs)

    def forward(self, *inputs: Tensor) -> Any:
        self._ask(inputs[0], self.backward_only)
        return self.stage.forward(*inputs)

    def backward(self, saved: Any, d_output: Tensor) -> Any:
        self._ask(d_output, False)

    def _ask(self, beside: Tensor, unless: bool) -> None:
        if not unless:
            torch.empty(2**50, dtype=torch.uint8, device=beside.device)


PASSES = {
    "forward": lambda model, tokens: model.forward(tokens),
    "token_losses": lambda model, tokens: model.token_losses(tokens),
    "loss_and_gradients": lambda model, tokens: model.loss_and_gradients(tokens),
}


@pytest.mark.parametrize("name", PASSES)
def test_out_of_memory_says_in_which_stage_and_the_model_goes_on(
    name: str, model: CudaTransformer, tokens: Tensor
) -> None:
    before = model.forward(tokens)
    said = f"^stage {STAGE}: out of .*memory .*asked for.*use fewer rows"
    with replaced(model, STAGE, Hungry(get_stage(model, STAGE))), pytest.raises(DeviceFault, match=said) as caught:
        PASSES[name](model, tokens)
    assert isinstance(caught.value.__cause__, RuntimeError), "torch's own error is there for who wants it"
    assert torch.equal(model.forward(tokens), before)


def test_out_of_memory_in_the_backward_pass(model: CudaTransformer, tokens: Tensor) -> None:
    hungry = Hungry(get_stage(model, STAGE), backward_only=True)
    said = f"^stage {STAGE}, backward: out of .*memory"
    with replaced(model, STAGE, hungry), pytest.raises(DeviceFault, match=said):
        model.loss_and_gradients(tokens)


def test_a_cache_that_does_not_fit(model: CudaTransformer) -> None:
    with pytest.raises(DeviceFault, match=r"^making the cache: out of .*memory \("):
        model.new_cache(1000, 10**9)


def test_a_pass_that_failed_leaves_the_cache_as_it_was(model: CudaTransformer, tokens: Tensor) -> None:
    cache = model.new_cache(2, 20)
    expected = model.forward(tokens, cache=cache)
    cache.reset()
    model.forward(tokens[:, :5], cache=cache)
    with replaced(model, STAGE, Hungry(get_stage(model, STAGE))), pytest.raises(DeviceFault):
        model.forward(tokens[:, 5:], cache=cache)
    rest = model.forward(tokens[:, 5:], cache=cache)
    assert torch.allclose(rest, expected[:, 5:], atol=1e-4)


def test_a_broken_kernel_is_named_with_its_stage(
    model: CudaTransformer, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel is broken for real: the interpreter, or on a GPU the compiler, refuses it."""

    def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **meta: Any) -> None:
        runtime.launch(unlike_shapes, (1,), arguments[0])

    monkeypatch.setattr(swiglu, "launch", launch)
    kernel = r"launching triton(-interpreter)?:unlike_shapes"
    with pytest.raises(DeviceFault, match=f"^stage layers.0.swiglu: {kernel}: the kernel (does not compile|fails in)"):
        model.forward(tokens)


def test_where_a_kernel_fails_in_the_interpreter() -> None:
    if not runtime.INTERPRETED:
        pytest.skip("the kernels are compiled for CUDA in this process")
    with pytest.raises(DeviceFault) as caught:
        runtime.launch(unlike_shapes, (1,), torch.ones(64))
    assert "ValueError: Cannot make_shape_compatible" in str(caught.value)
    assert "broken_kernels.py:" in str(caught.value)
    assert "install a triton from 3.6 to 3.9" in str(caught.value)


@pytest.mark.cuda
def test_more_shared_memory_than_the_gpu_has(device: torch.device) -> None:
    if device.type == "cpu":
        pytest.skip("the interpreter has no shared memory")
    x = torch.ones(64, 4096, dtype=torch.bfloat16, device=device)
    with pytest.raises(DeviceFault, match=r"products: the kernel needs \d+ of shared memory, this GPU has \d+; use"):
        runtime.launch(products, (1,), x, 4096, num_stages=40)
    runtime.launch(products, (1,), x, 4096, num_stages=2)


@contextmanager
def memory_of(model: CudaTransformer, beyond: int) -> Iterator[None]:
    """The GPU has no more memory than what is used now and ``beyond`` bytes, for this process."""
    total = torch.cuda.get_device_properties(model.device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(model.device) + beyond) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.cuda
def test_a_gpu_that_really_runs_out_of_memory(model: CudaTransformer) -> None:
    """In the middle of a pass; afterwards a smaller one runs."""
    if model.device.type == "cpu":
        pytest.skip("needs a GPU's memory to limit")
    tokens = torch.zeros(64, 2048, dtype=torch.int64)
    small = model.forward(tokens[:1, :8])
    with memory_of(model, 48 << 20):
        with pytest.raises(DeviceFault, match=r"out of GPU memory \([\d.]+ \w+ were asked for.*nvidia-smi") as caught:
            model.loss_and_gradients(tokens)
        assert isinstance(caught.value.__cause__, torch.OutOfMemoryError | DeviceFault)
        del caught
        assert torch.equal(model.forward(tokens[:1, :8]), small)


@pytest.mark.parametrize(
    ("name", "place", "value", "said"),
    [
        (
            NORM,
            (7,),
            float("nan"),
            r"has 1 of 52 values that are not finite in torch.float32, the first is nan at \[7\]",
        ),
        (Q_BIAS, (0,), float("inf"), r"has 1 of 108 values .* the first is inf at \[0\]"),
        (
            "model.embed_tokens.weight",
            (210, 51),
            -float("inf"),
            r"has 1 of 10972 values .* the first is -inf at \[210, 51\]",
        ),
    ],
)
def test_weights_that_are_no_numbers_are_refused(
    name: str, place: tuple[int, ...], value: float, said: str, weights: Weights, device: torch.device
) -> None:
    weights[name] = weights[name].clone()
    weights[name][place] = value
    with pytest.raises(FormatError, match=f"^tensor {name} {said}.*: load the weights anew, or correct what made them"):
        CudaTransformer.from_checkpoint(CONFIG, weights, device)


def test_what_only_the_upload_makes_infinite_is_refused(weights: Weights, device: torch.device) -> None:
    """The largest float32 is beyond bfloat16's range."""
    weights[NORM] = weights[NORM].clone()
    weights[NORM][-1] = torch.finfo(torch.float32).max
    CudaTransformer.from_checkpoint(CONFIG, weights, device)
    with pytest.raises(FormatError, match=r"not finite in torch.bfloat16, the first is inf"):
        CudaTransformer.from_checkpoint(CONFIG, weights, device, dtype=torch.bfloat16)


def test_a_busy_gpu_is_named_when_the_model_is_built(weights: Weights, device: torch.device) -> None:
    """As torch says it at the first thing that a process asks of a GPU in exclusive-process mode."""

    def upload(*_: Any) -> dict[str, Tensor]:
        raise torch.AcceleratorError(
            "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors"
        )

    with pytest.raises(DeviceFault, match=r"^building the model: the GPU is busy: .*exclusive-process.*nvidia-smi"):
        CudaTransformer.from_checkpoint(CONFIG, weights, device, upload=upload)


def test_a_gpu_older_than_the_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One message, before anything is uploaded or compiled; 8.0 is new enough."""
    monkeypatch.setattr(runtime, "INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    for capability, index in (((7, 5), 41), ((8, 0), 42), ((9, 0), 43)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        old = torch.device("cuda", index)  # an index of its own: what was found out of a device is kept
        if capability >= (8, 0):
            runtime.check_device(old)
            continue
        with pytest.raises(
            AprenderError,
            match=r"Tesla T4\) is too old: it has compute capability 7.5.*need 8.0: choose .*TRITON_INTERPRET=1",
        ):
            CudaTransformer.from_checkpoint(CONFIG, random_weights(CONFIG), old)

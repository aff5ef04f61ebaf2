"""The CUDA path's operators as a system under contract: one stage of each kind on fixed inputs, in two dtypes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.falsify.probe import Options, RequirementNotMet
from aprender.faults import DeviceFault
from aprender.parity.compare import Kept, compare_stage
from aprender.parity.controls import Limit, least_visible
from aprender.parity.record import StageRecord
from aprender.transformer.cuda import ops
from aprender.transformer.cuda.ops.runtime import check_device
from falsifiers.cuda_operator_cases import SEED, Case, cases
from falsifiers.digests import digest_of

Direction = Literal["forward", "backward"]
Key = tuple[str, str]  # dtype, stage

LARGEST = 1e12  # stands for all that is larger: an observation is finite
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Outcome:
    """What the parity engine said of one stage in one direction, and a digest of the tensors that it looked at."""

    records: tuple[StageRecord, ...]
    digest: str


@dataclass
class Watched:
    """A stage whose results are kept, for the digest of the observation."""

    stage: Any
    results: list[Tensor] = field(default_factory=list)

    def __call__(self, *inputs: Tensor) -> Any:
        return self._kept(self.stage(*inputs))

    def forward(self, *inputs: Tensor) -> Any:
        output, saved = self.stage.forward(*inputs)
        return self._kept(output), saved

    def backward(self, saved: Any, d_output: Any) -> Any:
        d_inputs, d_parameters = self.stage.backward(saved, d_output)
        self._kept([*d_inputs, *d_parameters.values()])
        return d_inputs, d_parameters

    def _kept(self, output: Any) -> Any:
        self.results += [output] if isinstance(output, Tensor) else list(output)
        return output


class ReplaceableStages:
    """What defects change: ``stages``, by dtype and name, and the optimizer's three functions."""

    def __init__(self, stages: Mapping[Key, Any]) -> None:
        self.stages = dict(stages)
        self.update: Callable[..., None] = ops.AdamW.update
        self.global_norm: Callable[..., Tensor] = ops.global_norm
        self.clip_scale: Callable[..., Tensor] = ops.clip_scale

    @contextmanager
    def replaced(self, stages: Mapping[Key, Any]) -> Generator[None]:
        """Other stages in the places of some, for the time of a ``with`` block."""
        originals = {key: self.stages[key] for key in stages}
        self.stages |= stages
        try:
            yield
        finally:
            self.stages |= originals

    @contextmanager
    def function_replaced(self, name: str, function: Callable[..., Any]) -> Generator[None]:
        """One of the optimizer's functions replaced, for the time of a ``with`` block."""
        original = getattr(self, name)
        setattr(self, name, function)
        try:
            yield
        finally:
            setattr(self, name, original)

    def fingerprint(self) -> str:
        """A digest of which stages and functions there are, and of what the stages hold."""
        state = hashlib.sha256()
        for key, stage in self.stages.items():
            state.update(f"{key} {id(stage)} {_plain(stage)} {digest_of(tensors_of(stage))}".encode())
        state.update(repr([id(f) for f in (self.update, self.global_norm, self.clip_scale)]).encode())
        return state.hexdigest()


class OperatorsUnderContract(ReplaceableStages):
    """What probes read: the outcome of every stage, in each dtype.

    While nothing is replaced every stage is run anew each time. While something is, only that is: the other stages'
    outcomes are those of the last run in which nothing was.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.cases: dict[Key, Case] = {
            (name, stage): case for name, dtype in DTYPES.items() for stage, case in cases(self.device, dtype).items()
        }
        super().__init__({key: case.stage for key, case in self.cases.items()})
        self._kept: dict[Key, Kept] = {key: {} for key in self.cases}
        self._outcomes: dict[tuple[Key, Direction], Outcome] = {}
        self._limits: dict[tuple[str, Direction], Limit] = {}

    def compared(self, dtype: str, direction: Direction) -> Iterator[tuple[Case, Outcome]]:
        """Each case of ``dtype`` and what its stage comes to. Raises AprenderError for a dtype that there is not."""
        if dtype not in DTYPES:
            raise AprenderError(f"no operators in {dtype!r}; there are {', '.join(DTYPES)}")
        clean = all(self.stages[key] is case.stage for key, case in self.cases.items())
        for key, case in self.cases.items():
            if key[0] != dtype:
                continue
            place, stage = (key, direction), self.stages[key]
            if stage is not case.stage:
                yield case, self._outcome(key, stage, direction)
                continue
            if clean or place not in self._outcomes:
                self._outcomes[place] = self._outcome(key, stage, direction)
            yield case, self._outcomes[place]

    def detection_limit(self, dtype: str, direction: Direction) -> Limit:
        """The least visible corruption of one element of all that was ``compared``; measured once, of the oracle's."""
        if (dtype, direction) not in self._limits:
            yardsticks = {
                f"{key[1]} {tensor}": yardstick
                for key, kept in self._kept.items()
                if key[0] == dtype and direction in kept
                for tensor, yardstick in kept[direction].yardsticks.of.items()
            }
            self._limits[dtype, direction] = least_visible(yardsticks, SEED)
        return self._limits[dtype, direction]

    def _outcome(self, key: Key, stage: Any, direction: Direction) -> Outcome:
        watched, forward = Watched(stage), direction == "forward"
        reference = self.cases[key].reference
        found = compare_stage(reference, watched, forward=forward, backward=not forward, kept=self._kept[key])
        for record in found.records:
            if record.fault:  # of the machine: no operator was wrong
                raise DeviceFault(f"{key[1]} in {key[0]}, {direction}: {record.reason}")
        return Outcome(found.records, digest_of(watched.results))

    def facts(self) -> dict[str, Any]:
        """Device, library versions, dtypes, seed and the kernels that the stages name, for the evidence."""
        cuda = self.device.type == "cuda"
        kernels = {case.stage.kernel for case in self.cases.values() if hasattr(case.stage, "kernel")}
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu, Triton's interpreter",
            "torch": torch.__version__,
            "dtype": ", ".join(DTYPES),
            "flags": {"float32_matmul_precision": torch.get_float32_matmul_precision(), "threads": 1},
            "kernels": sorted(kernels),
            "seed": SEED,
        }

    def fingerprint(self) -> str:
        """As for all stages, and a digest of all inputs."""
        inputs = digest_of([x for case in self.cases.values() for x in case.reference.inputs])
        return f"{super().fingerprint()} {inputs}"


class OperatorFactory:
    """Opens the operators on the device that ``pv run`` was told to use; ``--model`` does not concern them."""

    def inputs(self, options: Options) -> tuple[Path, ...]:
        """No files: inputs are drawn from a seed."""
        return ()

    def open(self, options: Options) -> OperatorsUnderContract:
        """Raises RequirementNotMet without triton, or where its kernels can't run on the device asked for."""
        require_kernels(options.device)
        return OperatorsUnderContract(options.device)


OPERATORS = OperatorFactory()


def require_kernels(device: str) -> None:
    """Raise RequirementNotMet where the kernels can't run on ``device``, DeviceFault where that is too old a GPU.

    Sets the precision that they state.
    """
    if find_spec("triton") is None:
        raise RequirementNotMet("triton is not installed; run: pip install triton")
    if device == "cuda" and not torch.cuda.is_available():
        message = f"torch {torch.__version__} can't use the CUDA device of this host; install a CUDA build of torch"
        raise RequirementNotMet(message)
    if device == "cpu" and not runtime_is_interpreted():
        raise RequirementNotMet(
            "the kernels are compiled for CUDA here: use --device cuda, or set TRITON_INTERPRET=1 for the CPU"
        )
    check_device(torch.device(device))  # not too old
    ops.use_float32_accumulation()


def runtime_is_interpreted() -> bool:
    """Whether this process runs Triton's kernels on the CPU, in its interpreter."""
    from aprender.transformer.cuda.ops.runtime import INTERPRETED

    return INTERPRETED


def operator_kinds() -> set[str]:
    """The operators that the CUDA path offers: every class of ``ops`` with a backward pass."""
    offered = {name: getattr(ops, name) for name in ops.__all__}
    return {name for name, kind in offered.items() if is_dataclass(kind) and hasattr(kind, "backward_kernel")}


def tensors_of(stage: Any) -> list[Tensor]:
    """The tensors that a stage holds, and those of stages inside it."""
    values = _values(stage)
    inner = [x for value in values if is_dataclass(value) for x in tensors_of(value)]
    return [value for value in values if isinstance(value, Tensor)] + inner


def _plain(stage: Any) -> list[str]:
    return [repr(value) for value in _values(stage) if isinstance(value, bool | int | float | str | None)]


def _values(stage: Any) -> list[Any]:
    return [getattr(stage, f.name) for f in fields(stage)] if is_dataclass(stage) else []

"""Two modules, each running freely: is the candidate wired like the reference, and does it predict the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from aprender.errors import AprenderError
from aprender.parity.calls import tensors_of
from aprender.parity.compare import failure
from aprender.parity.generation import GenerationRecord, compare_generation
from aprender.parity.modes import InFloat64
from aprender.parity.modules import ModuleComparison
from aprender.parity.record import Verdict
from aprender.parity.wiring import Call, Fault, Recorder, check, digest, edges_of


@dataclass(frozen=True, slots=True)
class FreeRun:
    """``faults`` of wiring; ``generation`` judges the logits, None where the output is not [rows, positions, many].

    ``reason`` says why nothing can be compared.
    """

    edges: int
    faults: tuple[Fault, ...]
    generation: GenerationRecord | None
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """RED for a fault or a wrong prediction, ERROR for logits that can't be compared, such as NaN.

        That few choices are decidable says nothing about a model of random weights.
        """
        if self.faults or (self.generation is not None and self.generation.verdict == "RED"):
            return "RED"
        if self.reason:
            return "ERROR"
        return "GREEN" if self.generation is None or self.generation.compared else "ERROR"

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "edges": self.edges,
            "faults": [fault.message for fault in self.faults],
            "generation": self.generation and self.generation.to_json(),
        }


def free_run(comparison: ModuleComparison, *inputs: Tensor) -> FreeRun:
    """Run the reference and the candidate of a ``ModuleComparison`` once each, undisturbed but for hooks that look.

    Edges between operators are learnt from the reference's run and must be in the candidate's (the order in which
    independent operators run is free).
    """
    names = [name for name in comparison.pairs if not any(other.startswith(f"{name}.") for other in comparison.pairs)]
    given = tuple(x.to(comparison.options.dtype) if x.is_floating_point() else x for x in inputs)
    theirs = {comparison.pairs[name]: name for name in names}
    try:
        with torch.no_grad():
            plain, reference = _ran("reference", comparison.plain, {name: name for name in names}, given)
            found, candidate = _ran("candidate", comparison.candidate, theirs, given)
            with InFloat64():
                oracle, _ = _ran("reference in float64", comparison.oracle, {}, _doubles(given))
    except AprenderError as error:
        return FreeRun(0, (), None, str(error))
    if not bool(torch.isfinite(plain).all()):  # all NaN looks alike: an edge would be seen where there is none
        return FreeRun(0, (), None, "the reference's own output is not finite")
    faults = [fault for fault in check(reference, candidate) if fault.edge is not None]
    generation = None
    if oracle.ndim == 3 and oracle.shape[-1] > 1:
        flat = (x.flatten(0, 1) for x in (oracle, plain, found))
        z, y, candidate_TV = flat
        generation = compare_generation(z, [y], candidate_TV)
    return FreeRun(len(edges_of(reference)), tuple(faults), generation)


def _doubles(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.double() if x.is_floating_point() else x for x in given)


def _ran(
    whose: str, module: nn.Module, names: Mapping[str, str], given: tuple[Tensor, ...]
) -> tuple[Tensor, list[Call]]:
    """The first tensor that a module returns, and the calls of its submodules ``names``.

    Raises AprenderError where it raises anything, or returns no tensor.
    """
    try:
        with _recorded(module, names) as calls:
            outputs = tensors_of(module(*given))
    except Exception as error:
        raise AprenderError(f"the {whose} failed: {failure(error)}") from error
    if not outputs:
        raise AprenderError(f"the {whose} returned no tensor")
    return outputs[0], calls


@contextmanager
def _recorded(module: nn.Module, names: Mapping[str, str]) -> Iterator[list[Call]]:
    """Record every call of the submodules ``names`` (own name to the name that is kept) as digests."""
    recorder = Recorder()
    pending: dict[str, tuple[str, ...]] = {}

    def before(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            pending[name] = tuple(digest(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))

        return hook

    def after(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            recorder.add(name, pending.pop(name), tensors_of(output))

        return hook

    hooks = []
    for own, name in names.items():
        hooks.append(module.get_submodule(own).register_forward_pre_hook(before(name), with_kwargs=True))
        hooks.append(module.get_submodule(own).register_forward_hook(after(name)))
    try:
        yield recorder.calls
    finally:
        for hook in hooks:
            hook.remove()

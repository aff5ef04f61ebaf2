"""Two modules, each running freely: is the candidate wired like the reference, and does it predict the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from aprender.parity.calls import tensors_of
from aprender.parity.generation import GenerationRecord, compare_generation
from aprender.parity.modes import InFloat64
from aprender.parity.modules import ModuleComparison
from aprender.parity.record import Verdict
from aprender.parity.wiring import Call, Fault, Recorder, check, digest, edges_of


@dataclass(frozen=True, slots=True)
class FreeRun:
    """``faults`` of wiring; ``generation`` judges the logits, None where the output is not [rows, positions, many]."""

    edges: int
    faults: tuple[Fault, ...]
    generation: GenerationRecord | None

    @property
    def verdict(self) -> Verdict:
        """RED for a fault or a wrong prediction, ERROR for logits that can't be compared, such as NaN.

        That few choices are decidable says nothing about a model of random weights.
        """
        if self.faults or (self.generation is not None and self.generation.verdict == "RED"):
            return "RED"
        return "GREEN" if self.generation is None or self.generation.compared else "ERROR"

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "verdict": self.verdict,
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
    with torch.no_grad():
        with _recorded(comparison.plain, {name: name for name in names}) as reference:
            plain = tensors_of(comparison.plain(*given))[0]
        with _recorded(comparison.candidate, {comparison.pairs[name]: name for name in names}) as candidate:
            found = tensors_of(comparison.candidate(*given))[0]
        with InFloat64():
            oracle = tensors_of(comparison.oracle(*(x.double() if x.is_floating_point() else x for x in given)))[0]
    faults = [fault for fault in check(reference, candidate) if fault.edge is not None]
    generation = None
    if oracle.ndim == 3 and oracle.shape[-1] > 1:
        flat = (x.flatten(0, 1) for x in (oracle, plain, found))
        z, y, candidate_TV = flat
        generation = compare_generation(z, [y], candidate_TV)
    return FreeRun(len(edges_of(reference)), tuple(faults), generation)


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

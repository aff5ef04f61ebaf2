"""Anyone's two ``torch.nn.Module``: every submodule of the candidate is fed what the reference's partner was fed.

The reference is its own oracle: a copy in float64 with the weights rounded to the candidate's dtype, casts inside it
widened too. Its legal plans are itself in the candidate's dtype, itself in float32 and rounded at the end, and the same
with every sum taken term by term. Nothing is kept: each submodule is compared while the reference runs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from aprender.errors import AprenderError
from aprender.faults import located_at
from aprender.parity.calibration import Calibration
from aprender.parity.calls import Call, bound, tensors_of
from aprender.parity.compare import compare_stage, failure
from aprender.parity.exact import equal_bits
from aprender.parity.modes import InFloat64, TermByTerm
from aprender.parity.record import Comparison, StageRecord
from aprender.parity.reproduce import reproduced
from aprender.parity.stages import Candidate, Differentiated, Operator, Parameters, ReferenceStage, Tensors


@dataclass(frozen=True, slots=True)
class Options:
    """How to compare; ``seed`` draws the gradients that backward is fed."""

    dtype: torch.dtype
    seed: int = 0
    backward: bool = True
    with_limits: bool = False
    calibration: Calibration | None = None


class ModuleComparison:
    """Compares the submodules named in ``pairs`` (reference name to candidate name); ``run`` does it in one forward.

    Neither module is changed: copies in evaluation mode are compared, parameters rounded to ``options.dtype``.
    """

    @located_at("copying the modules, the reference to float64")
    def __init__(self, reference: nn.Module, candidate: nn.Module, pairs: Mapping[str, str], options: Options) -> None:
        self.pairs, self.options = pairs, options
        self.candidate = in_dtype(candidate, options.dtype)
        self.plain = in_dtype(reference, options.dtype)
        self.oracle = copy.deepcopy(self.plain).double().requires_grad_()
        self._records: list[StageRecord] = []
        self._mode = InFloat64()

    def run(self, *inputs: Tensor) -> Comparison:
        """One forward of the float64 reference on ``inputs``; every paired submodule is compared as it returns."""
        self._records = []
        hooks = [
            self.oracle.get_submodule(name).register_forward_hook(self._hook(name), with_kwargs=True)
            for name in self.pairs
        ]
        floats = [x.double().requires_grad_() if x.is_floating_point() else x for x in inputs]
        try:
            # requires_grad tells activations from tables; what autograd would keep for a backward is dropped
            with self._mode, torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(_nothing, _nothing):
                self.oracle(*floats)
            missed = "the reference did not call it on this input"
        except Exception as error:  # noqa: BLE001 - somebody's module; what was compared so far is kept
            missed = f"the reference, in float64, ended before it: {failure(error)}"
        finally:
            for hook in hooks:
                hook.remove()
        seen = {record.stage for record in self._records}
        self._records += [self._error(name, missed) for name in self.pairs if name not in seen]
        return Comparison(tuple(self._records))

    def _hook(self, name: str) -> Callable[..., None]:
        def compare(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if self._mode.paused:
                return  # a submodule of one that is being compared
            with self._mode.outside(), torch.autograd.graph.saved_tensors_hooks(_same, _same):
                call = Call.of(args, kwargs, output, self.options.dtype)
                self._records += self._compare(name, call)

        return compare

    def _compare(self, name: str, call: Call) -> list[StageRecord]:
        options = self.options
        try:
            stage, candidate = self.stage(name, call)
        except Exception as error:  # noqa: BLE001 - somebody's module; the others are still compared
            return [self._error(name, failure(error))]
        records = compare_stage(
            stage,
            candidate,
            backward=options.backward,
            with_limits=options.with_limits,
            calibration=options.calibration,
        ).records
        first = not any(record.verdict == "RED" for record in self._records)
        return reproduced(stage, candidate, records, options.calibration) if first else list(records)

    def stage(self, name: str, call: Call) -> tuple[ReferenceStage, Candidate]:
        """What the engine compares for one submodule, on one call of it."""
        partner = self.candidate.get_submodule(self.pairs[name])
        ours, theirs = self.plain.get_submodule(name), dict(partner.named_parameters())
        names = self._parameter_names(name, theirs)
        parameters = {own: p.detach() for own, p in ours.named_parameters() if own in names}
        for whose, held in (("reference", parameters), ("candidate", {own: theirs[names[own]] for own in parameters})):
            _check_finite(whose, held)
        expected = _tried("reference", ours, call)
        found = _tried("candidate", partner, call)
        count = 1 if len(found) == 1 else len(expected)  # a reference may return more (attention weights) than is asked
        dtypes = [y.dtype for y in expected[:count]]
        stage = ReferenceStage(
            name,
            call.inputs,
            parameters,
            self._oracle_operator(name, call, count),
            _plans(ours, call, dtypes),
            constants=call.constants,
            masks=call.masks,
            exact=frozenset({"output"}) if isinstance(ours, nn.Embedding) else frozenset(),
            covered=frozenset(
                own for own in parameters if f"{name}.{own}".rpartition(".")[0] in self.pairs.keys() - {name}
            ),
            seed=self.options.seed,
        )
        _check_stateless(stage)

        def run(inputs: Tensors, parameters: Parameters) -> Tensors:
            renamed = {names[own]: p for own, p in parameters.items() if isinstance(p, Tensor)}
            return _outputs(partner, renamed, call, inputs)

        values = {own: theirs[other].detach() for own, other in names.items() if own in parameters}
        return stage, Differentiated(run, values, call.constants | call.masks)

    def _oracle_operator(self, name: str, call: Call, count: int) -> Operator:
        module = self.oracle.get_submodule(name)

        def forward(inputs: Tensors, parameters: Parameters) -> Tensors:
            with InFloat64():
                return _outputs(module, parameters, call, inputs)[:count]

        return Operator(forward)

    def _parameter_names(self, name: str, theirs: Mapping[str, Tensor]) -> dict[str, str]:
        """The parameters of a submodule that its partner has too: own name to the partner's, both as they call them."""
        names = {}
        for own, _ in self.plain.get_submodule(name).named_parameters():
            owner, _, last = f"{name}.{own}".rpartition(".")
            other = f"{self.pairs.get(owner, '')}.{last}".removeprefix(f"{self.pairs[name]}.")
            if other in theirs:
                names[own] = other
        return names

    def _error(self, name: str, reason: str) -> StageRecord:
        return StageRecord(name, "forward", "output", "ERROR", reason, seed=self.options.seed)


def in_dtype(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy in evaluation mode with parameters in ``dtype``; buffers (tables, frequencies) stay as they were built."""
    made = copy.deepcopy(module).eval().requires_grad_(False)
    for parameter in made.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return made


def _plans(module: nn.Module, call: Call, dtypes: list[torch.dtype]) -> dict[str, Operator]:
    wide = {name: p.detach().float() for name, p in module.named_parameters() if p.is_floating_point()}

    def as_is(inputs: Tensors, parameters: Parameters) -> Tensors:
        return _outputs(module, parameters, call, inputs)[: len(dtypes)]

    def in_float32(inputs: Tensors, parameters: Parameters) -> Tensors:
        floats = tuple(x.float() if x.is_floating_point() else x for x in inputs)
        given = {name: p.float() for name, p in parameters.items() if isinstance(p, Tensor) and p.is_floating_point()}
        found = _outputs(module, wide | given, call, floats)
        return tuple(y.to(dtype) for y, dtype in zip(found, dtypes, strict=False))

    def term_by_term(inputs: Tensors, parameters: Parameters) -> Tensors:
        with TermByTerm(), sdpa_kernel(SDPBackend.MATH):
            return in_float32(inputs, parameters)

    return {"as it is": Operator(as_is), "float32": Operator(in_float32), "term by term": Operator(term_by_term)}


def _outputs(module: nn.Module, parameters: Parameters, call: Call, inputs: Tensors) -> Tensors:
    args, kwargs = bound(module, *call.rebuilt(inputs))
    tensors = {name: p for name, p in parameters.items() if isinstance(p, Tensor)}
    return tensors_of(functional_call(module, tensors, args, kwargs))


def _tried(whose: str, module: nn.Module, call: Call) -> Tensors:
    """What the module returns. Raises AprenderError, with the shapes that it was given, where it raises anything."""
    try:
        return _outputs(module, {}, call, call.inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in call.inputs)
        raise AprenderError(f"the {whose} fails on what the reference was given, {shapes}: {failure(error)}") from error


def _check_finite(whose: str, parameters: Mapping[str, Tensor]) -> None:
    for name, x in parameters.items():
        wrong = torch.isfinite(x).logical_not().nonzero()
        if len(wrong):
            first = wrong[0].tolist()
            raise AprenderError(
                f"{name} of the {whose} has {len(wrong)} of {x.numel()} values that are not finite, the first is "
                f"{x[tuple(first)].item()} at {first}: load the weights anew, or correct what made them"
            )


def _check_stateless(stage: ReferenceStage) -> None:
    plan = stage.plans["as it is"].forward
    once, again = (plan(stage.inputs, stage.parameters) for _ in range(2))
    if not all(map(equal_bits, once, again)):
        raise AprenderError(
            "called twice on the same input the reference returns different values: a cache, or dropout; switch it off"
        )


def _nothing(x: Any) -> Any:
    return None


def _same(x: Any) -> Any:
    return x

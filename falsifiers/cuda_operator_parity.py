"""Probes of FALSIFY-CUDA-OPERATOR-PARITY-001..003: every operator of the CUDA path against the float64 oracle."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from aprender.falsify.probe import Observation, probe
from aprender.parity.record import StageRecord
from aprender.transformer.cuda.ops.blocks import small_tiles
from falsifiers.cuda_operator_cases import Case
from falsifiers.cuda_operator_defects import DEFECTS
from falsifiers.cuda_operator_system import (
    OPERATORS,
    Direction,
    OperatorsUnderContract,
    Outcome,
    operator_kinds,
)
from falsifiers.oracle_system import on_one_thread

# Residual additions are exact, and so is the embedding's forward: their elements are compared bit by bit.
RATIOS = {
    "Embedding": "embedding_ratio",
    "Linear": "linear_ratio",
    "RMSNorm": "norm_ratio",
    "AddRMSNorm": "norm_ratio",
    "Rope": "rope_ratio",
    "Attention": "attention_ratio",
    "SwiGLU": "swiglu_ratio",
    "LinearCrossEntropy": "loss_ratio",
}
LARGEST = 1e12  # stands for all that is larger: where nothing is allowed a ratio is infinite

_OBSERVED = {
    "worst_ratio": "",
    **dict.fromkeys(RATIOS.values(), ""),
    "elements_differing": "elements",
    "operators_compared": "operators",
    "operators_expected": "operators",
    "inconclusive": "tensors",
    "stages_compared": "stages",
    "tensors_compared": "tensors",
    "elements_compared": "elements",
}


@probe(system=OPERATORS, observes=_OBSERVED, defects=DEFECTS)
@small_tiles()
@on_one_thread
def forward(system: OperatorsUnderContract, *, dtype: str) -> Observation:
    """The output of every operator, fed the oracle's inputs, over what honest rounding may change; ratios up to 1 are.

    ``elements_differing`` counts the elements, in any bit, of outputs that admit no rounding of their own.
    ``inconclusive`` are tensors that could not be compared, or that could not have failed.
    """
    return _observation(system.compared(dtype, "forward"))


@probe(system=OPERATORS, observes=_OBSERVED, defects=DEFECTS)
@small_tiles()
@on_one_thread
def backward(system: OperatorsUnderContract, *, dtype: str) -> Observation:
    """As ``forward``: every gradient of every operator, by inputs, weights and biases, of a random cotangent."""
    return _observation(system.compared(dtype, "backward"))


@probe(system=OPERATORS, observes=_OBSERVED, defects=DEFECTS)
@small_tiles()
@on_one_thread
def both(system: OperatorsUnderContract, *, dtype: str) -> Observation:
    """``forward`` and ``backward`` in one."""
    directions: tuple[Direction, ...] = ("forward", "backward")
    return _observation(pair for direction in directions for pair in system.compared(dtype, direction))


def _observation(pairs: Iterable[tuple[Case, Outcome]]) -> Observation:
    ratios = dict.fromkeys(RATIOS.values(), 0.0)
    kinds, failed, records = set[str](), set[str](), list[StageRecord]()
    state = hashlib.sha256()
    for case, outcome in pairs:
        state.update(outcome.digest.encode())
        records += outcome.records
        wrong = any(record.verdict == "ERROR" for record in outcome.records)
        (failed if wrong or not outcome.records else kinds).add(case.kind)
        found = [r.ratio for r in outcome.records if r.verdict != "ERROR" and r.statistic != "bitwise"]
        if found:
            name = RATIOS[case.kind]
            ratios[name] = max(ratios[name], min(max(found), LARGEST))
    exact = [record for record in records if record.statistic == "bitwise"]
    values: dict[str, float | int] = {
        "worst_ratio": max(ratios.values()),
        **ratios,
        "elements_differing": int(sum(record.observed for record in exact)),
        "operators_compared": len(kinds - failed),
        "operators_expected": len(operator_kinds()),
        "inconclusive": sum(record.verdict == "ERROR" for record in records),
        "stages_compared": len({record.stage for record in records if record.elements}),
        "tensors_compared": sum(record.elements > 0 for record in records),
        "elements_compared": sum(record.elements for record in records),
    }
    return Observation(values, state.hexdigest())

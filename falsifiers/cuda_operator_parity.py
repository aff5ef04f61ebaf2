"""Probes of FALSIFY-CUDA-OPERATOR-PARITY-001..003: every operator of the CUDA path against the float64 oracle."""

from __future__ import annotations

import hashlib

from aprender.falsify.probe import Observation, probe
from aprender.parity.record import StageRecord
from aprender.transformer.cuda.ops.blocks import small_tiles
from falsifiers.cuda_operator_defects import DEFECTS
from falsifiers.cuda_operator_system import (
    LARGEST,
    OPERATORS,
    Direction,
    OperatorsUnderContract,
    operator_kinds,
)
from falsifiers.threads import on_one_thread

# Residual additions are exact, and so is the embedding's forward: their elements are compared bit by bit.
RATIOS = {
    "Embedding": "embedding_ratio",
    "Linear": "linear_ratio",
    "FusedLinear": "linear_ratio",
    "RMSNorm": "norm_ratio",
    "AddRMSNorm": "norm_ratio",
    "Rope": "rope_ratio",
    "Attention": "attention_ratio",
    "SwiGLU": "swiglu_ratio",
    "LinearCrossEntropy": "loss_ratio",
}

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
    "detection_limit": "envelopes",
    "detection_limit_size": "",
}


@probe(system=OPERATORS, observes=_OBSERVED, defects=DEFECTS)
@small_tiles()
@on_one_thread
def forward(system: OperatorsUnderContract, *, dtype: str) -> Observation:
    """The output of every operator, fed the oracle's inputs, over what honest rounding may change; ratios up to 1 are.

    ``elements_differing`` counts the elements, in any bit, of outputs that admit no rounding of their own.
    ``inconclusive`` are tensors that could not be compared, or that could not have failed. ``detection_limit`` is the
    smallest error of one element that makes a ratio exceed 1, in the tensor and at the place where it shows least.
    """
    return _observation(system, dtype, "forward")


@probe(system=OPERATORS, observes=_OBSERVED, defects=DEFECTS)
@small_tiles()
@on_one_thread
def backward(system: OperatorsUnderContract, *, dtype: str) -> Observation:
    """As ``forward``: every gradient of every operator, by inputs, weights and biases, of a random cotangent."""
    return _observation(system, dtype, "backward")


@probe(system=OPERATORS, observes=_OBSERVED, defects=DEFECTS)
@small_tiles()
@on_one_thread
def both(system: OperatorsUnderContract, *, dtype: str) -> Observation:
    """``forward`` and ``backward`` in one."""
    return _observation(system, dtype, "forward", "backward")


def _observation(system: OperatorsUnderContract, dtype: str, *directions: Direction) -> Observation:
    ratios = dict.fromkeys(RATIOS.values(), 0.0)
    kinds, failed, records = set[str](), set[str](), list[StageRecord]()
    state = hashlib.sha256()
    for case, outcome in (pair for direction in directions for pair in system.compared(dtype, direction)):
        state.update(outcome.digest.encode())
        records += outcome.records
        wrong = any(record.verdict == "ERROR" for record in outcome.records)
        (failed if wrong or not outcome.records else kinds).add(case.kind)
        found = [r.ratio for r in outcome.records if r.verdict != "ERROR" and r.statistic != "bitwise"]
        if found:
            name = RATIOS[case.kind]
            ratios[name] = max(ratios[name], min(max(found), LARGEST))
    limit = max(system.detection_limit(dtype, direction) for direction in directions)
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
        "detection_limit": min(limit.envelopes, LARGEST),
        "detection_limit_size": min(limit.size, LARGEST),
    }
    return Observation(values, state.hexdigest())

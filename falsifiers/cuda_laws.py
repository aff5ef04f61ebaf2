"""Probes of FALSIFY-CUDA-LAWS-001 ... -004: what must hold of the CUDA path's stages whatever their numbers are."""

from __future__ import annotations

import hashlib
import math

from aprender.falsify.probe import Observation, probe
from aprender.transformer.cuda.ops.blocks import small_tiles
from falsifiers import (
    cuda_laws_attention,
    cuda_laws_attention_backward,
    cuda_laws_backward,
    cuda_laws_defects,
    cuda_laws_memory,
    cuda_laws_positions,
    cuda_laws_stages,
)
from falsifiers.cuda_laws_system import STAGES, Checked, Laws, LawsUnderContract
from falsifiers.threads import on_one_thread

LARGEST = 1e12  # stands for all that is larger
FORWARD = Laws([*cuda_laws_attention.LAWS, *cuda_laws_stages.LAWS])
BACKWARD = Laws([*cuda_laws_attention_backward.LAWS, *cuda_laws_backward.LAWS])
DEFECTS = cuda_laws_defects.DEFECTS


def observed_by(laws: Laws) -> dict[str, str]:
    """The names and units of what a probe of ``laws`` returns."""
    names = {law.observed: "" if law.observed.endswith("_ratio") else "elements" for law in laws}
    return names | {"laws_checked": "laws", "elements_compared": "elements"}


@probe(system=STAGES, observes=observed_by(FORWARD), defects=DEFECTS)
@small_tiles()
@on_one_thread
def forward(system: LawsUnderContract) -> Observation:
    """Elements that differ from what a law says, and the largest error over what rounding may change, by subject.

    A law that could not have failed on what a stage returned counts as broken in all its elements.
    """
    return _observation(system, FORWARD)


@probe(system=STAGES, observes=observed_by(BACKWARD), defects=DEFECTS)
@small_tiles()
@on_one_thread
def backward(system: LawsUnderContract) -> Observation:
    """As ``forward``, of gradients."""
    return _observation(system, BACKWARD)


@probe(system=STAGES, observes=observed_by(cuda_laws_memory.LAWS), defects=DEFECTS)
@small_tiles()
@on_one_thread
def memory(system: LawsUnderContract) -> Observation:
    """As ``forward``: repeated runs, poisoned and guarded memory, inputs, aliases, and the kernels that ran."""
    return _observation(system, cuda_laws_memory.LAWS)


@probe(system=STAGES, observes=observed_by(cuda_laws_positions.LAWS), defects=DEFECTS)
@small_tiles()
@on_one_thread
def positions(system: LawsUnderContract) -> Observation:
    """As ``forward``: rotation and attention at long positions against float64, and beyond the tables."""
    return _observation(system, cuda_laws_positions.LAWS)


def _observation(system: LawsUnderContract, laws: Laws) -> Observation:
    values: dict[str, float | int] = dict.fromkeys(observed_by(laws), 0)
    state = hashlib.sha256()
    for checked in system.checked(laws):
        state.update(checked.digest.encode())
        name, record = checked.law.observed, checked.record
        if name.endswith("_ratio"):
            values[name] = max(values[name], _ratio(checked))
        else:
            values[name] += record.compared if record.vacuous else record.differing
        values["laws_checked"] += 1
        values["elements_compared"] += record.compared
    return Observation(values, state.hexdigest())


def _ratio(checked: Checked) -> float:
    record = checked.record
    ratio = record.largest / record.allowed
    return LARGEST if record.vacuous or not math.isfinite(ratio) else min(ratio, LARGEST)

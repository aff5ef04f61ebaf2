"""The contract of the CUDA path's laws: every planted defect is declared and undone, and a law can fail.

That every declared defect turns its falsifier RED is what ``pv run`` proves; here a few of each kind are, and one that
nobody planted.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aprender.contracts.load import load
from aprender.falsify.judge import Judgement, judge
from aprender.falsify.probe import Observation, Options, Probe
from aprender.falsify.verdict import Verdict
from falsifiers.cuda_laws_system import STAGES, Laws, LawsUnderContract
from falsifiers.cuda_operator_planting import WrongForward
from falsifiers.cuda_operator_system import operator_kinds

ROOT = Path(__file__).parents[2]
(CONTRACT,) = load([ROOT / "contracts/cuda-laws-v1.yaml"]).contracts
FALSIFIERS = {falsifier.id[-3:]: falsifier for falsifier in CONTRACT.falsifiers}
DECLARED = {(number, defect.name): defect for number, f in FALSIFIERS.items() for defect in f.defect_classes}
LAWS: dict[str, Laws] = {
    "001": import_module("falsifiers.cuda_laws").FORWARD,
    "002": import_module("falsifiers.cuda_laws").BACKWARD,
    "003": import_module("falsifiers.cuda_laws_memory").LAWS,
    "004": import_module("falsifiers.cuda_laws_positions").LAWS,
}

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled for CUDA in this process")


def probe_of(number: str) -> Probe:
    module, _, name = str(FALSIFIERS[number].probe).partition(":")
    probe: Probe = getattr(import_module(module), name)
    return probe


def observe(number: str, system: LawsUnderContract) -> Observation:
    return probe_of(number).function(system, **FALSIFIERS[number].arguments)


def judged(number: str, observation: Observation) -> Judgement:
    return judge(FALSIFIERS[number], observation.values, probe_of(number).observes)


@pytest.fixture(scope="module")
def system() -> LawsUnderContract:
    return STAGES.open(Options("cpu", None))


@pytest.fixture(scope="module")
def clean(system: LawsUnderContract) -> dict[str, Observation]:
    return {number: observe(number, system) for number in FALSIFIERS}


@pytest.mark.parametrize("number", FALSIFIERS)
def test_the_laws_hold(number: str, clean: dict[str, Observation]) -> None:
    """Nothing is planted: every expectation and guard holds."""
    judgement = judged(number, clean[number])
    assert judgement.verdict is Verdict.GREEN, judgement.reason


def test_observing_twice_gives_the_same_bits(system: LawsUnderContract, clean: dict[str, Observation]) -> None:
    """Otherwise no defect could be called inert."""
    assert observe("004", system) == clean["004"]


def test_every_declared_class_is_planted_and_none_is_left_undeclared() -> None:
    """Each has its own story, and is declared once with the expectation that it breaks."""
    planted = probe_of("001").defects
    assert sorted(planted) == sorted(name for _, name in DECLARED)
    assert all(defect.story for defect in planted.values())
    assert all(defect.violates for defect in DECLARED.values())
    assert len(planted) >= 120


def test_planting_changes_the_system_and_undoing_it_changes_it_back(system: LawsUnderContract) -> None:
    """For every defect there is."""
    before = system.fingerprint()
    for name, defect in probe_of("001").defects.items():
        with defect.plant(system):
            assert system.fingerprint() != before, name
        assert system.fingerprint() == before, name


SAMPLE = {
    "001": ("mask_multiplies", "tf32_on", "order_of_sums_depends_on_the_batch", "scale_off_by_a_thousandth"),
    "002": ("backward_mask_aligned_to_the_first_key", "repeated_tokens_beyond_a_tile_dropped"),
    "003": ("stale_result_where_it_looks_right", "greatest_score_not_initialised", "tile_written_before_the_start"),
    "004": ("rope_positions_in_int16", "rope_angles_in_float32", "mask_positions_in_float16"),
}


@pytest.mark.parametrize(("number", "name"), [(n, name) for n, names in SAMPLE.items() for name in names])
def test_a_planted_defect_is_red_for_the_declared_reason(
    number: str, name: str, system: LawsUnderContract, clean: dict[str, Observation]
) -> None:
    """Every expectation that its class names is broken."""
    with probe_of(number).defects[name].plant(system):
        judgement = judged(number, observe(number, system))
    assert judgement.verdict is Verdict.RED, judgement.reason
    assert set(DECLARED[number, name].violates) <= {e.text for e in judgement.expectations if not e.holds}


def test_every_operator_has_a_law_in_each_direction_and_of_memory(system: LawsUnderContract) -> None:
    """The operators are asked of the package: a new one without a law fails here."""
    for number in ("001", "002", "003"):
        looked_at = {type(system.right["float32", name]).__name__ for law in LAWS[number] for name in law.stages}
        missing = operator_kinds() - looked_at
        assert not missing, (number, missing)


def test_a_law_that_could_not_have_failed_is_broken(system: LawsUnderContract) -> None:
    """A rotation that never turns keeps all scores: it must not pass for one that is right."""

    def still(right: Any, x: Tensor, positions: Tensor) -> Tensor:
        return x.clone()

    key = ("float32", "rope")
    with system.replaced({key: WrongForward(system.stages[key], still)}):
        observation = observe("001", system)
    assert observation.values["rope_ratio"] == 1e12
    assert judged("001", observation).verdict is Verdict.RED

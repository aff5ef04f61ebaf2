"""The contract of weight loading: GREEN when right, RED for every declared class for the declared reason, and undone."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from aprender.contracts.contract import DefectClass, Falsifier
from aprender.contracts.load import load
from aprender.falsify.judge import Judgement, judge
from aprender.falsify.probe import Options, Probe
from aprender.falsify.verdict import Verdict
from falsifiers.weight_defects import DEFECTS
from falsifiers.weight_system import WEIGHT_LOADING, WeightLoading

ROOT = Path(__file__).parents[2]
(CONTRACT,) = load([ROOT / "contracts/weight-loading-v1.yaml"]).contracts
PLANTED = [(falsifier, defect) for falsifier in CONTRACT.falsifiers for defect in falsifier.defect_classes]


@pytest.fixture(scope="module")
def system() -> WeightLoading:
    return WEIGHT_LOADING.open(Options("cpu", None))


def probe_of(falsifier: Falsifier) -> Probe:
    module, _, name = str(falsifier.probe).partition(":")
    probe: Probe = getattr(import_module(module), name)
    return probe


def judged(falsifier: Falsifier, system: WeightLoading) -> Judgement:
    probe = probe_of(falsifier)
    return judge(falsifier, probe.function(system, **falsifier.arguments).values, probe.observes)


@pytest.mark.parametrize("falsifier", CONTRACT.falsifiers, ids=lambda falsifier: falsifier.id[-3:])
def test_the_clean_system_is_green_and_observed_the_same_twice(falsifier: Falsifier, system: WeightLoading) -> None:
    """Bit for bit: otherwise no defect could be called inert."""
    function = probe_of(falsifier).function
    assert judged(falsifier, system).verdict is Verdict.GREEN
    assert function(system, **falsifier.arguments) == function(system, **falsifier.arguments)


@pytest.mark.parametrize(("falsifier", "defect"), PLANTED, ids=[f"{f.id[-3:]}-{d.name}" for f, d in PLANTED])
def test_every_declared_class_turns_it_red_for_the_declared_reason_and_is_undone(
    falsifier: Falsifier, defect: DefectClass, system: WeightLoading
) -> None:
    """The expectations under ``violates`` are among the broken ones, and afterwards every name is what it was."""
    before = system.fingerprint()
    with DEFECTS[defect.name].plant(system):
        assert system.fingerprint() != before
        judgement = judged(falsifier, system)
    assert system.fingerprint() == before
    assert judgement.verdict is Verdict.RED, judgement.reason
    assert set(defect.violates) <= {e.text for e in judgement.expectations if not e.holds}
    assert defect.violates


def test_every_planted_defect_is_declared() -> None:
    """A planted defect that no falsifier declares would prove nothing."""
    assert set(DEFECTS) == {defect.name for _, defect in PLANTED}
    assert all(defect.story for defect in DEFECTS.values())

"""The oracle's contract: GREEN when right, every declared defect planted and undone, one wrong element seen, NaN an error.

That every declared defect turns its falsifier RED is what ``pv run`` proves; here a few of each kind are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aprender.contracts.contract import DefectClass
from aprender.contracts.load import load
from aprender.errors import AprenderError
from aprender.falsify.cache import ObservationCache
from aprender.falsify.judge import Judgement, judge
from aprender.falsify.probe import Observation, Options, Probe
from aprender.falsify.run import Runner
from aprender.falsify.verdict import Verdict
from aprender.transformer.oracle import Oracle, layer, operators
from falsifiers import oracle_reference_parity, oracle_system
from falsifiers.oracle_defects import DEFECTS
from falsifiers.oracle_system import ORACLE, OracleUnderContract

ROOT = Path(__file__).parents[2]
(CONTRACT,) = load([ROOT / "contracts/oracle-reference-parity-v1.yaml"]).contracts
FALSIFIERS = {falsifier.id[-3:]: falsifier for falsifier in CONTRACT.falsifiers}
DECLARED = {(number, defect.name): defect for number, f in FALSIFIERS.items() for defect in f.defect_classes}


@pytest.fixture(scope="module")
def system() -> OracleUnderContract:
    return ORACLE.open(Options("cpu", None))


def observe(number: str, system: OracleUnderContract) -> Observation:
    falsifier = FALSIFIERS[number]
    probe: Probe = getattr(oracle_reference_parity, str(falsifier.probe).partition(":")[2])
    return probe.function(system, **falsifier.arguments)


def judged(number: str, system: OracleUnderContract) -> Judgement:
    falsifier = FALSIFIERS[number]
    probe: Probe = getattr(oracle_reference_parity, str(falsifier.probe).partition(":")[2])
    return judge(falsifier, observe(number, system).values, probe.observes)


@pytest.mark.parametrize("number", FALSIFIERS)
def test_the_oracle_is_green_and_observed_the_same_twice(number: str, system: OracleUnderContract) -> None:
    """Bit for bit: otherwise no defect could be called inert."""
    judgement = judged(number, system)
    assert judgement.verdict is Verdict.GREEN, judgement.reason
    assert observe(number, system) == observe(number, system)


def test_every_declared_class_is_planted_and_none_is_left_undeclared() -> None:
    """What is planted by nobody's declaration would be dead code."""
    assert set(DEFECTS) == {name for _, name in DECLARED}
    assert all(defect.story for defect in DEFECTS.values())
    assert all(defect.violates for defect in DECLARED.values())


@pytest.mark.parametrize("name", DEFECTS)
def test_planting_changes_the_oracle_and_undoing_it_changes_it_back(name: str, system: OracleUnderContract) -> None:
    """Except where the configuration's own class is what is replaced."""
    before = system.fingerprint()
    with DEFECTS[name].plant(system):
        assert (system.fingerprint() != before) == (name != "a_field_nobody_perturbs")
    assert system.fingerprint() == before


@pytest.mark.parametrize(
    ("number", "name"),
    [
        ("001", "softmax_scale_off_by_a_thousandth"),
        ("001", "padding_is_attended"),
        ("002", "second_gradient_of_a_tensor_replaces_the_first"),
        ("003", "window_one_too_wide"),
        ("004", "cached_padding_attended"),
        ("005", "head_untied_wherever_there_is_one"),
    ],
)
def test_a_planted_defect_is_red_for_the_declared_reason(number: str, name: str, system: OracleUnderContract) -> None:
    """Every expectation that its class names is broken."""
    defect: DefectClass = DECLARED[number, name]
    with DEFECTS[name].plant(system):
        judgement = judged(number, system)
    assert judgement.verdict is Verdict.RED, judgement.reason
    assert set(defect.violates) <= {e.text for e in judgement.expectations if not e.holds}


def _in_the_last_layer(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    right = layer.forward

    def forward(weights: Any, *arguments: Any) -> Any:
        trace = right(weights, *arguments)
        return replace(trace, out_BTD=change(trace.out_BTD.clone())) if "layers.1." in weights.prefix else trace

    return forward


@pytest.mark.parametrize("place", [(0, 0, 0), (1, 247, 40), (0, 306, 17)], ids=["first", "last row", "last position"])
def test_one_wrong_element_is_red(place: tuple[int, ...], system: OracleUnderContract) -> None:
    """A single element of one hidden state, off by a hundred-thousandth of itself."""

    def corrupt(x_BTD: Tensor) -> Tensor:
        if x_BTD.shape[1] == 307 and x_BTD.shape[2] == 60:
            x_BTD[place] += 1e-5 * x_BTD[place].abs().clamp(min=1)
        return x_BTD

    with system.replaced(layer, "forward", _in_the_last_layer(corrupt)):
        judgement = judged("001", system)
    assert judgement.verdict is Verdict.RED
    assert "hidden_error" in judgement.reason


@pytest.mark.parametrize("candidate", ["zeros", "constant", "rows swapped"])
def test_null_candidates_are_red(candidate: str, system: OracleUnderContract) -> None:
    """Logits of nothing, of the mean, and of the other row."""
    right = Oracle.logits

    def null(oracle: Oracle, batch: Any) -> Tensor:
        logits_BTV = right(oracle, batch)
        match candidate:
            case "zeros":
                return torch.zeros_like(logits_BTV)
            case "constant":
                return logits_BTV.mean((0, 1), keepdim=True).expand_as(logits_BTV)
            case _:
                return logits_BTV.flip(0)

    with system.replaced(Oracle, "logits", null):
        judgement = judged("001", system)
    assert judgement.verdict is Verdict.RED
    assert "logits_error" in judgement.reason


@pytest.mark.parametrize(("number", "owner", "name"), [("001", operators, "swiglu"), ("002", operators, "embed_vjp")])
def test_one_nan_anywhere_is_error(number: str, owner: Any, name: str, system: OracleUnderContract) -> None:
    """Python's max() would lose it."""
    right = getattr(owner, name)

    def poisoned(*arguments: Any) -> Tensor:
        result: Tensor = right(*arguments).clone()
        result[-1, 0] = torch.nan
        return result

    with system.replaced(owner, name, poisoned):
        judgement = judged(number, system)
    assert judgement.verdict is Verdict.ERROR
    assert "is nan: not a finite number" in judgement.reason


def test_without_the_third_party_the_verdict_is_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was compared: not GREEN, and not SKIPPED either, since the contract does not declare it away."""
    monkeypatch.setattr(oracle_system, "find_spec", lambda name: None)
    monkeypatch.setattr(ObservationCache, "get", lambda *arguments: None)  # what was seen before is not asked
    run = Runner(Options("cpu", None)).run(CONTRACT, FALSIFIERS["004"])
    assert run.verdict is Verdict.ERROR
    assert "transformers, is not installed; run: pip install 'aprender[dev]'" in run.reason


def test_a_case_that_there_is_not_is_named(system: OracleUnderContract) -> None:
    """And no case at all is no measurement."""
    with pytest.raises(AprenderError, match="no case called 'qwen9'; there are qwen2, "):
        system.cases(["qwen2", "qwen9"])
    with pytest.raises(AprenderError, match="no case is named"):
        system.cases([])

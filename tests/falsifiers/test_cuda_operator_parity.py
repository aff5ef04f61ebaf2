"""The contract of the CUDA path's operators: GREEN when right, RED for the declared reason, undone, NaN an error.

That every declared defect turns its falsifier RED is what ``pv run`` proves; here one or two of each kind are.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aprender.contracts.load import load
from aprender.errors import AprenderError
from aprender.falsify.judge import Judgement, judge
from aprender.falsify.probe import Observation, Options, Probe
from aprender.falsify.verdict import Verdict
from aprender.faults import DeviceFault
from aprender.parity.controls import places
from aprender.parity.stages import as_tuple
from aprender.transformer.cuda.ops.runtime import launch
from falsifiers.cuda_operator_cases import SEED
from falsifiers.cuda_operator_planting import WrongForward
from falsifiers.cuda_operator_system import OPERATORS, OperatorsUnderContract, operator_kinds
from falsifiers.cuda_optimizer_parity import ROUNDINGS
from tests.broken_kernels import unlike_shapes

ROOT = Path(__file__).parents[2]
(CONTRACT,) = load([ROOT / "contracts/cuda-operator-parity-v1.yaml"]).contracts
FALSIFIERS = {falsifier.id[-3:]: falsifier for falsifier in CONTRACT.falsifiers}
DECLARED = {(number, defect.name): defect for number, f in FALSIFIERS.items() for defect in f.defect_classes}

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled for CUDA in this process")


@dataclass(frozen=True)
class Clean:
    """The system, and what each falsifier first observed of it."""

    system: OperatorsUnderContract
    seen: dict[str, Observation]


def probe_of(number: str) -> Probe:
    module, _, name = str(FALSIFIERS[number].probe).partition(":")
    probe: Probe = getattr(import_module(module), name)
    return probe


def observe(number: str, system: OperatorsUnderContract) -> Observation:
    return probe_of(number).function(system, **FALSIFIERS[number].arguments)


def judged(number: str, observation: Observation) -> Judgement:
    return judge(FALSIFIERS[number], observation.values, probe_of(number).observes)


@pytest.fixture(scope="module")
def clean() -> Clean:
    system = OPERATORS.open(Options("cpu", None))
    return Clean(system, {number: observe(number, system) for number in FALSIFIERS})


@pytest.mark.parametrize("number", FALSIFIERS)
def test_the_operators_are_green(number: str, clean: Clean) -> None:
    """Nothing is planted: every expectation and guard holds."""
    judgement = judged(number, clean.seen[number])
    assert judgement.verdict is Verdict.GREEN, judgement.reason


@pytest.mark.parametrize("number", ["002", "004"])
def test_observing_twice_gives_the_same_bits(number: str, clean: Clean) -> None:
    """Otherwise no defect could be called inert."""
    assert observe(number, clean.system) == clean.seen[number]


def test_every_declared_class_is_planted_and_none_is_left_undeclared() -> None:
    """What is planted by nobody's declaration would be dead code."""
    planted = {name: defect for number in FALSIFIERS for name, defect in probe_of(number).defects.items()}
    assert set(planted) == {name for _, name in DECLARED}
    assert all(defect.story for defect in planted.values())
    assert all(defect.violates for defect in DECLARED.values())
    assert len(planted) >= 60


def test_planting_changes_the_system_and_undoing_it_changes_it_back(clean: Clean) -> None:
    """For every defect there is."""
    before = clean.system.fingerprint()
    for number in FALSIFIERS:
        for name, defect in probe_of(number).defects.items():
            with defect.plant(clean.system):
                assert clean.system.fingerprint() != before, name
            assert clean.system.fingerprint() == before, name


SAMPLE = {
    "001": ("bias_dropped", "softmax_scale_off_by_a_thousandth", "rope_positions_in_bfloat16", "logits_in_bfloat16"),
    "002": ("gqa_gradient_of_one_head_only", "bias_gradient_lost", "repeated_tokens_counted_once"),
    "003": ("partial_sums_in_bfloat16", "rms_norm_divides_by_n_minus_one", "weight_gradient_in_bfloat16"),
    "004": ("second_moment_in_bfloat16", "clipping_by_the_first_tensors_norm"),
}


@pytest.mark.parametrize(
    ("number", "name"), [(n, name) for n, names in SAMPLE.items() if n in FALSIFIERS for name in names]
)
def test_a_planted_defect_is_red_for_the_declared_reason(number: str, name: str, clean: Clean) -> None:
    """Every expectation that its class names is broken, and afterwards nothing is."""
    with probe_of(number).defects[name].plant(clean.system):
        observation = observe(number, clean.system)
    judgement = judged(number, observation)
    assert judgement.verdict is Verdict.RED, judgement.reason
    assert set(DECLARED[number, name].violates) <= {e.text for e in judgement.expectations if not e.holds}
    assert observation.output_digest != clean.seen[number].output_digest or "lost" in name


def test_the_detection_limit_is_that_of_one_element(clean: Clean) -> None:
    """Tried, and no blunter than the guards of the contract; twice as much is seen in the operator's own output."""
    for number, observation in clean.seen.items():
        assert 0 < observation.values["detection_limit"] <= 2, number
        assert observation.values["detection_limit_size"] > 0, number
    limit = clean.system.detection_limit("float32", "forward")
    (stage, tensor), place = limit.where.partition(",")[0].split(" ", 1), limit.where.partition(", ")[2]
    assert tensor.startswith("output")
    key, number = ("float32", stage), tensor.removeprefix("output").strip()
    at = places(clean.system._kept[key]["forward"].yardsticks.of[tensor], SEED)[place]

    def off(right: Any, *inputs: Tensor) -> Any:
        outputs = [y.clone() for y in as_tuple(right(*inputs))]
        y = outputs[int(number or 0)]
        y[at] += 2 * limit.size * y[at].sign()
        return tuple(outputs) if number else outputs[0]

    with clean.system.replaced({key: WrongForward(clean.system.stages[key], off)}):
        assert judged("001", observe("001", clean.system)).verdict is Verdict.RED


def _hungry(right: Any, *inputs: Tensor) -> Tensor:
    return torch.empty(2**50, dtype=torch.uint8)


def _broken(right: Any, *inputs: Tensor) -> Tensor:
    launch(unlike_shapes, (1,), inputs[0])
    return inputs[0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (_hungry, "swiglu in float32, forward: out of memory (1125899906842624 bytes were asked for)"),
        (_broken, "swiglu in float32, forward: launching triton-interpreter:unlike_shapes: the kernel fails in"),
    ],
)
def test_a_machine_that_fails_is_no_wrong_operator(wrong: Any, said: str, clean: Clean) -> None:
    """Neither RED nor a tensor that could not be compared: the probe says what to do, and the run calls it ERROR."""
    key = "float32", "swiglu"
    planted = clean.system.replaced({key: WrongForward(clean.system.stages[key], wrong)})
    with planted, pytest.raises(DeviceFault) as caught:
        observe("001", clean.system)
    assert str(caught.value).startswith(said)


def test_the_optimizers_limit_is_in_the_roundings_that_the_contract_allows() -> None:
    """What the probe counts and what the contract expects are the same numbers."""
    allowed = {e.text.partition("_")[0]: float(e.text.split()[-1]) for e in FALSIFIERS["004"].expectations[:3]}
    assert allowed == ROUNDINGS


def _one_off(right: Any, *inputs: Tensor) -> Any:
    *others, last = as_tuple(right(*inputs))
    y = last.clone()
    y.view(-1)[-1] += 1e-4 * y.abs().max()
    return (*others, y) if others else y


@pytest.mark.parametrize("stage", ["o_proj", "qkv_proj", "k_norm", "rope_k", "attention_decode", "swiglu"])
def test_one_wrong_element_is_red(stage: str, clean: Clean) -> None:
    """The last element of one output, off by a ten-thousandth of the largest."""
    key = ("float32", stage)
    with clean.system.replaced({key: WrongForward(clean.system.stages[key], _one_off)}):
        judgement = judged("001", observe("001", clean.system))
    assert judgement.verdict is Verdict.RED, judgement.reason


def test_a_nan_is_inconclusive_and_never_green(clean: Clean) -> None:
    """What can't be compared is counted, whatever the ratios of the rest are."""
    key = ("float32", "rope_k")
    with clean.system.replaced({key: WrongForward(clean.system.stages[key], lambda right, *x: right(*x) * torch.nan)}):
        observation = observe("001", clean.system)
    assert observation.values["inconclusive"] == 1
    assert judged("001", observation).verdict is Verdict.RED


def test_every_operator_is_expected_and_a_dtype_without_any_is_named(clean: Clean) -> None:
    """The number of operators comes from the package, not from the cases."""
    assert operator_kinds() == {case.kind for case in clean.system.cases.values()}
    with pytest.raises(AprenderError, match="no operators in 'float16'; there are float32, bfloat16"):
        list(clean.system.compared("float16", "forward"))

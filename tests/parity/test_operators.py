"""The engine on our oracle's operators: honest torch implementations stay GREEN, classic defects go RED at their stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
import torch

from aprender.parity.compare import compare_stage
from aprender.parity.record import Comparison
from aprender.parity.stages import Candidate, Differentiated, ReferenceStage
from aprender.parity.teacher_forced import teacher_forced
from tests.parity.operators_in_torch import STAGES, Draw, honest
from tests.parity.planted import PLANTED, Function, stages
from tests.parity.planted import honest as right_functions
from tests.parity.planted_backward import PLANTED_BACKWARD

DTYPES = (torch.float32, torch.bfloat16)
CLEAN_SEEDS = range(5000, 5012)  # not the calibration's; x 9 operators x 2 dtypes: 216 clean stages


def candidate_of(stage: ReferenceStage, function: Function) -> Differentiated:
    return Differentiated(function, stage.parameters, stage.constants | stage.masks)


class Layer:
    """The planted stages as a reference, and one candidate for each."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.made = {name: stage for name, (_, stage) in stages(dtype).items()}

    @property
    def names(self) -> Sequence[str]:
        return list(self.made)

    def stages(self) -> Iterator[ReferenceStage]:
        return iter(self.made.values())

    def candidates(self, changed: Mapping[str, Candidate] | None = None) -> dict[str, Candidate]:
        functions = right_functions(torch.float32)
        clean: dict[str, Candidate] = {name: candidate_of(self.made[name], functions[name]) for name in self.made}
        return clean | dict(changed or {})


@pytest.mark.parametrize("operator", STAGES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_honest_implementations_raise_no_alarm(operator: str, dtype: torch.dtype) -> None:
    """Uneven and prime shapes, either honest implementation, forward and backward."""
    for seed in CLEAN_SEEDS:
        stage = STAGES[operator](Draw(seed, dtype))
        comparison = compare_stage(stage, candidate_of(stage, honest(operator, seed)))
        first = comparison.first
        assert comparison.verdict == "GREEN", (
            seed,
            first and (first.tensor, first.statistic, first.ratio, first.reason),
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_clean_layer_is_green_forward_and_backward(dtype: torch.dtype) -> None:
    layer = Layer(dtype)
    comparison = teacher_forced(layer, layer.candidates())
    assert comparison.verdict == "GREEN"
    assert {record.stage for record in comparison.records} == set(layer.names)
    assert sum(record.direction == "backward" for record in comparison.records) >= len(layer.names)


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def layer(request: pytest.FixtureRequest) -> Layer:
    return Layer(request.param)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_forward_defects_are_red(name: str, layer: Layer) -> None:
    """In bfloat16 too, unless the defect only rounds to bfloat16: then it must be bit for bit the same there."""
    planted = PLANTED[name]
    stage = layer.made[planted.stage]
    (record,) = compare_stage(stage, candidate_of(stage, planted.function), backward=False).records
    if planted.float32_only and record.dtype == "bfloat16":
        right = candidate_of(stage, right_functions(torch.float32)[planted.stage])(*stage.inputs)
        wrong = candidate_of(stage, planted.function)(*stage.inputs)
        assert isinstance(right, torch.Tensor)
        assert isinstance(wrong, torch.Tensor)
        assert record.verdict == "RED" or torch.equal(right, wrong)
    else:
        assert record.verdict == "RED", (record.ratio, record.reason)


@pytest.mark.parametrize("name", PLANTED_BACKWARD)
def test_planted_backward_defects_are_red_in_the_right_tensor(name: str, layer: Layer) -> None:
    """The forward pass is right; the gradient that is wrong is named, and the others stay GREEN."""
    planted = PLANTED_BACKWARD[name]
    stage = layer.made[planted.stage]
    right = candidate_of(stage, right_functions(torch.float32)[planted.stage])
    comparison = compare_stage(stage, planted.wrong(right))
    red = {record.tensor for record in comparison.records if record.verdict == "RED"}
    assert red == set(planted.tensors)


@pytest.mark.parametrize(
    "name", ["F1 bias dropped", "F34 GQA map h % kv", "F64 eps x10", "F82 quick GELU", "F133 logits x1.1"]
)
def test_the_first_red_stage_is_the_defective_one(name: str, layer: Layer) -> None:
    """All stages in one pass: one is named, the others stay GREEN."""
    planted = PLANTED[name]
    changed: dict[str, Candidate] = {planted.stage: candidate_of(layer.made[planted.stage], planted.function)}
    comparison = teacher_forced(layer, layer.candidates(changed), backward=False)
    first = comparison.first
    assert first is not None
    assert first.stage == planted.stage
    assert [record.stage for record in comparison.records if record.verdict != "GREEN"] == [planted.stage]


def test_several_defects_are_seen_at_once(layer: Layer) -> None:
    names = ("F4 bias added twice", "F92 branch x1.01", "F83 up dropped")
    changed: dict[str, Candidate] = {
        PLANTED[name].stage: candidate_of(layer.made[PLANTED[name].stage], PLANTED[name].function) for name in names
    }
    comparison = teacher_forced(layer, layer.candidates(changed), backward=False)
    red = [record.stage for record in comparison.records if record.verdict == "RED"]
    assert red == ["q_proj", "residual", "swiglu"]


def test_the_smallest_reproducer_is_small_and_names_its_seed(layer: Layer) -> None:
    """A missing causal mask needs a second position to show, and no more."""
    stage = replace(layer.made["attention"], seed=7)
    wrong = candidate_of(stage, PLANTED["F52 causal mask missing"].function)
    one = type("One", (), {"names": ["attention"], "stages": lambda self: iter([stage])})()
    comparison: Comparison = teacher_forced(one, {"attention": wrong}, backward=False)
    found = comparison.records[0].reproducer
    assert found is not None
    assert found.seed == 7
    assert found.rows[1] - found.rows[0] == 1
    assert found.positions[1] - found.positions[0] == 2
    assert found.shapes[0] == (1, 2, 14, 18)
    assert found.ratio > 1

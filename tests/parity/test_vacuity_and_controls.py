"""What can't be compared is ERROR, what could not have failed is ERROR, and every output control must hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.parity import calibration
from aprender.parity.calibration import Calibration
from aprender.parity.compare import compare_stage
from aprender.parity.controls import CORRUPTION, corrupted, least_visible, output_controls, places, smallest
from aprender.parity.envelope import Envelope
from aprender.parity.names import check_names
from aprender.parity.record import Comparison, StageRecord
from aprender.parity.slope import slopes
from aprender.parity.stages import Differentiated, Operator, ReferenceStage
from aprender.parity.yardstick import of_outputs
from falsifiers import oracle_stages
from tests.parity.operators_in_torch import EPS, HONEST, STAGES, Draw

DTYPES = (torch.float32, torch.bfloat16)


def verdict(stage: ReferenceStage, candidate: Callable[..., Any]) -> StageRecord:
    return compare_stage(stage, candidate, backward=False).records[0]


def linear(dtype: torch.dtype = torch.float32, **changes: Any) -> ReferenceStage:
    return replace(STAGES["linear"](Draw(3, dtype)), **changes)


def right(stage: ReferenceStage) -> Tensor:
    weight, bias = stage.parameters["weight"], stage.parameters["bias"]
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    return torch.nn.functional.linear(stage.inputs[0], weight, bias)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y: y[:, :-1], "has shape"),
        (lambda y: y.double(), "is torch.float64"),
        (lambda y: y * math.nan, "NaN or infinite"),
        (lambda y: y.index_fill(-1, torch.tensor([0]), math.inf), "NaN or infinite"),
        (lambda y: (y, y), "no tensor 'output'"),
        (lambda y: "not a tensor", "TypeError"),
        (lambda y: 1 // 0, "ZeroDivisionError"),
    ],
)
def test_what_does_not_compare_is_an_error_with_its_reason(change: Callable[[Tensor], Any], said: str) -> None:
    stage = linear()
    record = verdict(stage, lambda x: change(right(stage)))
    assert record.verdict == "ERROR"
    assert said in record.reason


def test_nan_on_both_sides_is_an_error_not_agreement() -> None:
    stage = linear()
    stage = replace(stage, inputs=(stage.inputs[0] * math.nan,))
    record = verdict(stage, lambda x: right(stage))
    assert (record.verdict, record.reason) == ("ERROR", "input 0 of the reference is not finite")


def test_a_candidate_that_writes_into_its_input_is_an_error() -> None:
    stage = linear()

    def writes(x: Tensor) -> Tensor:
        y = right(stage)
        x.zero_()
        return y

    assert "writes into its input 0" in verdict(stage, writes).reason


def test_a_candidate_without_backward_is_an_error_where_backward_is_asked_for() -> None:
    stage = linear()
    comparison = compare_stage(stage, lambda x: right(stage))
    assert [record.reason for record in comparison.records if record.direction == "backward"] == [
        "the candidate has no backward"
    ]


def test_the_forward_pass_of_training_is_judged_too() -> None:
    """It may be another kernel than the one that is called."""
    stage = linear()

    class TwoRoads(Differentiated):
        def forward(self, *inputs: Tensor) -> tuple[Any, Any]:
            return self(*inputs) * 1.01, inputs  # type: ignore[operator]

    comparison = compare_stage(stage, TwoRoads(HONEST["linear"][0], stage.parameters))
    assert [r.tensor for r in comparison.records if r.verdict == "RED"] == ["output of forward()"]


def test_gradients_of_other_names_are_an_error_with_a_hint() -> None:
    stage = linear()
    renamed = {"weigth": stage.parameters["weight"], "bias": stage.parameters["bias"]}
    candidate = Differentiated(
        lambda inputs, p: torch.nn.functional.linear(inputs[0], p["weigth"], p["bias"]),  # type: ignore[arg-type]
        renamed,
    )
    reason = compare_stage(stage, candidate).records[-1].reason
    assert "'d_parameter weight' (did you mean 'd_parameter weigth'?)" in reason


def test_names_are_paired_before_anything_runs() -> None:
    with pytest.raises(AprenderError, match=r"no stage 'q_proj' \(did you mean 'qproj'\?\).*has no stage 'qproj'"):
        check_names(["q_proj", "norm"], ["qproj", "norm"])
    with pytest.raises(AprenderError, match="nothing to compare"):
        check_names([], [])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_bias_of_zero_is_inconclusive(dtype: torch.dtype) -> None:
    """As default-initialised test models have it: any treatment of the bias would pass."""
    d = Draw(4, dtype)
    x, weight = d.normal(2, 61, 48), d.normal(60, 48)
    stage = oracle_stages.linear("q", x, weight, torch.zeros(60, dtype=dtype))
    record = verdict(stage, lambda x: torch.nn.functional.linear(x, weight))
    assert record.verdict == "ERROR"
    assert "inconclusive" in record.reason
    assert "bias (" in record.reason


def test_an_eps_that_no_row_shows_is_inconclusive() -> None:
    d = Draw(4, torch.float32)
    stage = oracle_stages.rms_norm("norm", d.normal(2, 61, 48), 1 + d.normal(48, sd=0.3), 1e-9)
    record = verdict(stage, lambda x: HONEST["rms_norm"][0]((x,), stage.parameters))
    assert record.verdict == "ERROR"
    assert "eps (" in record.reason


def test_one_position_is_inconclusive_for_rope_and_attention() -> None:
    """At length 1, RoPE, scale, mask, Q and K have no effect at all."""
    d = Draw(5, torch.float32)
    d.T = 1
    for operator in ("rotate", "attend"):
        stage = STAGES[operator](d)
        function = HONEST[operator][0]
        record = verdict(stage, lambda *inputs, f=function, s=stage: f(inputs, s.parameters))
        assert record.verdict == "ERROR", operator
        assert "inconclusive" in record.reason


@pytest.mark.parametrize(
    ("z", "said"),
    [
        (torch.zeros(4, 8), "zero everywhere"),
        (torch.ones(4, 8), "constant"),
        (torch.cat((torch.ones(995), torch.rand(5))), "saturated"),
        (1e-37 * torch.randn(4, 8), "too small"),
    ],
)
def test_an_oracle_that_shows_nothing_is_inconclusive(z: Tensor, said: str) -> None:
    operator = Operator(lambda inputs, p: inputs[0] * 1)
    stage = ReferenceStage("op", (z,), {}, operator, {"plan": operator})
    record = verdict(stage, lambda x: x.clone())
    assert record.verdict == "ERROR"
    assert said in record.reason


def test_a_stage_without_a_rounding_plan_is_an_error() -> None:
    assert "no rounding plan" in verdict(linear(plans={}), lambda x: x).reason


def test_nothing_compared_is_an_error() -> None:
    assert Comparison(()).verdict == "ERROR"


def test_uncalibrated_statistics_are_reported_and_judge_nothing() -> None:
    stage = linear()
    empty = Calibration({}, {})
    record = compare_stage(stage, lambda x: right(stage) * 2, backward=False, calibration=empty).records[0]
    assert record.verdict == "ERROR"
    assert "no statistic is calibrated" in record.reason
    assert record.ratios["norm tensor"] > 1
    assert "norm tensor" in record.uncalibrated


def test_the_packaged_table_says_how_many_seeds_it_is_from() -> None:
    table = calibration.packaged()
    assert table.seeds["cpu"] >= calibration.LEAST_SEEDS
    assert set(table.largest["cpu"]) == {"float32", "bfloat16"}


@pytest.mark.parametrize("operator", STAGES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_output_control_holds_on_every_operator(operator: str, dtype: torch.dtype) -> None:
    """Zeros, a constant, a shuffled batch, the input itself and single elements are RED; the rounded oracle is GREEN."""
    stage = STAGES[operator](Draw(11, dtype))
    yardsticks = of_outputs(stage, calibration.packaged())
    for yardstick in yardsticks.of.values():
        controls = output_controls(yardstick, stage.inputs, seed=1)
        assert len(controls) >= 6
        assert [control.name for control in controls if not control.holds] == []
        assert sum(control.inert for control in controls) <= 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_detection_limit_of_one_element_is_reported(dtype: torch.dtype) -> None:
    """A few roundings of the largest elements in float32, some percent of the root mean square in bfloat16."""
    stage = STAGES["linear"](Draw(11, dtype))
    candidate = Differentiated(HONEST["linear"][0], stage.parameters)
    (record,) = compare_stage(stage, candidate, backward=False, with_limits=True).records
    largest = max(record.detection_limit.values())
    assert set(record.detection_limit) == {"first", "last", "random", "last row"}
    assert largest < (1e-4 if dtype == torch.float32 else 0.5)


@pytest.mark.parametrize("operator", ["linear", "attend", "embed"])
def test_the_least_visible_corruption_is_red_and_a_smaller_one_is_not(operator: str) -> None:
    """Where it says, and of the size that it says; exact tensors have no limit."""
    yardsticks = of_outputs(STAGES[operator](Draw(11, torch.float32)), calibration.packaged()).of
    limit = least_visible(yardsticks, seed=1)
    if operator == "embed":
        assert limit == (0, 0, "")
        return
    name, _, place = limit.where.partition(", ")
    yardstick = yardsticks[name]
    at, clean = places(yardstick, 1)[place], yardstick.rounded()
    assert yardstick.judge(corrupted(clean, at, limit.size)).ratio > 1
    assert yardstick.judge(corrupted(clean, at, limit.size / 2 ** (1 / 4))).ratio <= 1
    assert 0 < limit.envelopes <= CORRUPTION
    assert all(
        yardstick.judge(corrupted(clean, place, limit.envelopes * yardstick.element_allowance())).ratio > 1
        for yardstick in yardsticks.values()
        if isinstance(yardstick, Envelope)
        for place in places(yardstick, 1).values()
    )


def test_where_nothing_is_calibrated_nothing_is_visible() -> None:
    yardsticks = of_outputs(linear(), Calibration({}, {})).of
    assert least_visible(yardsticks, seed=1).envelopes == math.inf


@pytest.mark.parametrize(
    ("threshold", "expected"), [(1 / 1000, 1 / 64), (1.0, 1.0), (1.01, 2 ** (1 / 4)), (4.0, 4.0), (4.1, math.inf)]
)
def test_bisection_ends_at_the_first_step_that_is_red(threshold: float, expected: float) -> None:
    assert smallest(lambda size: size >= threshold) == expected


def test_the_error_shrinks_from_bfloat16_to_float32_only_where_it_is_rounding() -> None:
    def run(dtype: torch.dtype, factor: float) -> Comparison:
        stage = STAGES["linear"](Draw(11, dtype))
        return compare_stage(stage, lambda x: right(stage) * factor, backward=False)

    (honest,) = slopes(run(torch.float32, 1.0), run(torch.bfloat16, 1.0))
    (wrong,) = slopes(run(torch.float32, 1.01), run(torch.bfloat16, 1.01))
    assert honest.holds
    assert not wrong.holds


def test_records_are_plain_data() -> None:
    import json

    stage = STAGES["rms_norm"](Draw(11, torch.float32))
    candidate = Differentiated(HONEST["rms_norm"][0], {**stage.parameters, "eps": EPS * 2})
    found = json.loads(json.dumps(compare_stage(stage, candidate, backward=False).to_json()))
    assert found["verdict"] == "RED"
    assert found["first"] == {"stage": "input_layernorm", "tensor": "output"}
    assert found["records"][0]["sensitivity"]["eps"] > 100


def test_what_the_candidate_broke_is_named_before_what_is_inconclusive() -> None:
    """A missing gradient says where the defect is; an input that shows too little, anywhere, does not."""
    stage, vague = linear(), StageRecord("attention", "forward", "output", "ERROR", "inconclusive: moves too little")
    broken = compare_stage(stage, lambda x: right(stage))  # no backward
    first = Comparison((vague, *broken.records)).first
    assert first is not None
    assert (first.stage, first.direction, first.reason) == (stage.name, "backward", "the candidate has no backward")
    assert Comparison((vague,)).first == vague

"""The contract of whole models: GREEN when right, a few defects of each kind RED, all of them declared and undone."""

from __future__ import annotations

import pytest
import torch

from aprender.errors import AprenderError
from aprender.falsify.verdict import Verdict
from aprender.parity.stages import as_tuple
from aprender.parity.wiring import edges_of
from aprender.transformer.cuda.stages import stage_names
from falsifiers.cuda_composition import TEXT, expected_calls
from falsifiers.cuda_composition_chain import ratio_of
from falsifiers.cuda_model_plans import ReferenceStages
from falsifiers.cuda_model_reference import LARGEST, Envelope, mean_ratio
from tests.falsifiers.cuda_model_contracts import Bound

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled for CUDA in this process")
COMPOSITION = Bound("cuda-composition-v1")


@pytest.mark.parametrize("number", ["001", "002", "003", "004", "005"])
def test_the_models_are_green(number: str) -> None:
    """Nothing is planted."""
    judgement = COMPOSITION.judged(number, COMPOSITION.observe(number))
    assert judgement.verdict is Verdict.GREEN, judgement.reason


def test_every_defect_is_declared_and_undone() -> None:
    """Planting changes the system, and undoing changes it back."""
    COMPOSITION.assert_all_declared_and_undone()


@pytest.mark.parametrize(
    ("number", "defect"),
    [
        ("001", "stale_norm_fed_to_up_alone"),
        ("001", "layer_loaded_twice"),
        ("001", "key_and_value_biases_swapped"),
        ("002", "gradient_of_the_pass_before"),
        ("002", "tied_gradient_of_one_use"),
        ("003", "mean_of_the_chunks_means"),
        ("003", "evaluated_on_other_weights"),
        ("004", "partial_sums_in_bfloat16"),
        ("004", "activations_in_float8"),
        ("005", "losses_added_up_in_bfloat16"),
    ],
)
def test_a_planted_defect_is_red_for_the_declared_reason(number: str, defect: str) -> None:
    """Every expectation that its class names is broken."""
    COMPOSITION.assert_red(number, defect)


def test_the_table_of_wires_reaches_every_input() -> None:
    """Each input that it names is an output of an earlier stage; the first stage reads tokens."""
    built = COMPOSITION.system.model("untied", "float32")
    calls = expected_calls(built)
    assert len(edges_of(calls)) == sum(len(call.inputs) for call in calls)
    assert [call.stage for call in calls] == [name for name in stage_names(built) if name != "loss"]


def test_an_error_where_none_is_allowed_is_too_large() -> None:
    """A gather rounds nothing: equal is 0, and all else is the largest ratio; so is NaN, and another shape."""
    z = torch.arange(5.0)
    exact, loose = (Envelope(z.double(), [plan], 3.0) for plan in (z, z + 1))
    assert exact.norm_ratio(z) == 0
    assert exact.norm_ratio(z + 1) == LARGEST
    assert loose.norm_ratio(z * torch.nan) == LARGEST
    assert loose.norm_ratio(z[:4]) == LARGEST


def test_one_wrong_element_and_a_wrong_norm_are_both_seen() -> None:
    """One element of a hundred that is off by ten roundings shows in itself; all of them off by four, together."""
    z = torch.zeros(100, dtype=torch.float64)
    envelope = Envelope(z, [z + 1], 3.0)
    assert envelope.ratio(torch.where(torch.arange(100) == 7, 10.0, 0.0)) == 5
    assert envelope.ratio(torch.full((100,), 4.0)) == 2
    assert envelope.ratio(z + 1) == envelope.ratio_of_two(z - 1, z + 1) == 0.5
    assert mean_ratio(4.0, z, z - 1) == pytest.approx(2)


@pytest.mark.parametrize("name", ["layers.1.qkv_proj", "layers.1.o_proj", "layers.0.swiglu", "lm_head"])
def test_a_stage_in_bfloat16_may_round_once_and_not_coarsely(name: str) -> None:
    """The oracle rounded once to the stage's dtype is within its envelope, in a type of four bits fewer it is not."""
    system = COMPOSITION.system
    stages = ReferenceStages(system.model("tied", "bfloat16").config, system.cases["tied"].weights())
    generator = torch.Generator().manual_seed(3)
    width = 42 if name.endswith("o_proj") else 26
    x, y = (torch.randn(1, 13, width, generator=generator).bfloat16() for _ in range(2))
    stage = stages.of(name, x, *([y] if name.endswith("swiglu") else []))
    (plan, *_) = stage.plans.values()
    *others, right = as_tuple(plan.forward(stage.inputs, stage.parameters))
    coarse = right.to(torch.float8_e4m3fn).to(right.dtype)
    assert ratio_of(stage, (*others, right)) < 1 < ratio_of(stage, (*others, coarse))
    assert ratio_of(stage, (*others, right.double())) == LARGEST  # another dtype than the stage's


@pytest.mark.parametrize("model", ["untied", "tied"])
def test_legal_runs_in_bfloat16_are_within_each_others_envelope(model: str) -> None:
    """Each run of the model in bfloat16, judged by the other three; and none is another."""
    reference = COMPOSITION.system.reference(model, "bfloat16")
    exact, *runs = (logits.double() for logits in reference.read("logits", TEXT))
    for i, run in enumerate(runs):
        others = runs[:i] + runs[i + 1 :]
        assert reference.envelope(exact, *others, positions=16).ratio(run) <= 1
        assert not any(bool((run == other).all()) for other in others)


def test_a_model_that_there_is_not_is_refused() -> None:
    """By name or by dtype, with those that there are."""
    for name, dtype in (("large", "float32"), ("tied", "float16")):
        with pytest.raises(AprenderError, match=f"no model called '{name}' in '{dtype}'; there are untied in float32"):
            COMPOSITION.system.model(name, dtype)

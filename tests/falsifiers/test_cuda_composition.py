"""The contract of whole models: GREEN when right, a few defects of each kind RED, all of them declared and undone."""

from __future__ import annotations

import pytest
import torch

from aprender.falsify.verdict import Verdict
from aprender.parity.wiring import edges_of
from aprender.transformer.cuda.stages import stage_names
from falsifiers.cuda_composition import LARGEST, expected_calls, norm_ratio
from tests.falsifiers.cuda_model_contracts import Bound

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled for CUDA in this process")
COMPOSITION = Bound("cuda-composition-v1")


@pytest.mark.parametrize("number", ["001", "002", "003"])
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
    ],
)
def test_a_planted_defect_is_red_for_the_declared_reason(number: str, defect: str) -> None:
    """Every expectation that its class names is broken."""
    COMPOSITION.assert_red(number, defect)


def test_the_table_of_wires_reaches_every_input() -> None:
    """Each input that it names is an output of an earlier stage; the first stage reads tokens."""
    built = COMPOSITION.system.models["untied"]
    calls = expected_calls(built)
    assert len(edges_of(calls)) == sum(len(call.inputs) for call in calls)
    assert [call.stage for call in calls] == [name for name in stage_names(built) if name != "loss"]


def test_an_error_where_none_is_allowed_is_too_large() -> None:
    """A gather rounds nothing: equal is 0, and all else is the largest ratio; so is NaN."""
    z = torch.arange(5.0)
    assert norm_ratio(z.double(), z, found=z) == 0
    assert norm_ratio(z.double(), z, found=z + 1) == LARGEST
    assert norm_ratio(z.double(), z + 1, found=z * torch.nan) == LARGEST
    assert norm_ratio(z.double(), z + 1, found=z[:4]) == LARGEST

"""The contract of cached decoding: GREEN when right, a few defects of each kind RED, all of them declared and undone."""

from __future__ import annotations

import pytest
import torch

from aprender.falsify.verdict import Verdict
from tests.falsifiers.cuda_model_contracts import Bound

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled for CUDA in this process")
DECODE = Bound("cuda-decode-v1")


@pytest.mark.parametrize("number", ["001", "002", "003", "004"])
def test_a_cached_decode_is_green(number: str) -> None:
    """Nothing is planted."""
    judgement = DECODE.judged(number, DECODE.observe(number))
    assert judgement.verdict is Verdict.GREEN, judgement.reason


def test_every_defect_is_declared_and_undone() -> None:
    """Planting changes the system, and undoing changes it back."""
    DECODE.assert_all_declared_and_undone()


@pytest.mark.parametrize(
    ("number", "defect"),
    [
        ("001", "rows_share_one_length"),
        ("001", "keys_cached_before_rope"),
        ("002", "unfilled_slots_weigh_zero"),
        ("003", "keys_beyond_a_tile_dropped"),
        ("003", "temperature_left_on"),
        ("004", "documents_leak_in_the_cache"),
    ],
)
def test_a_planted_defect_is_red_for_the_declared_reason(number: str, defect: str) -> None:
    """Every expectation that its class names is broken."""
    DECODE.assert_red(number, defect)

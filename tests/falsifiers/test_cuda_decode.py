"""The contract of cached decoding: GREEN when right, a few defects of each kind RED, all of them declared and undone."""

from __future__ import annotations

import pytest
import torch

from aprender.falsify.verdict import Verdict
from aprender.parity.exact import equal_bits
from aprender.transformer.cuda.stages import Call
from aprender.transformer.oracle import Batch
from falsifiers.cuda_decode_defects import DEFECTS
from falsifiers.cuda_decode_passes import cache_differing
from falsifiers.cuda_model_system import CACHE, document, read
from tests.falsifiers.cuda_model_contracts import Bound

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled for CUDA in this process")
DECODE = Bound("cuda-decode-v1")


@pytest.mark.parametrize("number", ["001", "002", "003", "004", "005", "006", "007"])
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
        ("005", "cache_in_float8"),
        ("006", "table_of_one_token_in_bfloat16"),
        ("007", "window_one_too_wide_in_decode"),
    ],
)
def test_a_planted_defect_is_red_for_the_declared_reason(number: str, defect: str) -> None:
    """Every expectation that its class names is broken."""
    DECODE.assert_red(number, defect)


def test_a_defect_of_the_cache_changes_no_pass_without_one() -> None:
    """What is kept of passes without a cache, while such a defect is planted, is what they would give."""
    system, batch = DECODE.system, Batch.of(document(1, 3)[None])
    built = system.model("untied", "float32")
    right, seen = read(built, batch), 0
    for name, defect in DEFECTS.items():
        with defect.plant(system):
            if system.touched == {CACHE}:
                seen += 1
                assert equal_bits(read(built, batch), right), name
    assert seen >= 17


def test_every_element_of_the_cache_that_is_read_is_compared() -> None:
    """Two rows in two passes, the second with its padding on the left; then one key of the first pass is changed."""
    takes = ((1, 2), (1, 0))
    k, v = (torch.randn(2, 2, 1, 3) for _ in "kv")
    later = [x[:, :1].clone() for x in (k, v)]
    memory = [torch.stack((torch.stack((x[0, 0], y[0, 0])), x[1])) for x, y in zip((k, v), later, strict=True)]
    calls = (
        [Call((), k), Call((), later[0])],
        [Call((), (None, None, v.flatten(2))), Call((), (None, None, later[1].flatten(2)))],
        [Call((None, k, v), None), Call((None, *memory), None)],
    )
    assert cache_differing(takes, *calls) == (0, 2 * 3 * (1 + 2 + 2 + 2))
    memory[0][1, 1, 0, 2] += 1
    assert cache_differing(takes, *calls)[0] == 1

"""The cost of checking a whole model's operators: all of them are there, right ones are GREEN, wrong ones are not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from aprender.parity.laws import LawRecord
from aprender.parity.record import StageRecord, Verdict
from aprender.transformer.cuda import ops
from bench import operator_cost, operator_laws, operator_stages
from bench.operator_cost import Costs
from bench.operator_stages import QWEN2_5_05B, SMALL, Pair

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled for CUDA in this process")

CPU = torch.device("cpu")
LAYER = (
    *("input_layernorm", "qkv_proj", "q_rope", "k_rope", "attention", "o_proj"),
    *("post_attention_layernorm", "gate_proj", "up_proj", "swiglu", "down_proj", "residual"),
)
LAWS = (
    *("bias only", "scale response", "causality", "batch permutation", "head isolation", "K = 0 is a running mean"),
    *("one-hot V shows the probabilities", "determinism", "poison", "RoPE shift"),
)


def run(monkeypatch: pytest.MonkeyPatch) -> int:
    """``main`` on the small shape in bfloat16: its exit code."""
    monkeypatch.setattr("sys.argv", ["operator_cost", "--device", "cpu", "--dtype", "bfloat16", "--small"])
    with pytest.raises(SystemExit) as stopped:
        operator_cost.main()
    return int(str(stopped.value.code))


def test_the_parameters_are_those_of_the_released_model() -> None:
    """494,032,768 in 290 tensors, as the checkpoint on the hub has them, with a tied head."""
    shapes = QWEN2_5_05B.parameters().values()
    assert (len(shapes), sum(math.prod(shape) for shape in shapes)) == (290, 494_032_768)


def test_every_operator_law_and_parameter_is_compared_and_green(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operator_cost, "SMALL", replace(SMALL, layers=1))
    assert run(monkeypatch) == 0
    rows = {line[:40].strip(): line[40:].split() for line in capsys.readouterr().out.splitlines()}
    kinds = ("embed_tokens", *LAYER, "norm", "loss", *(f"law: {law}" for law in LAWS), "global norm", "AdamW")
    assert [kind for kind in rows if kind in kinds] == list(kinds)
    assert all(row[-1] == "GREEN" for kind, row in rows.items() if kind in kinds)
    # Each gradient is a tensor: qkv_proj has three outputs and three gradients, by input, weight and bias.
    assert [rows[kind][1] for kind in ("qkv_proj", "o_proj", "attention", "loss")] == ["6", "3", "4", "3"]
    assert rows["AdamW"][:2] == ["14", "56"]


def test_a_layer_without_biases_is_red_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The founding defect: projections that have a bias leave it out."""
    right = operator_stages._attention_half

    def without_bias(*arguments: Any) -> Iterator[Pair]:
        for pair in right(*arguments):
            stage = pair.candidate
            biased = isinstance(stage, ops.FusedLinear) and stage.bias is not None
            yield pair._replace(candidate=replace(stage, bias=stage.bias * 0)) if biased else pair

    monkeypatch.setattr(operator_stages, "_attention_half", without_bias)
    monkeypatch.setattr(operator_laws, "of_layers", lambda *arguments: iter(()))
    costs = operator_cost.measured(replace(SMALL, layers=1), torch.float32, CPU)
    assert [line.split(":")[0] for line in costs.bad] == [f"RED layers.0.qkv_proj output {i}" for i in range(3)]


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [(("GREEN",), 0), (("GREEN", "ERROR"), 3), (("ERROR", "RED"), 1), ((), 3)],
    ids=["green", "error", "red", "nothing"],
)
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, verdicts: tuple[Verdict, ...], code: int) -> None:
    """One RED is 1, else one ERROR is 3; nothing compared is no success."""
    costs = Costs(CPU)
    costs.of_stage("q_proj", tuple(StageRecord("q_proj", "forward", "output", verdict) for verdict in verdicts))
    monkeypatch.setattr(operator_cost, "measured", lambda *arguments: costs)
    assert run(monkeypatch) == code


def test_a_law_that_could_not_fail_is_an_error_and_one_that_does_not_hold_is_red() -> None:
    costs = Costs(CPU)
    costs.of_law(LawRecord("mask", 5, 0, 0.0, vacuous="one position"))
    costs.of_law(LawRecord("mask", 5, 2, 0.5))
    costs.of_law(LawRecord("mask", 5, 0, 0.0))
    assert dict(costs.total().verdicts) == {"ERROR": 1, "RED": 1, "GREEN": 1}
    assert costs.bad == ["ERROR law: mask: one position", "RED law: mask: 2 of 5 differ, inf"]


def test_a_step_that_is_nan_is_red() -> None:
    costs = Costs(CPU)
    costs.of_optimizer("norm.weight", {"w": math.nan, "m": 0.5}, 7)
    assert dict(costs.total().verdicts) == {"RED": 1, "GREEN": 1}
    assert costs.total().worst == math.inf

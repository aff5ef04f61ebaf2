"""Operator parity of a checkpoint on disk: right stages are GREEN, a wrong one is named, a table's gradient is whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from aprender.transformer.cuda.build import build_block
from bench import model_stages, real_model
from bench.operator_stages import SMALL, Pair, pairs
from falsifiers.projections import bias_with
from falsifiers.transformer_system import MODEL

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled for CUDA in this process")

KINDS = (
    *("input_layernorm", "qkv_proj", "q_rope", "k_rope", "attention", "o_proj"),
    *("post_attention_layernorm", "gate_proj", "up_proj", "swiglu", "down_proj", "residual"),
)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """``main`` on the model of this repository: its exit code."""
    monkeypatch.setattr("sys.argv", ["real_model", *arguments])
    with pytest.raises(SystemExit) as stopped:
        real_model.main()
    return int(str(stopped.value.code))


def loss() -> Pair:
    """The loss of a small model: a table of 211 rows."""
    return list(pairs(replace(SMALL, layers=0), torch.float32, torch.device("cpu")))[-1]


def test_one_layer_and_what_comes_after_it_are_compared_and_green(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The layers before it are only read through."""
    assert run(monkeypatch, str(MODEL), "--tokens", "131", "--layers", "3:4") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["layer 3", "norm and loss"]
    assert [line.split()[0] for line in lines[3:]] == [*KINDS, "norm", "loss", "total"]


def test_a_bias_that_is_dropped_in_one_layer_is_red_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_bias(config: Any, tensors: Any, index: int, tables: Any) -> Any:
        block = build_block(config, tensors, index, tables)
        fused: Any = block.qkv_proj
        fused.bias = bias_with(fused, "k_proj", 0.0)
        return block

    monkeypatch.setattr(model_stages, "build_block", without_bias)
    assert run(monkeypatch, str(MODEL), "--tokens", "67", "--layers", "1:2") == 1
    red = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  RED")]
    assert [line.split(":")[0] for line in red] == ["  RED layers.1.qkv_proj output 1"]


def test_a_tables_gradient_is_compared_whole_in_slices() -> None:
    """All 211 rows once, and everything else once."""
    records = real_model.compared_by_rows(loss())
    assert {record.verdict for record in records} == {"GREEN"}
    assert [record.tensor.split(",")[0] for record in records] == ["output", "d_input 0", *["d_parameter weight"] * 4]
    assert [record.shape for record in records[2:]] == [(53, 84), (53, 84), (53, 84), (52, 84)]


@pytest.mark.parametrize("row", [0, 50, 210])
def test_one_wrong_row_of_a_tables_gradient_is_red_in_its_slice(row: int) -> None:
    pair = loss()

    class OneRowZero:
        forward, __call__ = pair.candidate.forward, staticmethod(pair.candidate)

        def backward(self, saved: Any, d_output: Any) -> Any:
            d_inputs, found = pair.candidate.backward(saved, d_output)
            found["weight"][row] = 0
            return d_inputs, found

    records = real_model.compared_by_rows(pair._replace(candidate=OneRowZero()))
    assert [r.tensor for r in records if r.verdict != "GREEN"] == [f"d_parameter weight, rows {row % 4} + 4n"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--layers", "3:3"), "--layers 3:3: must be A:B with 0 <= A < B <= 4"),
        (("--layers", "2"), "--layers 2: must be A:B"),
        (("--tokens", "1"), "--tokens 1: must be from 2 to the 17116 of"),
    ],
)
def test_bad_arguments_are_usage_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert run(monkeypatch, str(MODEL), *arguments) == 2
    assert said in capsys.readouterr().err


def test_a_path_that_is_no_model_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "nowhere.gguf") == 2
    assert "nowhere.gguf" in capsys.readouterr().err

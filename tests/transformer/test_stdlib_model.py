"""The small model in models/: honestly held-out text, a loss that means something, biases that matter."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from aprender.formats import load_checkpoint
from aprender.formats.checkpoint import Checkpoint
from aprender.transformer.cuda import CudaTransformer
from aprender.transformer.oracle import Batch, Oracle

FOLDER = Path(__file__).resolve().parents[2] / "models" / "qwen2-stdlib-tiny"
T = 128


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(FOLDER)


@pytest.fixture(scope="module")
def held_out(checkpoint: Checkpoint) -> Tensor:
    """Every fourth row of the held-out text, so that all of its modules are in it."""
    tokens_N = torch.tensor(checkpoint.tokenizer.encode((FOLDER / "held_out.txt").read_text(encoding="utf-8")).ids)
    rows_BT = tokens_N[: len(tokens_N) // T * T].reshape(-1, T)[::4]
    assert rows_BT.numel() > 3000
    return rows_BT


def test_no_three_lines_of_the_held_out_text_were_trained_on() -> None:
    """No run of three consecutive non-blank lines of the held-out text occurs in the training text."""
    text = (FOLDER / "held_out.txt").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    runs = ["\n".join(lines[i : i + 3]).encode() for i in range(len(lines) - 2)]
    hashes = np.array([int.from_bytes(hashlib.sha256(run).digest()[:4], "little") for run in runs])
    trained = np.fromfile(FOLDER / "training_lines.u32", dtype="<u4")
    assert len(runs) > 500
    assert len(trained) > 50_000
    assert (trained[1:] > trained[:-1]).all()
    assert not np.isin(hashes, trained).any()
    files = json.loads((FOLDER / "training.json").read_text())
    assert not files["training_files_sha256"].keys() & files["held_out_files_sha256"].keys()
    assert not set(files["training_files_sha256"].values()) & set(files["held_out_files_sha256"].values())


def test_the_model_is_small() -> None:
    """The whole folder, weights, texts and proof, is at most 3 MB."""
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 3_000_000


def test_held_out_loss_is_far_below_the_threshold_and_the_recorded_one(
    checkpoint: Checkpoint, held_out: Tensor, device: torch.device
) -> None:
    """The oracle finds the model well below 0.7 ln V, and the CUDA path finds the same loss."""
    loss = float(Oracle(checkpoint.config, checkpoint.tensors).loss(Batch.of(held_out)))
    assert loss < 0.6 * math.log(checkpoint.config.vocab_size)
    model = CudaTransformer.from_checkpoint(checkpoint.config, checkpoint.tensors, device)
    candidate = model.token_losses(held_out).double().mean().item()
    # Float32 rounding of single losses is about 1e-5 here and averages out.
    assert candidate == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("kind", ["qkv", "q", "k", "v"])
def test_dropping_biases_shows(kind: str, checkpoint: Checkpoint, held_out: Tensor) -> None:
    """Without all biases the model is worse than 0.7 ln V; without those of Q, K or V it is clearly worse."""
    dropped = {
        name: torch.zeros_like(weight) if name.endswith(".bias") and name.split(".")[-2][0] in kind else weight
        for name, weight in checkpoint.tensors.items()
    }
    assert dropped.keys() == checkpoint.tensors.keys()
    clean, wrong = (float(Oracle(checkpoint.config, w).loss(Batch.of(held_out))) for w in (checkpoint.tensors, dropped))
    if kind == "qkv":
        assert wrong > 0.7 * math.log(checkpoint.config.vocab_size)
    assert wrong > clean + 0.5


def test_transformers_loads_it_and_finds_the_same_loss(checkpoint: Checkpoint, held_out: Tensor) -> None:
    """The folder is a Hugging Face checkpoint: a third party reads the same configuration and weights from it."""
    model = Qwen2ForCausalLM.from_pretrained(FOLDER, dtype=torch.float32, attn_implementation="eager").eval()
    rows_BT = held_out[::3]
    with torch.no_grad():
        logits_BTV = model(rows_BT).logits
    losses_BT = torch.nn.functional.cross_entropy(logits_BTV[:, :-1].mT, rows_BT[:, 1:], reduction="none")
    ours_BT = Oracle(checkpoint.config, checkpoint.tensors).token_losses(Batch.of(rows_BT))
    assert losses_BT.double().mean().item() == pytest.approx(ours_BT.mean().item(), abs=1e-5)
    # Its rotary angles are float32: single losses of a sharp model move by more than rounding of the sums.
    assert (losses_BT - ours_BT).abs().max() < 5e-3


def test_single_layer_and_operator_defects_were_measured_above_noise() -> None:
    """training.json records, for each planted defect, a loss that differs from the clean one by over 1e-3 nats."""
    measured = json.loads((FOLDER / "training.json").read_text())
    clean = measured["held_out_loss"]
    small = {
        defect: loss for defect, loss in measured["planted_defects_held_out_loss"].items() if abs(loss - clean) < 1e-3
    }
    assert small == {}

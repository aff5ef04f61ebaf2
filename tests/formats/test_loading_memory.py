"""Loading takes little memory beyond the weights, whatever the format."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import quantize

from falsifiers import weight_apr, weight_gguf
from falsifiers.weight_checkpoints import QWEN2, config_json, seeded, write_folder

CONFIG = replace(
    QWEN2, vocab_size=60_000, hidden_size=320, intermediate_size=2560, num_hidden_layers=8, windows=(None,) * 8
)  # 58 million elements
MEASURE = """
import sys
from pathlib import Path
import torch, gguf, tokenizers, aprender.formats.load as formats
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
Path("/proc/self/clear_refs").write_text("5")
before = peak()
checkpoint = formats.load_checkpoint(Path(sys.argv[1]))
print(peak() - before, sum(t.nbytes for t in checkpoint.tensors.values()) / 2**20)
"""


def measured(path: Path) -> tuple[float, float]:
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    peak, weights = map(float, done.stdout.split())
    return peak, weights


@pytest.mark.parametrize("kind", ["safetensors", "apr"])
def test_mapped_weights(tmp_path: Path, kind: str) -> None:
    """Weights that keep their dtype are mapped: their pages are all that is resident, and a few MB."""
    tensors = seeded(CONFIG, torch.bfloat16)
    path = (
        write_folder(tmp_path / "model", config_json(CONFIG), tensors)
        if kind == "safetensors"
        else weight_apr.write_apr(tmp_path / "m.apr", weight_apr.apr_metadata(CONFIG), weight_apr.apr_floats(tensors))
    )
    peak, weights = measured(path)
    assert weights > 100
    assert peak <= 1.15 * weights + 8


def test_dequantized_weights(tmp_path: Path) -> None:
    """Quantized weights are streamed through small buffers: the file itself is never resident."""
    tensors = seeded(CONFIG, torch.float32)
    blocks = {
        name: (Kind.Q8_0, quantize(tensor.numpy(), Kind.Q8_0))
        for name, tensor in tensors.items()
        if tensor.ndim == 2 and tensor.shape[1] % 32 == 0
    }
    path = weight_gguf.write_gguf(tmp_path / "m.gguf", CONFIG, tensors, blocks)
    peak, weights = measured(path)
    assert weights > 200
    assert peak <= 1.15 * weights + 8

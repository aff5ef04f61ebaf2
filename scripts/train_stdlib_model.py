"""Train models/qwen2-stdlib-tiny: a small Qwen2 on Python's standard library whose Q/K/V biases matter.

Biases that start at zero stay small in a short training, and a test that drops them sees nothing. Pretrained Qwen2
biases are huge, so these start that way: ``planted_biases`` makes recency heads out of b_q and b_k and a large
constant out of b_v, and training builds on them. The defects that the model must show are measured at the end and
stored beside it. It wants a GPU: on a CPU the kernels run in Triton's interpreter.

    python scripts/train_stdlib_model.py --device cuda
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import torch
from planted_losses import held_out_loss, planted_losses
from safetensors.torch import save_file
from stdlib_text import StdlibText, read, run_hashes
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda import CudaTransformer
from aprender.transformer.cuda.ops import AdamW, clip_scale, global_norm, use_float32_accumulation

ROOT = Path(__file__).resolve().parent.parent
CONFIG = TransformerConfig(
    family="qwen2",
    vocab_size=1000,
    hidden_size=96,
    intermediate_size=248,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=20,
    rms_norm_eps=3e-4,
    rope_theta=50000.0,
    rope_scaling=None,
    windows=(None,) * 4,
    tie_word_embeddings=False,
    qkv_bias=True,
    qk_norm=False,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """Hyper-parameters; all of them are stored in training.json."""

    seed: int = 20260101
    rows: int = 32
    positions: int = 128
    learning_rate: float = 4e-3
    embedding_learning_rate: float = 4e-4
    warmup_steps: int = 100
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = 1.0
    embedding_std: float = 0.03
    value_bias_std: float = 3.0


def main(steps: int, out: Path, device: str) -> None:
    """Train for ``steps`` optimizer steps on ``device`` and write the checkpoint to the folder ``out``."""
    recipe = Recipe()
    torch.manual_seed(recipe.seed)
    use_float32_accumulation()
    text = read()
    tokenizer = train_tokenizer(text.training)
    training_N = torch.tensor(tokenizer.encode(text.training).ids)
    held_out_BT = rows_of(torch.tensor(tokenizer.encode(text.held_out).ids), recipe.positions)
    print(f"{len(training_N):,} training tokens, {held_out_BT.numel():,} held-out tokens")

    started = time.monotonic()
    weights = {name: tensor.to(device) for name, tensor in initial_tensors(recipe).items()}
    losses = train(weights, training_N, recipe, steps, device)
    seconds = time.monotonic() - started
    tensors = {name: weight.cpu() for name, weight in weights.items()}
    measured = measure(tensors, held_out_BT, device)
    print(json.dumps(measured, indent=2))
    save(out, tensors, tokenizer, text)
    how = {
        "command": shlex.join(["python", "scripts/train_stdlib_model.py", *sys.argv[1:]]),
        "steps": steps,
        "recipe": dataclasses.asdict(recipe),
        "device": device,
        "seconds": round(seconds),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "losses_are": f"mean nats per token over rows of {recipe.positions} tokens, float32",
        "training_loss_by_step": losses,
        **measured,
        "training_files_sha256": text.training_sha256,
        "held_out_files_sha256": text.held_out_sha256,
        "training_lines.u32": " ".join((run_hashes.__doc__ or "").split()),
    }
    (out / "training.json").write_text(json.dumps(how, indent=2) + "\n")


def measure(tensors: dict[str, Tensor], held_out_BT: Tensor, device: str) -> dict[str, object]:
    """Measure what the model was made for: a low held-out loss, and defects that raise it."""
    model = CudaTransformer.from_checkpoint(CONFIG, tensors, device)
    return {
        "held_out_loss": held_out_loss(model, held_out_BT),
        "threshold_0.7_ln_vocab": 0.7 * math.log(CONFIG.vocab_size),
        "planted_defects_held_out_loss": planted_losses(CONFIG, tensors, held_out_BT, device),
        "bias_largest_magnitude": {
            kind: max(t.abs().max().item() for n, t in tensors.items() if n.endswith(f"{kind}_proj.bias"))
            for kind in "qkv"
        },
        "norm_gain_std": torch.cat([t for n, t in tensors.items() if "norm" in n]).std().item(),
    }


def train_tokenizer(text: str) -> Tokenizer:
    """Train a byte-level BPE of ``CONFIG.vocab_size`` tokens on ``text``; every byte is one, so none is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=CONFIG.vocab_size, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


def rows_of(tokens_N: Tensor, T: int) -> Tensor:
    """Cut into rows of T tokens, without what is left over: tokens_BT."""
    return tokens_N[: len(tokens_N) // T * T].view(-1, T)


def initial_tensors(recipe: Recipe) -> dict[str, Tensor]:
    """Draw the starting weights in the order of ``CONFIG.tensor_shapes()``."""
    tensors = {}
    for name, shape in CONFIG.tensor_shapes().items():
        if name.endswith("norm.weight"):
            tensor = torch.ones(shape)
        elif name.endswith(".bias"):
            tensor = planted_bias(name, recipe)
        else:
            deep = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = shape[1] ** -0.5 / (math.sqrt(2 * CONFIG.num_hidden_layers) if deep else 1)
            tensor = torch.randn(shape) * (recipe.embedding_std if "embed" in name else std)
        tensors[name] = tensor
    return tensors


def planted_bias(name: str, recipe: Recipe) -> Tensor:
    """Bias of one projection, flat over heads and channels; channels r and r + 10 of a head rotate together.

    b_q . b_k after RoPE is ``sum_r A_r cos(f_r (distance - wanted))``: a head of layer i that looks ``wanted``
    tokens back. The amplitudes are in attention logits. The slowest pair carries 100 more, the same at every
    distance: softmax ignores it, but one that does not subtract the maximum overflows, as on real Qwen2 weights.
    """
    C, R = CONFIG.head_dim, CONFIG.head_dim // 2
    layer, kind = int(name.split(".")[2]), name.split(".")[4][0]
    if kind == "v":
        return recipe.value_bias_std * torch.randn(CONFIG.kv_dim)
    key_R = torch.zeros(R)
    key_R[[0, 1, 2, 3, 9]] = torch.tensor([12.0, 12.0, 12.0, 12.0, 40.0])
    if kind == "k":
        return torch.cat([key_R, torch.zeros(R)]).repeat(CONFIG.num_key_value_heads)
    amplitude_R = torch.zeros(R)
    amplitude_R[[0, 1, 2, 3, 9]] = torch.tensor([4.0, 4.0, 3.0, 2.0, 100.0])
    size_R = math.sqrt(C) * amplitude_R / key_R.clamp(min=1)
    frequency_R = CONFIG.rope_theta ** (-torch.arange(R) / R)
    heads = []
    for head in range(CONFIG.num_attention_heads):
        wanted = (head + layer) % CONFIG.num_attention_heads
        # The planted rotation undoes what RoPE turns over `wanted` positions.
        heads += [size_R * torch.cos(frequency_R * wanted), -size_R * torch.sin(frequency_R * wanted)]
    return torch.cat(heads)


def train(tensors: dict[str, Tensor], tokens_N: Tensor, recipe: Recipe, steps: int, device: str) -> dict[str, float]:
    """Train ``tensors``, whose memory the model shares, in place.

    Result: mean loss in nats over each tenth of the run, by its last step.
    """
    model = CudaTransformer.from_checkpoint(CONFIG, tensors, device)
    moments = {name: (torch.zeros_like(weight), torch.zeros_like(weight)) for name, weight in tensors.items()}
    tenth, window, means = max(1, steps // 10), 0.0, {}
    started = time.monotonic()
    for step in range(1, steps + 1):
        start_B1 = torch.randint(len(tokens_N) - recipe.positions, (recipe.rows, 1))
        loss, gradients = model.loss_and_gradients(tokens_N[start_B1 + torch.arange(recipe.positions)])
        clip = clip_scale(global_norm(list(gradients.values())), recipe.clip_norm)
        pace = min(step / recipe.warmup_steps, 0.55 + 0.45 * math.cos(math.pi * (step - 1) / steps))
        for name, weight in tensors.items():
            optimizer_of(name, weight, recipe, pace).update(weight, gradients[name], *moments[name], step, clip)
        window += loss.item()
        if step % tenth == 0:
            means[str(step)], window = round(window / tenth, 4), 0.0
        if step % 10 == 0 or step == steps:
            left = (time.monotonic() - started) / step * (steps - step)
            print(f"\rstep {step}/{steps}  loss {loss.item():.3f} nats  {left:.0f} s left   ", end="", flush=True)
    print()
    return means


def optimizer_of(name: str, weight: Tensor, recipe: Recipe, pace: float) -> AdamW:
    """Matrices decay; biases and norm gains don't; the embedding learns slowly, so that its rows stay small."""
    learning_rate = recipe.embedding_learning_rate if "embed" in name else recipe.learning_rate
    decay = recipe.weight_decay if weight.ndim == 2 and "embed" not in name else 0.0
    return AdamW(pace * learning_rate, *recipe.betas, weight_decay=decay)


def save(out: Path, tensors: dict[str, Tensor], tokenizer: Tokenizer, text: StdlibText) -> None:
    """Write the model as Hugging Face's qwen2, its texts, and the proof that they don't overlap."""
    training_lines = np.unique(np.array(run_hashes(text.training), dtype="<u4"))
    assert not np.isin(run_hashes(text.held_out), training_lines).any(), "held-out text overlaps"  # noqa: S101
    out.mkdir(parents=True, exist_ok=True)
    training_lines.tofile(out / "training_lines.u32")
    (out / "held_out.txt").write_text(text.held_out, encoding="utf-8", newline="\n")
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(out / "tokenizer.json"))
    shape = dataclasses.asdict(CONFIG)
    for ours in ("family", "qkv_bias", "qk_norm", "rope_scaling", "windows"):
        del shape[ours]
    hf = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **shape, "hidden_act": "silu"}
    hf |= {"max_position_embeddings": 512, "attention_dropout": 0.0, "torch_dtype": "float32"}
    hf |= {"use_sliding_window": False, "bos_token_id": None, "eos_token_id": None}
    (out / "config.json").write_text(json.dumps(hf, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1400, help="optimizer steps (default: 1400)")
    parser.add_argument("--out", type=Path, default=ROOT / "models/qwen2-stdlib-tiny", help="folder to write")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    main(**vars(parser.parse_args()))

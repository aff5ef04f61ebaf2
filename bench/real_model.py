"""Operator parity of a real checkpoint: every stage of every layer on its own weights and a real text, in float32.

python -m bench.real_model MODEL [--tokens 256] [--device cpu] [--layers A:B]

The float64 oracle reads the text layer by layer, and every stage of the CUDA path is fed what the oracle's stages are,
rounded to float32; outputs and gradients (of a drawn cotangent) are compared by the measured envelopes, all legal
plans included. Weights are read and dequantized one layer at a time. Norms are fed every second row scaled by a power
of two to about the root of eps, where eps shows. The text is this repository's held-out one, Python source, by the
checkpoint's own tokenizer. ``--layers`` compares some layers only, the embedding with layer 0, the last norm and the
loss with the last layer: a run that was cut off goes on with the rest. Exits with 1 when anything is RED, else with 3
when anything is ERROR.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.falsify.probe import RequirementNotMet
from aprender.formats.model_file import ModelFile, open_model
from aprender.formats.stored import TensorFiles
from aprender.parity.compare import compare_stage
from aprender.parity.record import StageRecord
from aprender.parity.stages import Gradients, Operator, Parameters, ReferenceStage, Tensors
from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda import ops
from aprender.transformer.cuda.build import EMBEDDING, HEAD, build_block
from aprender.transformer.cuda.rope_tables import rope_tables
from aprender.transformer.oracle import layer as oracle_layer
from aprender.transformer.oracle import operators, rope
from aprender.transformer.oracle.attention import Places, allowed_pairs
from aprender.transformer.oracle.layer import Setting, Trace
from aprender.transformer.oracle.parameters import NORM, Parameters as Weights
from bench.operator_cost import Costs, table
from falsifiers import cuda_operator_references, oracle_attention_stage, oracle_stages
from falsifiers.cuda_operator_system import require_kernels
from falsifiers.transformer_system import HELD_OUT_TEXT

SEED = 20261125
IGNORED = -100
SLICES = 4  # of a vocabulary's gradient: judged whole, its float64 copies would take 20 GB


class Pair(NamedTuple):
    """One operator: its reference and the candidate."""

    reference: ReferenceStage
    candidate: Any


@dataclass(frozen=True)
class Setup:
    """What all layers share: the model on disk, tokens_1T, where they stand, rotary tables, and the device."""

    model: ModelFile
    tokens: Tensor
    places: Places
    setting: Setting
    tables: tuple[Tensor, Tensor]
    device: torch.device

    @property
    def config(self) -> TransformerConfig:
        """The checkpoint's."""
        return self.model.config

    def read(self, name: str) -> Tensor:
        """One parameter from the file, float32 on the device."""
        return self.model.plan.read(name).to(self.device, torch.float32)

    def weights(self, index: int) -> dict[str, Tensor]:
        """The parameters of one layer, by Hugging Face's names."""
        prefix = f"model.layers.{index}."
        return {name: self.read(name) for name in self.model.plan.shapes if name.startswith(prefix)}


def setup(model: ModelFile, tokens: int, device: torch.device) -> Setup:
    """Read the first ``tokens`` tokens of the text. Raises AprenderError where it, or the model, will not do."""
    config = model.config
    model.plan.refuse(model.plan.problems)
    if config.qk_norm:
        raise AprenderError(f"{model.where}: has QK-norm, which this bench does not compare")
    ids = model.tokenizer().encode(HELD_OUT_TEXT.read_text("utf-8"), add_special_tokens=False).ids[:tokens]
    if len(ids) < tokens:
        raise AprenderError(f"{HELD_OUT_TEXT}: has {len(ids)} tokens, {tokens} are asked for; lower --tokens")
    positions = torch.arange(tokens, device=device)[None]
    cos, sin = rope.tables(positions, config.head_dim, config.rope_theta, config.rope_scaling, torch.float64)
    return Setup(
        model,
        torch.tensor([ids], device=device),
        Places(positions, torch.zeros_like(positions)),
        Setting(config, cos, sin, 1),
        rope_tables(config, tokens, device),
        device,
    )


def embedding(s: Setup, weight_VD: Tensor) -> Pair:
    """The first operator."""
    return Pair(
        oracle_stages.embed("embed_tokens", s.tokens, weight_VD, SEED, torch.float32), ops.Embedding(weight_VD)
    )


def forward(s: Setup, weights: Mapping[str, Tensor], index: int, x_BTD: Tensor) -> Trace:
    """The oracle's layer ``index``, in float64."""
    seen = allowed_pairs(s.places, s.places, s.config.windows[index])
    of_layer = Weights(weights, torch.float64, s.device).layer(index)
    return oracle_layer.forward(of_layer, s.setting, x_BTD, seen)


def pairs(s: Setup, weights: Mapping[str, Tensor], index: int, trace: Trace) -> Iterator[Pair]:
    """Every operator of a layer, in the order of a forward pass, fed what the oracle's was, rounded to float32."""
    block = build_block(s.config, weights, index, s.tables)
    at, seed, eps = f"layers.{index}.", SEED + 1 + index, s.config.rms_norm_eps
    x, normed, mixed = trace.x_BTD.float(), trace.normed_BTD.float(), trace.mixed_BTHC.flatten(-2).float()

    def linear(name: str, of: Tensor) -> Pair:
        stage = getattr(block, name)
        return Pair(
            oracle_stages.linear(f"{at}{name}", of, stage.weight, stage.bias, seed, torch.float32),
            stage,
        )

    gain = block.input_layernorm.weight  # type: ignore[attr-defined]
    small = oracle_stages.small_rows_scaled(x, eps**0.5)
    yield Pair(
        oracle_stages.rms_norm(f"{at}input_layernorm", small, gain, eps, seed, torch.float32), block.input_layernorm
    )
    for name in ("q_proj", "k_proj", "v_proj"):
        yield linear(name, normed)
    for name, heads in (("q_rope", trace.projected_q_BTHC), ("k_rope", trace.projected_k_BTGC)):
        theta, scaling = s.config.rope_theta, s.config.rope_scaling
        rotate = oracle_stages.rotate_at(
            f"{at}{name}", heads.float(), s.places.positions_BT, theta, scaling, seed
        )
        yield Pair(rotate, getattr(block, name))
    qkv = (trace.q_BTHC.float(), trace.k_BSGC.float(), trace.v_BSGC.float())
    window = s.config.windows[index]
    attend = oracle_attention_stage.attend(
        f"{at}attention", qkv, s.places, s.places, s.config.head_dim**-0.5, window, seed
    )
    yield Pair(attend, block.attention)
    yield linear("o_proj", mixed)

    gain = block.post_attention_layernorm.weight  # type: ignore[attr-defined]
    branch = oracle_stages.small_rows_scaled((trace.middle_BTD - trace.x_BTD).float(), eps**0.5)
    add_norm = cuda_operator_references.add_rms_norm(
        f"{at}post_attention_layernorm", small, branch, gain, eps, seed
    )
    yield Pair(add_norm, block.post_attention_layernorm)
    for name in ("gate_proj", "up_proj"):
        yield linear(name, trace.mlp_normed_BTD.float())
    gate, up = trace.gate_BTF.float(), trace.up_BTF.float()
    yield Pair(oracle_stages.swiglu(f"{at}swiglu", gate, up, seed), block.swiglu)
    yield linear("down_proj", operators.swiglu(trace.gate_BTF, trace.up_BTF).float())
    middle, mlp = trace.middle_BTD.float(), (trace.out_BTD - trace.middle_BTD).float()
    yield Pair(oracle_stages.add(f"{at}residual", middle, mlp, seed), block.residual)


def last(s: Setup, x_BTD: Tensor) -> Iterator[Pair]:
    """The last norm, and the loss of the next token over the whole vocabulary."""
    gain, eps, seed = s.read(NORM), s.config.rms_norm_eps, SEED + 1 + s.config.num_hidden_layers
    small = oracle_stages.small_rows_scaled(x_BTD.float(), eps**0.5)
    yield Pair(oracle_stages.rms_norm("norm", small, gain, eps, seed, torch.float32), ops.RMSNorm(gain, eps))
    normed = operators.rms_norm(x_BTD, gain.double(), eps).float()
    head_VD = s.read(EMBEDDING if s.config.tie_word_embeddings else HEAD)
    targets = s.tokens.roll(-1, 1)
    targets[:, -1] = IGNORED
    loss = cuda_operator_references.linear_cross_entropy("loss", normed, targets, head_VD, IGNORED, seed)
    yield Pair(loss, ops.LinearCrossEntropy(head_VD, IGNORED))


def compared(pair: Pair) -> tuple[StageRecord, ...]:
    """One operator, forward and backward."""
    return compare_stage(pair.reference, pair.candidate).records


def compared_by_rows(pair: Pair) -> tuple[StageRecord, ...]:
    """One operator with a table of the whole vocabulary: its gradient's rows i, i + 4, i + 8 ... at a time."""
    records = compare_stage(_sliced(pair.reference, None), _Sliced(pair.candidate, None)).records
    for first in range(SLICES):
        rows = slice(first, None, SLICES)
        found = compare_stage(_sliced(pair.reference, rows), _Sliced(pair.candidate, rows), forward=False).records
        records += tuple(replace(r, tensor=f"{r.tensor}, rows {first} + {SLICES}n") for r in found)
    return records


def _sliced(stage: ReferenceStage, rows: slice | None) -> ReferenceStage:
    """A stage whose backward gives the inputs' gradients alone, or ``rows`` of the table's alone."""

    def of(operator: Operator) -> Operator:
        vjp = operator.vjp
        assert vjp is not None  # noqa: S101 - the two stages with tables write theirs out

        def some(inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
            return Gradients(*_some(vjp(inputs, parameters, d_outputs), rows, len(inputs)))

        return replace(operator, vjp=some)

    plans = {name: of(plan) for name, plan in stage.plans.items()}
    return replace(stage, oracle=of(stage.oracle), plans=plans)


@dataclass(frozen=True)
class _Sliced:
    """The same of a candidate."""

    stage: Any
    rows: slice | None

    def __call__(self, *inputs: Tensor) -> Any:
        return self.stage(*inputs)

    def forward(self, *inputs: Tensor) -> Any:
        output, saved = self.stage.forward(*inputs)
        return output, (saved, len(inputs))

    def backward(self, saved: Any, d_output: Any) -> Any:
        saved, count = saved
        return _some(self.stage.backward(saved, d_output), self.rows, count)


def _some(gradients: Any, rows: slice | None, count: int) -> tuple[Any, dict[str, Tensor]]:
    d_inputs, d_parameters = gradients
    if rows is None:
        return d_inputs, {}
    return (None,) * count, {"weight": d_parameters["weight"][rows].clone()}


def run(s: Setup, layers: range) -> Costs:
    """Compare ``layers``, and what stands before the first and after the last of the model; a line for each."""
    costs = Costs(s.device)
    weight_VD = s.read(EMBEDDING)
    x_BTD = operators.embed(weight_VD, s.tokens).double()
    if layers.start == 0:
        _noted(costs, "embed_tokens", compared_by_rows(embedding(s, weight_VD)))
        _progress(costs, "embedding")
    del weight_VD
    for index in range(layers.stop):
        weights = s.weights(index)
        trace = forward(s, weights, index, x_BTD)
        if index in layers:
            for pair in pairs(s, weights, index, trace):
                _noted(costs, pair.reference.name.rsplit(".", 1)[-1], compared(pair))
            _progress(costs, f"layer {index}")
        x_BTD = trace.out_BTD
    if layers.stop == s.config.num_hidden_layers:
        norm, loss = last(s, x_BTD)
        _noted(costs, "norm", compared(norm))
        _noted(costs, "loss", compared_by_rows(loss))
        _progress(costs, "norm and loss")
    return costs


def _noted(costs: Costs, kind: str, records: tuple[StageRecord, ...]) -> None:
    costs.of_stage(kind, records)


def _progress(costs: Costs, what: str) -> None:
    total = costs.total()
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in total.verdicts.items())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {verdicts}, worst {total.worst:.3f}, {total.seconds:.0f} s, {peak:.1f} GiB", flush=True)


def layers_of(text: str | None, count: int) -> range:
    """``A:B`` of ``count`` layers, or all. Raises AprenderError for anything else."""
    if text is None:
        return range(count)
    first, _, stop = text.partition(":")
    if not (first.isdecimal() and stop.isdecimal() and int(first) < int(stop) <= count):
        raise AprenderError(f"--layers {text}: must be A:B with 0 <= A < B <= {count}")
    return range(int(first), int(stop))


def main() -> None:
    """Compare, print and exit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--layers", metavar="A:B")
    a = parser.parse_args()
    try:
        require_kernels(a.device)
        with TensorFiles() as files:
            s = setup(open_model(a.model, files), a.tokens, torch.device(a.device))
            costs = run(s, layers_of(a.layers, s.config.num_hidden_layers))
    except (AprenderError, RequirementNotMet) as error:
        parser.error(str(error))
    print("\n".join(table(costs)))
    print("\n".join(f"  {line}" for line in costs.bad))
    verdicts = set(costs.total().verdicts)
    sys.exit(1 if "RED" in verdicts else 3 if verdicts != {"GREEN"} else 0)


if __name__ == "__main__":
    main()

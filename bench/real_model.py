"""Operator parity of a real checkpoint: every stage of every layer on its own weights and a real text, in float32.

python -m bench.real_model MODEL [--tokens 256] [--device cpu] [--layers A:B]

The float64 oracle reads the text layer by layer, and every stage of the CUDA path is fed what the oracle's stages are,
rounded to float32 (norms: bench/model_stages.py). Outputs and gradients, of a drawn cotangent, are compared by the
measured envelopes, all legal plans included. Weights are read and dequantized one layer at a time. The text is this
repository's held-out one, Python source, by the checkpoint's own tokenizer. ``--layers`` compares some layers only,
the embedding with layer 0, the last norm and the loss with the last layer: a run that was cut off goes on with the
rest. Exits with 1 when anything is RED, else with 3 when anything is ERROR.
"""

from __future__ import annotations

import argparse
import resource
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.falsify.probe import RequirementNotMet
from aprender.formats.hub import resolve
from aprender.formats.model_file import ModelFile, open_model
from aprender.formats.sources import source_files
from aprender.formats.stored import TensorFiles
from aprender.parity.compare import compare_stage
from aprender.parity.record import StageRecord
from aprender.parity.stages import Gradients, Operator, Parameters, ReferenceStage, Tensors
from aprender.transformer.cuda import ops
from aprender.transformer.cuda.build import EMBEDDING
from aprender.transformer.oracle import operators
from aprender.transformer.oracle.attention import Places
from aprender.transformer.oracle.parameters import NORM
from bench.model_stages import IGNORED, Reading, after_layers, embedding, head_name, of_layer, traced
from bench.operator_cost import Costs, table
from bench.operator_stages import Pair
from falsifiers.cuda_operator_system import require_kernels
from falsifiers.transformer_system import HELD_OUT_TEXT

SEED = 20261125
SLICES = 4  # of a vocabulary's gradient: judged whole, its float64 copies would take 20 GB


@dataclass(frozen=True)
class Stored:
    """A checkpoint whose tensors are read when they are asked for, float32 on ``device``."""

    model: ModelFile
    device: torch.device

    def read(self, name: str) -> Tensor:
        """One parameter, by Hugging Face's name."""
        return self.model.plan.read(name).to(self.device, torch.float32)

    def layer(self, index: int) -> dict[str, Tensor]:
        """The parameters of one layer."""
        prefix = f"model.layers.{index}."
        return {name: self.read(name) for name in self.model.plan.shapes if name.startswith(prefix)}


def reading(model: ModelFile, tokens: int, device: torch.device) -> Reading:
    """The first ``tokens`` tokens of the text. Raises AprenderError where it has fewer, or the model is unsound."""
    model.plan.refuse(model.plan.problems)
    ids = model.tokenizer().encode(HELD_OUT_TEXT.read_text("utf-8"), add_special_tokens=False).ids
    if not 2 <= tokens <= len(ids):
        raise AprenderError(f"--tokens {tokens}: must be from 2 to the {len(ids)} of {HELD_OUT_TEXT}")
    tokens_1T = torch.tensor([ids[:tokens]], device=device)
    targets_1T = tokens_1T.roll(-1, 1)
    targets_1T[:, -1] = IGNORED
    positions_1T = torch.arange(tokens, device=device)[None]
    places = Places(positions_1T, torch.zeros_like(positions_1T))
    return Reading(model.config, tokens_1T, targets_1T, places, tokens, torch.float32, SEED)


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


def run(stored: Stored, r: Reading, layers: range) -> Costs:
    """Compare ``layers``, and what stands before the first and after the last of the model; a line for each."""
    costs, weight_VD = Costs(r.device), stored.read(EMBEDDING)
    x_BTD = operators.embed(weight_VD, r.tokens).double()
    if layers.start == 0:
        costs.of_stage("embed_tokens", compared_by_rows(embedding(r, weight_VD)))
        _progress(costs, "embedding")
    del weight_VD
    for index in range(layers.stop):
        weights = stored.layer(index)
        trace = traced(r, weights, index, x_BTD)
        x_BTD = trace.out_BTD
        if index in layers:
            for kind, reference, candidate in of_layer(r, weights, index, trace):
                costs.of_stage(kind, compare_stage(reference, candidate).records)
            _progress(costs, f"layer {index}")
    if layers.stop == r.config.num_hidden_layers:
        head_VD = stored.read(head_name(r.config))
        norm, loss = after_layers(r, stored.read(NORM), ops.LinearCrossEntropy(head_VD, IGNORED), x_BTD)
        costs.of_stage("norm", compare_stage(norm.reference, norm.candidate).records)
        costs.of_stage("loss", compared_by_rows(loss))
        _progress(costs, "norm and loss")
    return costs


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
        source_files(a.model)  # says what is wrong with a path that is no model
        with TensorFiles() as files:
            stored = Stored(open_model(resolve(a.model), files), torch.device(a.device))
            layers = layers_of(a.layers, stored.model.config.num_hidden_layers)
            costs = run(stored, reading(stored.model, a.tokens, stored.device), layers)
    except (AprenderError, RequirementNotMet) as error:
        parser.error(str(error))
    print("\n".join(table(costs)))
    for line in costs.bad:
        print(f"  {line}")
    verdicts = set(costs.total().verdicts)
    sys.exit(1 if "RED" in verdicts else 3 if verdicts != {"GREEN"} else 0)


if __name__ == "__main__":
    main()

"""Probes of FALSIFY-CUDA-COMPOSITION-001 and -002: whole models against the oracle, wiring and gradients."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aprender.falsify.probe import Observation, probe
from aprender.parity.wiring import Call, Recorder, check
from aprender.transformer.cuda import stages
from aprender.transformer.cuda.model import CudaTransformer
from aprender.transformer.oracle import Batch
from falsifiers.cuda_composition_defects import DEFECTS
from falsifiers.cuda_model_system import CONFIGS, MODELS, ModelsUnderContract, document, read
from falsifiers.digests import digest_of
from falsifiers.threads import on_one_thread

TAIL = Batch.packed([[document(14, 3)]])
TEXT = Batch.packed([[document(11, 5), document(12, 4)], [document(13, 7)]])


class Pass(NamedTuple):
    """What one forward pass of one model came to."""

    hidden_ratio: float
    logits_ratio: float
    losses_ratio: float
    wiring_faults: int
    edges: int
    elements: int
    digest: str


@probe(
    system=MODELS,
    observes={
        "hidden_ratio": "",
        "logits_ratio": "",
        "losses_ratio": "",
        "wiring_faults": "edges",
        "edges_checked": "edges",
        "elements_compared": "elements",
    },
    defects=DEFECTS,
)
@on_one_thread
def forward(system: ModelsUnderContract) -> Observation:
    """Both models on packed, padded documents: every layer's result, logits and losses over what sums may change.

    Each error is that of a whole tensor in the Euclidean norm, over three times that of the oracle's float32 plans, as
    for any order of float32 sums that is not declared (docs/parity.md).
    ``wiring_faults``: inputs of stages that are not, bit for bit, what the stage before them in the paper returned.
    """
    passes = [system.kept("forward", name, lambda n=name: _pass(system, n)) for name in CONFIGS]  # type: ignore[misc]
    values = {
        "hidden_ratio": max(found.hidden_ratio for found in passes),
        "logits_ratio": max(found.logits_ratio for found in passes),
        "losses_ratio": max(found.losses_ratio for found in passes),
        "wiring_faults": sum(found.wiring_faults for found in passes),
        "edges_checked": sum(found.edges for found in passes),
        "elements_compared": sum(found.elements for found in passes),
    }
    return Observation(values, hashlib.sha256("".join(found.digest for found in passes).encode()).hexdigest())


def _pass(system: ModelsUnderContract, name: str) -> Pass:
    built, reference = system.model(name, "float32"), system.reference(name, "float32")
    real, counted = TEXT.documents_BT >= 0, TEXT.targets()[1]
    calls, seen, logits = recorded(built)
    states, losses, wired = hidden_states(seen), losses_of(built, TEXT), expected_calls(built)
    hidden = zip(*reference.read("hidden_states", TEXT), states, strict=False)  # of layers that ran
    return Pass(
        max(reference.norm_ratio(expected, found, real) for *expected, found in hidden),
        reference.norm_ratio(reference.read("logits", TEXT), logits, real),
        reference.norm_ratio(reference.read("token_losses", TEXT), losses, counted),
        len(check(wired, calls)),
        sum(len(call.inputs) for call in wired),
        logits[real].numel() + sum(state[real].numel() for state in states),
        digest_of([logits, losses, *states]),
    )


def losses_of(built: CudaTransformer, batch: Batch) -> Tensor:
    """The model's token losses [B, T-1], on the CPU."""
    return built.token_losses(batch.tokens_BT, positions_BT=batch.positions_BT, documents_BT=batch.documents_BT).cpu()


def recorded(built: CudaTransformer) -> tuple[list[Call], dict[str, stages.Call], Tensor]:
    """One forward pass of TEXT: digests of every call of a stage, the calls by stage, and the logits on the CPU."""
    recorder = Recorder()
    seen: dict[str, stages.Call] = {}

    def kept(name: str, stage: Any) -> Any:
        run = recorder.wrap(name, stage)

        def call(*inputs: Any) -> Any:
            output = run(*inputs)
            seen[name] = stages.Call(inputs, output)
            return output

        return call

    with ExitStack() as stack:
        for name in stages.stage_names(built):
            owner = built if "." not in name else next(x for x in built.layers if f".{x.index}." in name)
            attribute = name.rsplit(".", 1)[-1]
            stage = getattr(owner, attribute)
            setattr(owner, attribute, kept(name, stage))
            stack.callback(setattr, owner, attribute, stage)
        logits = read(built, TEXT)
    return recorder.calls, seen, logits


def hidden_states(seen: Mapping[str, stages.Call]) -> list[Tensor]:
    """What the embedding, each layer and the last norm returned, in the order in which they ran, on the CPU."""
    kept = [call for name, call in seen.items() if name in ("embed_tokens", "norm") or name.endswith(".residual")]
    return [call.output.cpu() for call in kept]


def expected_calls(built: CudaTransformer) -> list[Call]:
    """How a Qwen2, Llama or Qwen3 model is wired, written down from the papers: each stage and what it reads.

    Digests stand for themselves: an output is called by its stage's name, so that ``wiring.check`` learns the edges.
    """
    calls = [Call("embed_tokens", (), ("embed_tokens",))]
    x = "embed_tokens"
    for i in range(built.config.num_hidden_layers):
        at = f"layers.{i}."
        calls += [Call(f"{at}{name}", tuple(given), outputs) for name, given, outputs in _layer(built, at, x)]
        x = f"{at}residual"
    return [*calls, Call("norm", (x,), ("norm",)), Call("lm_head", ("norm",), ("lm_head",))]


def _layer(built: CudaTransformer, at: str, x: str) -> Iterator[tuple[str, list[str], tuple[str, ...]]]:
    q, k, v, after = *(f"{at}{name}_proj" for name in "qkv"), f"{at}post_attention_layernorm"
    yield "input_layernorm", [x], (f"{at}input_layernorm",)
    yield "qkv_proj", [f"{at}input_layernorm"], (q, k, v)
    if built.config.qk_norm:
        for name, source in (("q_norm", q), ("k_norm", k)):
            yield name, [source], (f"{at}{name}",)
        q, k = f"{at}q_norm", f"{at}k_norm"
    for name, source in (("q_rope", q), ("k_rope", k)):
        yield name, [source], (f"{at}{name}",)
    yield "attention", [f"{at}q_rope", f"{at}k_rope", v], (f"{at}attention",)
    yield "o_proj", [f"{at}attention"], (f"{at}o_proj",)
    yield "post_attention_layernorm", [x, f"{at}o_proj"], (f"{after} sum", after)
    yield "gate_proj", [after], (f"{at}gate_proj",)
    yield "up_proj", [after], (f"{at}up_proj",)
    yield "swiglu", [f"{at}gate_proj", f"{at}up_proj"], (f"{at}swiglu",)
    yield "down_proj", [f"{at}swiglu"], (f"{at}down_proj",)
    yield "residual", [f"{after} sum", f"{at}down_proj"], (f"{at}residual",)


class Gradients(NamedTuple):
    """What one backward pass of one model came to."""

    ratio: float
    bias_ratio: float
    embedding_ratio: float
    uncovered: int
    parameters: int
    digest: str


@probe(
    system=MODELS,
    observes={
        "gradient_ratio": "",
        "bias_gradient_ratio": "",
        "embedding_gradient_ratio": "",
        "parameters_uncovered": "tensors",
        "parameters_compared": "tensors",
    },
    defects=DEFECTS,
)
@on_one_thread
def backward(system: ModelsUnderContract) -> Observation:
    """Every parameter's gradient on packed, padded documents: error over that of the oracle's float32 plans.

    Measured as in ``forward``. Another text is read before: nothing of it may be left. ``parameters_uncovered`` have no
    gradient, or one that is 0.
    """
    found = [system.kept("backward", name, lambda n=name: _gradients(system, n)) for name in CONFIGS]  # type: ignore[misc]
    values = {
        "gradient_ratio": max(of.ratio for of in found),
        "bias_gradient_ratio": max(of.bias_ratio for of in found),
        "embedding_gradient_ratio": max(of.embedding_ratio for of in found),
        "parameters_uncovered": sum(of.uncovered for of in found),
        "parameters_compared": sum(of.parameters for of in found),
    }
    return Observation(values, hashlib.sha256("".join(of.digest for of in found).encode()).hexdigest())


def _gradients(system: ModelsUnderContract, name: str) -> Gradients:
    built, reference = system.model(name, "float32"), system.reference(name, "float32")
    learnt(built, TAIL)
    _, gradients = learnt(built, TEXT)
    exact, *plans = (of.gradients for of in reference.read("backward", TEXT))
    ratios = {}
    for parameter, z in exact.items():
        envelope = reference.envelope(z, *(plan[parameter] for plan in plans), positions=int(TEXT.tokens_BT.numel()))
        ratios[parameter] = envelope.norm_ratio(gradients.get(parameter, torch.zeros_like(z)))
    uncovered = [p for p in exact if p not in gradients or not bool(gradients[p].any())]
    worst = {kind: max(ratio for p, ratio in ratios.items() if _kind(p) == kind) for kind in ("bias", "table", "other")}
    ordered = [gradients[parameter] for parameter in sorted(gradients)]
    return Gradients(worst["other"], worst["bias"], worst["table"], len(uncovered), len(exact), digest_of(ordered))


def _kind(parameter: str) -> str:
    if parameter.endswith(".bias"):
        return "bias"
    return "table" if "embed_tokens" in parameter or "lm_head" in parameter else "other"


def learnt(built: CudaTransformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The model's mean loss and its gradients, on the CPU."""
    loss, gradients = built.loss_and_gradients(
        batch.tokens_BT, positions_BT=batch.positions_BT, documents_BT=batch.documents_BT
    )
    return loss.cpu(), {name: gradient.cpu() for name, gradient in gradients.items()}

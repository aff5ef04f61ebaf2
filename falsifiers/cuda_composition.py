"""Probes of FALSIFY-CUDA-COMPOSITION-001 ... -003: whole models against the oracle, wiring, gradients and losses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aprender.falsify.probe import Observation, probe
from aprender.parity.tails import UNDECLARED_IN_FLOAT32
from aprender.parity.wiring import Call, Recorder, check
from aprender.transformer.cuda.model import CudaTransformer
from aprender.transformer.cuda.stages import stage_names
from aprender.transformer.oracle import Batch
from falsifiers.cuda_composition_defects import DEFECTS
from falsifiers.cuda_model_system import CONFIGS, MODELS, ModelsUnderContract, document, read
from falsifiers.digests import digest_of
from falsifiers.threads import on_one_thread

LARGEST = 1e12  # stands for all that is larger, and for NaN
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
    built, reference = system.models[name], system.references[name]
    real = TEXT.documents_BT >= 0
    states: list[Tensor] = []
    calls, logits = recorded(built, states)
    oracles = (reference.exact, *reference.plans)
    expected = [oracle.hidden_states(TEXT) for oracle in oracles]
    hidden = [norm_ratio(*(of[i][real] for of in expected), found=state[real]) for i, state in enumerate(states)]
    counted = TEXT.targets()[1]
    losses = losses_of(built, TEXT)
    wired = expected_calls(built)
    return Pass(
        max(hidden),
        norm_ratio(*(oracle.logits(TEXT)[real] for oracle in oracles), found=logits[real]),
        norm_ratio(*(oracle.token_losses(TEXT)[counted] for oracle in oracles), found=losses[counted]),
        len(check(wired, calls)),
        sum(len(call.inputs) for call in wired),
        logits[real].numel() + sum(state[real].numel() for state in states),
        digest_of([logits, losses, *states]),
    )


def norm_ratio(exact: Tensor, *plans: Tensor, found: Tensor) -> float:
    """The Euclidean norm of an error over what is allowed; 0 where nothing is, and nothing is wrong."""
    if exact.shape != found.shape:
        return LARGEST
    allowed = UNDECLARED_IN_FLOAT32 * max(float((plan.double() - exact).norm()) for plan in plans)
    error = float((found.double() - exact).norm())
    return 0.0 if error == 0 else min(error / allowed, LARGEST) if allowed and error == error else LARGEST


def losses_of(built: CudaTransformer, batch: Batch) -> Tensor:
    """The model's token losses [B, T-1], on the CPU."""
    return built.token_losses(batch.tokens_BT, positions_BT=batch.positions_BT, documents_BT=batch.documents_BT).cpu()


def recorded(built: CudaTransformer, states: list[Tensor]) -> tuple[list[Call], Tensor]:
    """Digests of every call of a stage in one forward pass, and the logits; ``states`` gets the hidden states.

    They are kept as the oracle names them: after the embedding, after each layer, and after the last norm.
    """
    recorder = Recorder()

    def kept(name: str, stage: Any) -> Any:
        run = recorder.wrap(name, stage)

        def call(*inputs: Any) -> Any:
            output = run(*inputs)
            if name in ("embed_tokens", "norm") or name.endswith(".residual"):
                states.append(output.detach().cpu().clone())
            return output

        return call

    with ExitStack() as stack:
        for name in stage_names(built):
            owner = built if "." not in name else next(x for x in built.layers if f".{x.index}." in name)
            attribute = name.rsplit(".", 1)[-1]
            stage = getattr(owner, attribute)
            setattr(owner, attribute, kept(name, stage))
            stack.callback(setattr, owner, attribute, stage)
        logits = read(built, TEXT)
    return recorder.calls, logits


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
    q, k, after = f"{at}q_proj", f"{at}k_proj", f"{at}post_attention_layernorm"
    yield "input_layernorm", [x], (f"{at}input_layernorm",)
    for name in ("q_proj", "k_proj", "v_proj"):
        yield name, [f"{at}input_layernorm"], (f"{at}{name}",)
    if built.config.qk_norm:
        for name, source in (("q_norm", q), ("k_norm", k)):
            yield name, [source], (f"{at}{name}",)
        q, k = f"{at}q_norm", f"{at}k_norm"
    for name, source in (("q_rope", q), ("k_rope", k)):
        yield name, [source], (f"{at}{name}",)
    yield "attention", [f"{at}q_rope", f"{at}k_rope", f"{at}v_proj"], (f"{at}attention",)
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
    built, reference = system.models[name], system.references[name]
    learnt(built, TAIL)
    _, gradients = learnt(built, TEXT)
    exact, *plans = (oracle.backward(TEXT).gradients for oracle in (reference.exact, *reference.plans))
    ratios = {}
    for parameter, z in exact.items():
        found = gradients.get(parameter, torch.zeros_like(z))
        ratios[parameter] = norm_ratio(z, *(plan[parameter] for plan in plans), found=found)
    uncovered = [p for p in exact if p not in gradients or not bool(gradients[p].any())]
    worst = {kind: max(ratio for p, ratio in ratios.items() if _kind(p) == kind) for kind in ("bias", "table", "other")}
    ordered = [gradients[parameter] for parameter in sorted(gradients)]
    return Gradients(worst["other"], worst["bias"], worst["table"], len(uncovered), len(exact), digest_of(ordered))


def _kind(parameter: str) -> str:
    if parameter.endswith(".bias"):
        return "bias"
    return "table" if "embed_tokens" in parameter or "lm_head" in parameter else "other"


@probe(
    system=MODELS,
    observes={
        "loss_ratio": "",
        "evaluation_ratio": "",
        "uncounted_losses": "places",
        "targets_counted": "tokens",
        "least_loss": "nats",
    },
    defects=DEFECTS,
)
@on_one_thread
def honesty(system: ModelsUnderContract) -> Observation:
    """The loss that is reported: the mean over the tokens that have one before them in their document, of the weights.

    ``loss_ratio`` is the training loss's error, ``evaluation_ratio`` that of the mean over two unequal batches; allowed
    is the mean of what sums change in a token's loss, doubled. ``uncounted_losses``: losses where there is no target.
    """
    built, reference = system.models["tied"], system.references["tied"]
    loss, _ = learnt(built, TEXT)
    losses = [losses_of(built, batch) for batch in (TEXT, TAIL)]
    counted = [batch.targets()[1] for batch in (TEXT, TAIL)]
    exact, *plans = (
        [oracle.token_losses(batch)[at].double() for batch, at in zip((TEXT, TAIL), counted, strict=True)]
        for oracle in (reference.exact, *reference.plans)
    )
    allowed = 2 * max(float((torch.cat(plan) - torch.cat(exact)).abs().mean()) for plan in plans)
    count = sum(int(at.sum()) for at in counted)
    evaluated = sum(float(found.double().sum()) for found in losses) / count
    values = {
        "loss_ratio": min(abs(float(loss) - float(exact[0].mean())) / allowed, LARGEST),
        "evaluation_ratio": min(abs(evaluated - float(torch.cat(exact).mean())) / allowed, LARGEST),
        "uncounted_losses": sum(int((found[~at] != 0).sum()) for found, at in zip(losses, counted, strict=True)),
        "targets_counted": count,
        "least_loss": float(torch.cat(exact).min()),
    }
    return Observation(values, digest_of([loss, *losses]))


def learnt(built: CudaTransformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The model's mean loss and its gradients, on the CPU."""
    loss, gradients = built.loss_and_gradients(
        batch.tokens_BT, positions_BT=batch.positions_BT, documents_BT=batch.documents_BT
    )
    return loss.cpu(), {name: gradient.cpu() for name, gradient in gradients.items()}

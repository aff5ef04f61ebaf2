"""Probe of FALSIFY-CUDA-COMPOSITION-003 and -005: the loss that is reported, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aprender.falsify.probe import Observation, probe
from aprender.parity.tails import UNDECLARED_IN_FLOAT32, norm_excess
from aprender.transformer.cuda import stages
from falsifiers.cuda_composition import TAIL, TEXT, learnt, losses_of
from falsifiers.cuda_composition_defects import DEFECTS
from falsifiers.cuda_model_reference import Envelope, Reference, mean_ratio
from falsifiers.cuda_model_system import MODELS, ModelsUnderContract
from falsifiers.digests import digest_of
from falsifiers.threads import on_one_thread


@probe(
    system=MODELS,
    observes={
        "loss_ratio": "",
        "evaluation_ratio": "",
        "head_ratio": "",
        "uncounted_losses": "places",
        "targets_counted": "tokens",
        "least_loss": "nats",
    },
    defects=DEFECTS,
)
@on_one_thread
def honesty(system: ModelsUnderContract, *, dtype: str) -> Observation:
    """The loss that is reported: the mean over the tokens that have one before them in their document, of the weights.

    ``loss_ratio`` is the training loss's error, ``evaluation_ratio`` that of the mean over two unequal batches; allowed
    is the mean of what the oracle's legal runs change in a token's loss, doubled. ``head_ratio``: token losses, and the
    training loss, against float64 ones of the very states that were read; float32 sums are all that may differ.
    ``uncounted_losses``: losses where there is no target.
    """
    built, reference = system.model("tied", dtype), system.reference("tied", dtype)
    with stages.recorded(built, ["loss"]) as calls:
        loss, _ = learnt(built, TEXT)
        losses = [losses_of(built, batch) for batch in (TEXT, TAIL)]
    counted = [batch.targets()[1] for batch in (TEXT, TAIL)]
    of_text, of_tail = (
        [of[at] for of in reference.read("token_losses", batch)]
        for batch, at in zip((TEXT, TAIL), counted, strict=True)
    )
    of_both = [torch.cat(pair).double() for pair in zip(of_text, of_tail, strict=True)]
    count = sum(int(at.sum()) for at in counted)
    evaluated = sum(float(found.double().sum()) for found in losses) / count
    values = {
        "loss_ratio": mean_ratio(float(loss), *of_text),
        "evaluation_ratio": mean_ratio(evaluated, *of_both),
        "head_ratio": _head_ratio(reference, calls["loss"], loss, losses),
        "uncounted_losses": sum(int((found[~at] != 0).sum()) for found, at in zip(losses, counted, strict=True)),
        "targets_counted": count,
        "least_loss": float(of_both[0].min()),
    }
    return Observation(values, digest_of([loss, *losses]))


def _head_ratio(reference: Reference, calls: Sequence[stages.Call], loss: Tensor, losses: Sequence[Tensor]) -> float:
    """The larger of the training loss's, on TEXT, and of that of all tokens' losses, of TEXT and TAIL together."""
    batches, of_states = (TEXT, TEXT, TAIL), []
    for call, batch in zip(calls, batches, strict=True):
        targets_BT, counted_BT = batch.targets()
        of_states.append(reference.head(call.args[0].cpu()[:, :-1][counted_BT], targets_BT[counted_BT]))
    exact, *plans = (torch.cat(pair) for pair in zip(*of_states[1:], strict=True))
    found = torch.cat([of[batch.targets()[1]] for of, batch in zip(losses, batches[1:], strict=True)])
    chance = float(norm_excess(torch.tensor(float(len(exact)))))
    envelope = Envelope(exact, plans, UNDECLARED_IN_FLOAT32 * chance)
    return max(mean_ratio(float(loss), *of_states[0]), envelope.norm_ratio(found))

"""Probe of FALSIFY-CUDA-COMPOSITION-003 and -005: the loss that is reported, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from aprender.falsify.probe import Observation, probe
from aprender.parity.tails import UNDECLARED_IN_FLOAT32
from aprender.transformer.cuda import stages
from falsifiers.cuda_composition import TAIL, TEXT, learnt, losses_of
from falsifiers.cuda_composition_defects import DEFECTS
from falsifiers.cuda_model_reference import Envelope, Reference, mean_ratio
from falsifiers.cuda_model_system import MODELS, ModelsUnderContract
from falsifiers.digests import digest_of
from falsifiers.oracle_system import on_one_thread


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
        "head_ratio": max(_head_ratios(reference, calls["loss"], loss, losses)),
        "uncounted_losses": sum(int((found[~at] != 0).sum()) for found, at in zip(losses, counted, strict=True)),
        "targets_counted": count,
        "least_loss": float(of_both[0].min()),
    }
    return Observation(values, digest_of([loss, *losses]))


def _head_ratios(
    reference: Reference, calls: Sequence[stages.Call], loss: Tensor, losses: Sequence[Tensor]
) -> Iterator[float]:
    """Of the training loss on TEXT, and of the losses of tokens of TEXT and TAIL, by the states that they read."""
    for call, batch, found in zip(calls, (TEXT, TEXT, TAIL), (loss, *losses), strict=True):
        targets_BT, counted_BT = batch.targets()
        of_states = reference.head(call.args[0].cpu()[:, :-1][counted_BT], targets_BT[counted_BT])
        if call is calls[0]:
            yield mean_ratio(float(found), *of_states)
        else:
            exact, *plans = of_states
            yield Envelope(exact, plans, UNDECLARED_IN_FLOAT32).norm_ratio(found[counted_BT])

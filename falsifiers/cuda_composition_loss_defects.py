"""Planted defects of the reported loss: over the wrong tokens, averaged wrongly, in other units, of other weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.cuda import model
from aprender.transformer.cuda.batch import IGNORED
from aprender.transformer.cuda.model import CudaTransformer
from falsifiers.cuda_model_planting import Planting, stage_wrong, wrapped
from falsifiers.cuda_model_system import ModelsUnderContract

DEFECTS = Defects()


def _targets(system: ModelsUnderContract, change: Callable[..., Tensor]) -> Planting:
    """The targets are ``change(right targets, tokens, documents)``."""

    def make(right: Any) -> Any:
        return lambda tokens, at: change(right(tokens, at), tokens, at.documents_BT)

    return wrapped(system, model, "targets", make)


@DEFECTS.plant("padding_counted")
def padding_counted(system: ModelsUnderContract) -> Planting:
    """What follows padding, or is padding, is a target as well."""

    def change(right: Tensor, tokens: Tensor, documents: Tensor) -> Tensor:
        following = tokens.roll(-1, 1)
        padded = documents.roll(-1, 1) < 0
        padded[:, -1] = False
        return torch.where(padded, following, right)

    return _targets(system, change)


@DEFECTS.plant("document_boundaries_crossed")
def document_boundaries_crossed(system: ModelsUnderContract) -> Planting:
    """The first token of a document is predicted from the one before it."""

    def change(right: Tensor, tokens: Tensor, documents: Tensor) -> Tensor:
        both = (documents >= 0) & (documents.roll(-1, 1) >= 0)
        both[:, -1] = False
        return torch.where(both, tokens.roll(-1, 1), right)

    return _targets(system, change)


@DEFECTS.plant("targets_shifted_by_two")
def targets_shifted_by_two(system: ModelsUnderContract) -> Planting:
    """Shifted by the loader, and by the model again."""
    return _targets(system, lambda right, tokens, documents: torch.where(right == IGNORED, right, tokens.roll(-2, 1)))


@DEFECTS.plant("targets_not_shifted")
def targets_not_shifted(system: ModelsUnderContract) -> Planting:
    """Each token is to predict itself."""
    return _targets(system, lambda right, tokens, documents: torch.where(right == IGNORED, right, tokens))


@DEFECTS.plant("targets_of_the_next_row")
def targets_of_the_next_row(system: ModelsUnderContract) -> Planting:
    """Rows of hidden states and of targets part."""
    return _targets(system, lambda right, tokens, documents: right.roll(1, 0))


@DEFECTS.plant("last_target_of_each_row_dropped")
def last_target_of_each_row_dropped(system: ModelsUnderContract) -> Planting:
    """Off by one at the end."""

    def change(right: Tensor, tokens: Tensor, documents: Tensor) -> Tensor:
        later = (right.flip(1) != IGNORED).cumsum(1).flip(1)
        return torch.where(later == 1, IGNORED, right)

    return _targets(system, change)


@DEFECTS.plant("tail_batch_dropped")
def tail_batch_dropped(system: ModelsUnderContract) -> Planting:
    """A batch of fewer rows than the first has no losses."""

    def make(right: Any) -> Any:
        def losses(self: CudaTransformer, tokens: Tensor, **rest: Any) -> Any:
            return right(self, tokens, **rest) * (len(tokens) > 1)

        return losses

    return wrapped(system, CudaTransformer, "token_losses", make, "tied")


@DEFECTS.plant("ignored_targets_count_as_token_zero")
def ignored_targets_count_as_token_zero(system: ModelsUnderContract) -> Planting:
    """The loss does not know which target is none."""
    return _targets(system, lambda right, tokens, documents: right.clamp(min=0))


class ChangedLoss:
    """The right loss stage with its mean, or the losses of tokens, changed."""

    def __init__(self, right: Any, mean: Callable[..., Tensor], tokens: Callable[[Tensor], Tensor]) -> None:
        self.right, self.mean, self.tokens = right, mean, tokens

    def forward(self, x: Tensor, targets: Tensor) -> Any:
        loss, saved = self.right.forward(x, targets)
        return self.mean(loss, self.right.token_losses(x, targets), targets), saved

    def backward(self, saved: Any, d_output: Tensor) -> Any:
        return self.right.backward(saved, d_output)

    def token_losses(self, x: Tensor, targets: Tensor) -> Tensor:
        return self.tokens(self.right.token_losses(x, targets))


def loss_wrong(
    system: ModelsUnderContract,
    mean: Callable[..., Tensor] = lambda loss, losses, targets: loss,
    tokens: Callable[[Tensor], Tensor] = lambda losses: losses,
) -> Planting:
    """The mean loss is ``mean(right, losses of tokens, targets)``, the losses of tokens ``tokens(right ones)``."""
    return stage_wrong(system, "tied", "loss", lambda right: ChangedLoss(right, mean, tokens))


@DEFECTS.plant("loss_summed_not_averaged")
def loss_summed_not_averaged(system: ModelsUnderContract) -> Planting:
    """The sum of all losses."""
    return loss_wrong(system, lambda loss, losses, targets: losses.sum())


@DEFECTS.plant("loss_averaged_over_padding")
def loss_averaged_over_padding(system: ModelsUnderContract) -> Planting:
    """Divided by all places."""
    return loss_wrong(system, lambda loss, losses, targets: losses.mean())


@DEFECTS.plant("mean_of_the_rows_means")
def mean_of_the_rows_means(system: ModelsUnderContract) -> Planting:
    """Short rows weigh as much as long ones."""

    def mean(loss: Tensor, losses: Tensor, targets: Tensor) -> Tensor:
        return (losses.sum(1) / (targets != IGNORED).sum(1)).mean()

    return loss_wrong(system, mean)


@DEFECTS.plant("mean_of_the_chunks_means")
def mean_of_the_chunks_means(system: ModelsUnderContract) -> Planting:
    """Chunks of 5 places, the last of them shorter."""

    def mean(loss: Tensor, losses: Tensor, targets: Tensor) -> Tensor:
        chunks = zip(torch.split(losses.flatten(), 5), torch.split((targets != IGNORED).flatten(), 5), strict=True)
        return torch.stack([of.sum() / counted.sum() for of, counted in chunks if bool(counted.any())]).mean()

    return loss_wrong(system, mean)


@DEFECTS.plant("loss_in_bits")
def loss_in_bits(system: ModelsUnderContract) -> Planting:
    """Base 2."""
    return loss_wrong(system, lambda loss, losses, targets: loss / math.log(2), lambda losses: losses / math.log(2))


@DEFECTS.plant("label_smoothing_left_on")
def label_smoothing_left_on(system: ModelsUnderContract) -> Planting:
    """A hundredth of ln V is mixed in."""
    share = 0.01 * math.log(67)
    return loss_wrong(
        system, lambda loss, losses, targets: 0.99 * loss + share, lambda losses: losses * 0.99 + share * (losses != 0)
    )


@DEFECTS.plant("losses_clipped")
def losses_clipped(system: ModelsUnderContract) -> Planting:
    """Hard tokens count for 8 nats at most."""
    return loss_wrong(system, tokens=lambda losses: losses.clamp(max=8.0))


@DEFECTS.plant("evaluated_on_other_weights")
def evaluated_on_other_weights(system: ModelsUnderContract) -> Planting:
    """A moving average of the weights: here a hundredth off in one matrix."""

    def averaged(right: Any) -> Any:
        return replace(right, weight=right.weight * 0.99)

    def make(right: Any) -> Any:
        def losses(self: CudaTransformer, *given: Any, **rest: Any) -> Any:
            stage = self.layers[0].down_proj
            self.layers[0].down_proj = averaged(stage)
            try:
                return right(self, *given, **rest)
            finally:
                self.layers[0].down_proj = stage

        return losses

    return wrapped(system, CudaTransformer, "token_losses", make, "tied")


@DEFECTS.plant("dropout_left_on")
def dropout_left_on(system: ModelsUnderContract) -> Planting:
    """A tenth of the final state is dropped in evaluation."""

    def dropping(right: Any) -> Any:
        def norm(x: Tensor) -> Tensor:
            y: Tensor = right(x).clone()
            y[..., ::10] = 0
            return y

        return _Norm(right, norm)

    return stage_wrong(system, "tied", "norm", dropping)


class _Norm:
    """Another norm where nothing is trained."""

    def __init__(self, right: Any, call: Callable[[Tensor], Tensor]) -> None:
        self.right, self.call = right, call

    def __call__(self, x: Tensor) -> Tensor:
        return self.call(x)

    def forward(self, x: Tensor) -> Any:
        return self.right.forward(x)

    def backward(self, saved: Any, d_output: Tensor) -> Any:
        return self.right.backward(saved, d_output)

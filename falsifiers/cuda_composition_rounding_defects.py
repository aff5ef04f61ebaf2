"""Planted defects of where a CUDA model rounds: storage that is too narrow, and sums that are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.cuda.batch import IGNORED
from falsifiers.cuda_composition_loss_defects import ChangedLoss, loss_wrong
from falsifiers.cuda_model_planting import Planting, Seen, rewired, stage_wrong
from falsifiers.cuda_model_system import ModelsUnderContract

DEFECTS = Defects()


@DEFECTS.plant("residual_stream_in_bfloat16")
def residual_stream_in_bfloat16(system: ModelsUnderContract) -> Planting:
    """Between the layers."""
    return stage_wrong(
        system, "tied", "layers.0.residual", lambda right: lambda x, y: right(x, y).bfloat16().to(x.dtype)
    )


@DEFECTS.plant("partial_sums_in_bfloat16")
def partial_sums_in_bfloat16(system: ModelsUnderContract) -> Planting:
    """One projection's accumulator has its storage dtype."""

    def added(right: Any) -> Any:
        def project(x: Tensor) -> Tensor:
            y = torch.zeros(*x.shape[:-1], len(right.weight), dtype=torch.bfloat16, device=x.device)
            for k in range(x.shape[-1]):
                y += (x[..., k, None] * right.weight[:, k]).bfloat16()
            return y.to(x.dtype)

        return project

    return stage_wrong(system, "untied", "layers.1.down_proj", added)


@DEFECTS.plant("weight_in_float8")
def weight_in_float8(system: ModelsUnderContract) -> Planting:
    """A quantised checkpoint's, widened again."""
    return stage_wrong(
        system, "untied", "layers.1.up_proj", lambda right: replace(right, weight=_in_float8(right.weight))
    )


@DEFECTS.plant("activations_in_float8")
def activations_in_float8(system: ModelsUnderContract) -> Planting:
    """Between two stages of the MLP."""

    def inputs(block: Any, name: str, given: Any, seen: Seen) -> Any:
        return (_in_float8(given[0]),) if name == "down_proj" else given

    return rewired(system, inputs=inputs, models=("untied",))


@DEFECTS.plant("logits_in_bfloat16")
def logits_in_bfloat16(system: ModelsUnderContract) -> Planting:
    """Under a float32 label."""
    return stage_wrong(system, "untied", "lm_head", lambda right: lambda x: right(x).bfloat16().float())


@DEFECTS.plant("losses_in_bfloat16")
def losses_in_bfloat16(system: ModelsUnderContract) -> Planting:
    """Rounded before they are averaged."""
    return loss_wrong(
        system,
        lambda loss, losses, targets: (loss.bfloat16()).float(),
        lambda losses: losses.bfloat16().float(),
    )


@DEFECTS.plant("losses_added_up_in_bfloat16")
def losses_added_up_in_bfloat16(system: ModelsUnderContract) -> Planting:
    """The training loss alone; each token's loss is right."""

    def mean(loss: Tensor, losses: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.bfloat16, device=losses.device)
        for one in losses.flatten():
            total += one.bfloat16()
        return total.float() / (targets != IGNORED).sum()

    return loss_wrong(system, mean)


@DEFECTS.plant("loss_of_logits_in_bfloat16")
def loss_of_logits_in_bfloat16(system: ModelsUnderContract) -> Planting:
    """Logits are stored before the softmax reads them."""

    class Rounded(ChangedLoss):
        def token_losses(self, x: Tensor, targets: Tensor) -> Tensor:
            logits = (x.float() @ self.right.weight.float().T).bfloat16().float()
            of_targets = logits.gather(-1, targets.clamp(min=0)[..., None].long())[..., 0]
            losses: Tensor = (logits.logsumexp(-1) - of_targets).where(targets != IGNORED, 0)
            return losses

    return stage_wrong(system, "tied", "loss", lambda right: Rounded(right, lambda loss, *rest: loss, lambda x: x))


def _in_float8(x: Tensor) -> Tensor:
    return x.to(torch.float8_e4m3fn).to(x.dtype)

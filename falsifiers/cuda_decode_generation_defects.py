"""Planted defects of what a cached decode would say next: another road for one token, and logits that are changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.cuda import CudaTransformer
from falsifiers.cuda_model_planting import Planting, stage_wrong, wrapped
from falsifiers.cuda_model_system import CACHE, ModelsUnderContract
from falsifiers.projections import bias_with

DEFECTS = Defects()


@DEFECTS.plant("bias_dropped_for_one_token")
def bias_dropped_for_one_token(system: ModelsUnderContract) -> Planting:
    """The matrix-vector road of the keys has no bias."""

    def without(right: Any) -> Any:
        unbiased = replace(right, bias=bias_with(right, "k_proj", 0.0))
        return lambda x: (unbiased if x.shape[1] == 1 else right)(x)

    return stage_wrong(system, "untied", "layers.0.qkv_proj", without)


@DEFECTS.plant("table_of_one_token_in_bfloat16")
def table_of_one_token_in_bfloat16(system: ModelsUnderContract) -> Planting:
    """The matrix-vector road of the head has a copy of the tied table, half as wide."""

    def copied(right: Any) -> Any:
        copy = replace(right, weight=right.weight.bfloat16().to(right.weight.dtype))
        return lambda x: (copy if x.shape[1] == 1 else right)(x)

    return stage_wrong(system, "tied", "lm_head", copied)


def _logits(system: ModelsUnderContract, change: Callable[..., Tensor]) -> Planting:
    """``change(logits, tokens)`` in passes with a cache."""

    def make(right: Any) -> Any:
        def forward(self: CudaTransformer, tokens: Tensor, **rest: Any) -> Any:
            logits = right(self, tokens, **rest)
            return logits if rest.get("cache") is None else change(logits, tokens)

        return forward

    return wrapped(system, CudaTransformer, "forward", make, CACHE)


@DEFECTS.plant("logits_of_the_position_before")
def logits_of_the_position_before(system: ModelsUnderContract) -> Planting:
    """The choice is made one place too early wherever a pass has more than one token."""
    return _logits(system, lambda logits, tokens: logits.roll(1, 1))


@DEFECTS.plant("repetition_penalty_left_on")
def repetition_penalty_left_on(system: ModelsUnderContract) -> Planting:
    """What was just read is less likely."""

    def penalised(logits: Tensor, tokens: Tensor) -> Tensor:
        return logits.scatter_add(2, tokens.to(logits.device)[..., None], logits * 0 - 1.0)

    return _logits(system, penalised)


@DEFECTS.plant("temperature_left_on")
def temperature_left_on(system: ModelsUnderContract) -> Planting:
    """The choice stays, the odds do not."""
    return _logits(system, lambda logits, tokens: logits / 0.9)

"""How defects are planted in the CUDA path's models: methods wrapped, stages changed, and passes wired otherwise."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from torch import Tensor

from aprender.transformer.cuda import CudaTransformer
from aprender.transformer.cuda.block import Block
from falsifiers.cuda_model_system import CACHE, CONFIGS, ModelsUnderContract

Planting = Generator[None]
Seen = dict[str, Any]  # what a layer's stages returned so far in this pass, by stage, and its own input as "x"


def wrapped(system: ModelsUnderContract, owner: Any, name: str, make: Callable[[Any], Any], *models: str) -> Planting:
    """Replace a function, method or attribute by ``make(right)``."""
    with system.replaced(owner, name, make(getattr(owner, name)), models or tuple(CONFIGS)):
        yield


def stage_wrong(system: ModelsUnderContract, of: str, name: str, change: Callable[[Any], Any]) -> Planting:
    """Replace one stage of one model by ``change(right)``."""
    return stage_elsewhere(system, of, name, lambda right, built: change(right))


def stage_elsewhere(
    system: ModelsUnderContract, of: str, name: str, change: Callable[[Any, CudaTransformer], Any]
) -> Planting:
    """Replace one stage of one model by ``change(right, model)``, which may take what is elsewhere in the model."""
    with system.with_stage(of, name, change):
        yield


def rewired(
    system: ModelsUnderContract,
    inputs: Callable[..., Any] | None = None,
    output: Callable[..., Any] | None = None,
    cached: bool = False,
    models: tuple[str, ...] = tuple(CONFIGS),
) -> Planting:
    """Every layer's forward pass, with stages given, or returning, something else.

    ``inputs(block, stage, given, seen)`` returns what the stage is called with, ``output(block, stage, y, seen)`` what
    it is said to have returned. ``cached``: only in passes with a cache, whose extension is ``seen["past"]``.
    """

    def make(right: Any) -> Any:
        def forward(self: Block, x_BTD: Tensor, places: Any, run: Any, past: Any = None) -> Any:
            if cached and past is None:
                return right(self, x_BTD, places, run, past)
            seen: Seen = {"x": x_BTD, "past": past}

            def other(name: str, *given: Any) -> Any:
                y = run(name, *(inputs(self, name, given, seen) if inputs else given))
                seen[name] = output(self, name, y, seen) if output else y
                return seen[name]

            return right(self, x_BTD, places, other, past)

        return forward

    return wrapped(system, Block, "forward", make, *((CACHE,) if cached else models))


def attending(system: ModelsUnderContract, change: Callable[..., Any], cached: bool = True) -> Planting:
    """Attention on ``change(block, past, q, k, v, positions of q and k, documents of q and k)``."""

    def inputs(block: Block, name: str, given: Any, seen: Seen) -> Any:
        return change(block, seen["past"], *given) if name == "attention" else given

    return rewired(system, inputs, cached=cached, models=("untied",))

"""Stages by name: list, get, replace and record them on a live model.

A stage is a callable that the model holds as an attribute, so replacing one is setting an attribute, and the clean
pass pays nothing. Names are ``embed_tokens``, ``layers.3.qkv_proj``, ..., ``norm``, ``lm_head`` and ``loss``. A stage
need only be callable to make logits; gradients need its ``forward`` and ``backward``, and losses the ``token_losses``
of ``loss``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.block import Block, Stage
from aprender.transformer.cuda.model import CudaTransformer
from aprender.transformer.cuda.ops import Gradients, Saved

BLOCK_STAGES = tuple(field.name for field in fields(Block) if field.name not in ("index", "head_dim"))


@dataclass(slots=True)
class Call:
    """One call of a stage: its tensors and what it returned, by reference, not copied.

    After a backward pass also the output's gradient, and the gradients of inputs and parameters.
    """

    args: tuple[Any, ...]
    output: Any
    d_output: Any = None
    gradients: Gradients | None = None


def stage_names(model: CudaTransformer) -> list[str]:
    """Name every stage of ``model`` in forward order; of ``lm_head`` and ``loss`` a pass calls one."""
    blocks = [
        f"layers.{i}.{name}"
        for i, layer in enumerate(model.layers)
        for name in BLOCK_STAGES
        if getattr(layer, name) is not None
    ]
    return ["embed_tokens", *blocks, "norm", "lm_head", "loss"]


def get_stage(model: CudaTransformer, name: str) -> Stage:
    """Return the stage called ``name``. Raises AprenderError, with the nearest name, when there is none."""
    owner, attribute = _locate(model, name)
    stage: Stage = getattr(owner, attribute)
    return stage


@contextmanager
def replaced(model: CudaTransformer, name: str, stage: Stage) -> Iterator[None]:
    """Put ``stage`` in the place of the one called ``name``, which comes back at the end, also after an error.

    Raises AprenderError when there is no stage called ``name``.
    """
    owner, attribute = _locate(model, name)
    original = getattr(owner, attribute)
    setattr(owner, attribute, stage)
    try:
        yield
    finally:
        setattr(owner, attribute, original)


@contextmanager
def recorded(model: CudaTransformer, names: Iterable[str]) -> Iterator[dict[str, list[Call]]]:
    """Record every call of the stages ``names``, with their backward: a mapping to calls, in order of ``names``.

    A stage that is replaced while this is active is not recorded. Raises AprenderError when there is no such stage.
    """
    calls: dict[str, list[Call]] = {name: [] for name in names}
    with ExitStack() as stack:
        for name, log in calls.items():
            stack.enter_context(replaced(model, name, _recorder(get_stage(model, name), log)))
        yield calls


@dataclass(slots=True)
class _Recorder:
    stage: Any
    log: list[Call]

    def __call__(self, *args: Any) -> Any:
        output = self.stage(*args)
        self.log.append(Call(args, output))
        return output

    def token_losses(self, *args: Any) -> Tensor:
        losses: Tensor = self.stage.token_losses(*args)
        self.log.append(Call(args, losses))
        return losses


@dataclass(slots=True)
class _PassRecorder(_Recorder):
    """Of a stage with a backward pass; what it saves goes around with the call that it belongs to."""

    def forward(self, *args: Any) -> tuple[Any, Any]:
        output, saved = self.stage.forward(*args)
        call = Call(args, output)
        self.log.append(call)
        return output, (call, saved)

    def backward(self, saved: tuple[Call, Saved], d_output: Any) -> Gradients:
        call, kept = saved
        gradients: Gradients = self.stage.backward(kept, d_output)
        call.d_output, call.gradients = d_output, gradients
        return gradients


def _recorder(stage: Stage, log: list[Call]) -> _Recorder:
    return (_PassRecorder if hasattr(stage, "backward") else _Recorder)(stage, log)


def _locate(model: CudaTransformer, name: str) -> tuple[CudaTransformer | Block, str]:
    names = stage_names(model)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise AprenderError(f"the model has no stage {name!r}{hint}")
    if not name.startswith("layers."):
        return model, name
    _, index, attribute = name.split(".")
    return model.layers[int(index)], attribute

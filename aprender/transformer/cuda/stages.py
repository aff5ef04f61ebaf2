"""Stages by name: list, get, replace and record them on a live model.

A stage is a callable that the model holds as an attribute, so replacing one is setting an attribute, and the clean
forward pass pays nothing. Names are ``embed_tokens``, ``layers.3.q_proj``, ..., ``norm``, ``lm_head``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import NamedTuple

from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.model import Block, CudaTransformer, Stage

BLOCK_STAGES = tuple(field.name for field in fields(Block) if field.name != "head_dim")


class Call(NamedTuple):
    """One call of a stage: its positional tensors and what it returned, by reference, not copied."""

    args: tuple[Tensor, ...]
    output: Tensor


def stage_names(model: CudaTransformer) -> list[str]:
    """Name every stage of ``model`` in forward order."""
    blocks = [f"layers.{i}.{name}" for i in range(len(model.layers)) for name in BLOCK_STAGES]
    return ["embed_tokens", *blocks, "norm", "lm_head"]


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
    """Record every call of the stages ``names``: a mapping from name to calls, in order of ``names``.

    ``lm_head`` is called on chunks by ``token_losses``. A stage that is replaced while this is active is not recorded.
    Raises AprenderError when there is no such stage.
    """
    calls: dict[str, list[Call]] = {name: [] for name in names}
    with ExitStack() as stack:
        for name, log in calls.items():
            stack.enter_context(replaced(model, name, _Recorder(get_stage(model, name), log)))
        yield calls


@dataclass(slots=True)
class _Recorder:
    stage: Stage
    log: list[Call]

    def __call__(self, *args: Tensor) -> Tensor:
        output = self.stage(*args)
        self.log.append(Call(args, output))
        return output


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

"""Accounting of tensors, shared by all readers: each is there, once, with its shape and finite, and nothing is left."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from aprender.errors import FormatError
from aprender.formats.finite import all_finite, describe_non_finite
from aprender.formats.tensor_table import shape_problems
from aprender.transformer.config import TransformerConfig

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_SHOWN = 40  # problems in one message


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor still in its file, under the file's own name.

    ``read`` returns it as a contiguous CPU tensor of ``shape``, or raises FormatError, whose message continues a
    sentence that begins with the name.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Account:
    """What was in the file and what became of it. A checkpoint exists only where all of it adds up.

    ``tensors_in_file = tensors_consumed + tensors_ignored``, and ``parameters_written`` of the configuration's
    ``parameters`` tensors came from them. ``dtypes`` counts the consumed tensors by their dtype in the file.
    """

    tensors_in_file: int
    tensors_consumed: int
    tensors_ignored: int
    parameters: int
    parameters_written: int
    dtypes: Mapping[str, int]


class Plan:
    """Which tensor of the file becomes which parameter, made and checked before any data are read.

    ``name_in_file`` maps a Hugging Face name to the file's; ``ignored`` says which of the file's names hold nothing
    that the configuration doesn't state. A tied model may carry ``lm_head.weight`` as well: empty, or equal to the
    embedding bit for bit.
    """

    def __init__(
        self,
        where: str,
        config: TransformerConfig,
        stored: Sequence[StoredTensor],
        name_in_file: Callable[[str], str],
        ignored: Callable[[str], bool] = lambda _: False,
    ) -> None:
        if config.num_hidden_layers > len(stored):  # bounds what a corrupt number of layers makes us enumerate
            raise FormatError(
                f"{where}: the configuration has {config.num_hidden_layers} layers, but there are only "
                f"{len(stored)} tensors; the file is incomplete or the configuration belongs to another"
            )
        self.where = where
        self.shapes = config.tensor_shapes()
        self.sources = {name: name_in_file(name) for name in self.shapes}
        self._in_file = len(stored)
        self._stored = {tensor.name: tensor for tensor in stored if not ignored(tensor.name)}
        head = name_in_file(HEAD)
        self._copy = self._stored.get(head) if config.tie_word_embeddings else None
        self._consumed: Counter[str] = Counter()
        self.problems = shape_problems(
            {self.sources[name]: shape for name, shape in self.shapes.items()},
            {name: tensor.shape for name, tensor in self._stored.items() if tensor is not self._copy},
        )

    def dtype(self, name: str) -> str:
        """The dtype in the file of the parameter ``name``."""
        return self._stored[self.sources[name]].dtype

    def dtypes(self) -> dict[str, int]:
        """How many tensors of the file have which dtype, those that are ignored excepted."""
        return dict(Counter(tensor.dtype for tensor in self._stored.values()))

    def readable(self) -> list[str]:
        """The parameters whose tensors are there with the right shape, in forward order."""
        return [
            name
            for name, shape in self.shapes.items()
            if (tensor := self._stored.get(self.sources[name])) and tensor.shape == shape
        ]

    def read(self, name: str) -> torch.Tensor:
        """The parameter ``name``. Raises FormatError, beginning with the file's name of it, where it isn't sound."""
        stored = self._stored[self.sources[name]]
        tensor = self._consume(stored)
        if tensor.shape != stored.shape:
            raise FormatError(f"{stored.name} came as {list(tensor.shape)}, must be {list(stored.shape)}")
        if not all_finite(tensor):
            raise FormatError(f"{stored.name} has {describe_non_finite(tensor)}")
        if name == EMBEDDING and self._copy:
            self._compare(self._copy, tensor)
        return tensor

    def _consume(self, stored: StoredTensor) -> torch.Tensor:
        self._consumed[stored.name] += 1
        try:
            return stored.read()
        except FormatError as error:
            raise FormatError(f"{stored.name} {error}") from error

    def _compare(self, copy: StoredTensor, embedding: torch.Tensor) -> None:
        """A stored head must be the embedding: tied means one tensor."""
        head = self._consume(copy)
        if math.prod(copy.shape) and not same_bits(head, embedding):
            raise FormatError(f"{copy.name} differs from {self.sources[EMBEDDING]}, though the two are tied")

    def account(self, written: Iterable[str]) -> Account:
        """The account after everything was read. Raises FormatError where a tensor was not consumed exactly once."""
        names = list(written)
        twice = [name for name, count in self._consumed.items() if count > 1]
        left = [name for name in self._stored if name not in self._consumed]
        unwritten = [name for name in self.shapes if name not in names]
        if twice or left or unwritten:
            self.refuse([f"consumed {', '.join(twice) or 'nothing'} twice, {', '.join(left) or 'nothing'} not at all"])
        return Account(
            tensors_in_file=self._in_file,
            tensors_consumed=len(self._consumed),
            tensors_ignored=self._in_file - len(self._stored),
            parameters=len(self.shapes),
            parameters_written=len(names),
            dtypes=self.dtypes(),
        )

    def refuse(self, problems: Sequence[str]) -> None:
        """Raise one FormatError for all ``problems``, if there are any."""
        if problems:
            shown = "; ".join(problems[:_SHOWN]) + ("; ..." if len(problems) > _SHOWN else "")
            raise FormatError(f"{self.where}: {len(problems)} problem{'s'[: len(problems) > 1]}: {shown}")


def take_tensors(plan: Plan) -> tuple[dict[str, torch.Tensor], Account]:
    """Load every parameter of ``plan``, under Hugging Face names in forward order, on as many threads as processors.

    Raises one FormatError that lists everything missing, unexpected, misshapen, unreadable or not finite.
    """
    tensors: dict[str, torch.Tensor] = {}
    found: dict[str, str] = {}

    def load(name: str) -> None:
        try:
            tensors[name] = plan.read(name)
        except FormatError as error:
            found[name] = str(error).removeprefix(f"{plan.where}: ")

    names = plan.readable()
    largest_first = sorted(names, key=lambda name: -math.prod(plan.shapes[name]))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        list(threads.map(load, largest_first))
    plan.refuse(plan.problems + [found[name] for name in names if name in found])
    in_order = {name: tensors[name] for name in plan.shapes}
    return in_order, plan.account(in_order)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether both have one dtype, one shape and the same bits: -0.0 is not 0.0."""
    integer = torch.int32 if a.dtype.itemsize == 4 else torch.int16
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(integer), b.view(integer))

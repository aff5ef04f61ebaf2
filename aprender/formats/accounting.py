"""Accounting of tensors, shared by all readers: each is there, once, with its shape and finite, and nothing is left."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from aprender.errors import FormatError
from aprender.transformer.config import TransformerConfig


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor still in its file.

    ``load`` returns it as a fresh, contiguous float32 CPU tensor of ``shape``, or raises FormatError when its
    dtype is one that can't be read.
    """

    shape: tuple[int, ...]
    load: Callable[[], torch.Tensor]


def take_tensors(
    where: str,
    config: TransformerConfig,
    stored: Mapping[str, StoredTensor],
    name_in_file: Callable[[str], str],
) -> dict[str, torch.Tensor]:
    """Load every tensor of ``config`` from ``stored``, which goes by the file's own names.

    ``name_in_file`` maps a Hugging Face name to the file's. Returns float32 tensors under Hugging Face names, in
    forward order. A tied model may carry ``lm_head.weight`` as well if it equals the embedding bit for bit.
    Raises one FormatError that lists everything missing, unexpected, misshapen, unreadable or not finite.
    """
    if config.num_hidden_layers > len(stored):  # bounds what a corrupt number of layers makes us enumerate
        raise FormatError(
            f"{where}: the configuration has {config.num_hidden_layers} layers, but there are only "
            f"{len(stored)} tensors; the file is incomplete or the configuration belongs to another"
        )
    expected = {name_in_file(name): name for name in config.tensor_shapes()}
    embedding, head = name_in_file("model.embed_tokens.weight"), name_in_file("lm_head.weight")
    has_copy = config.tie_word_embeddings and head in stored
    unexpected = [name for name in stored if name not in expected and not (has_copy and name == head)]
    problems = _name_problems([name for name in expected if name not in stored], unexpected)
    tensors: dict[str, torch.Tensor] = {}
    for (hf_name, shape), name in zip(config.tensor_shapes().items(), expected, strict=True):
        if name in stored:
            tensor, problem = _load(name, stored[name], shape)
            problems += [problem] if problem else []
            tensors[hf_name] = tensor
    if has_copy and embedding in stored and not _same_bits(stored[head], stored[embedding]):
        problems.append(f"{head} differs from {embedding}, though tie_word_embeddings is true")
    if problems:
        raise FormatError(f"{where}: {len(problems)} problem{'s'[: len(problems) > 1]}: {'; '.join(problems)}")
    return tensors


def _load(name: str, stored: StoredTensor, shape: tuple[int, ...]) -> tuple[torch.Tensor, str]:
    """The tensor and an empty string, or an empty tensor and the problem."""
    if stored.shape != shape:
        return torch.empty(0), f"{name} has shape {list(stored.shape)}, must be {list(shape)}"
    try:
        tensor = stored.load()
    except FormatError as error:
        return torch.empty(0), f"{name} {error}"
    # aminmax carries NaN through and, unlike isfinite, allocates nothing of the tensor's size
    if not all(bound.isfinite() for bound in torch.aminmax(tensor)):
        count = int((~tensor.isfinite()).sum())
        return torch.empty(0), f"{name} has {count} value{'s'[: count > 1]} not finite (NaN or infinity)"
    return tensor, ""


def _same_bits(a: StoredTensor, b: StoredTensor) -> bool:
    try:
        return torch.equal(a.load().view(torch.int32), b.load().view(torch.int32))
    except FormatError:
        return False


def _name_problems(missing: Iterable[str], unexpected: Iterable[str]) -> list[str]:
    """One sentence part for each name; a near miss within the same layer is named."""
    unclaimed: dict[tuple[str, ...], list[str]] = {}
    for name in missing:
        unclaimed.setdefault(_numbers(name), []).append(name)
    problems = [f"missing {name}" for name in missing]
    for name in unexpected:
        close = difflib.get_close_matches(name, unclaimed.get(_numbers(name), []), n=1)
        problems.append(f"unexpected {name}" + (f" (did you mean {close[0]}?)" if close else ""))
    return problems


def _numbers(name: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", name))

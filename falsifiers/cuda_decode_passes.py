"""Texts read through a cache in several passes, and what attention then read of the passes before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aprender.parity.exact import bits
from aprender.transformer.cuda.cache import KVCache
from aprender.transformer.cuda.model import CudaTransformer
from aprender.transformer.cuda.stages import Call

Takes = Sequence[tuple[int, ...]]  # how many tokens each row reads in each pass


def cached(
    built: CudaTransformer, cache: KVCache, rows: Sequence[Tensor], takes: Takes, left_padded: int = 0
) -> list[Tensor]:
    """Read ``rows`` in passes of ``takes`` tokens each: the logits of every token, row by row, on the CPU.

    Pass ``left_padded``, counted from 1, has its padding on the left.
    """
    logits: list[list[Tensor]] = [[] for _ in rows]
    starts = [0] * len(rows)
    for number, taken in enumerate(takes, 1):
        T = max(taken)
        tokens, documents = torch.zeros(len(rows), T, dtype=torch.int64), torch.full((len(rows), T), -1)
        places = placed(taken, left=number == left_padded)
        for row, (place, n) in enumerate(zip(places, taken, strict=True)):
            tokens[row, place] = rows[row][starts[row] : starts[row] + n]
            documents[row, place] = 0
            starts[row] += n
        found = built.forward(tokens, documents_BT=documents, cache=cache).cpu()
        for row, place in enumerate(places):
            logits[row].append(found[row, place])
    return [torch.cat(parts) for parts in logits]


def placed(taken: tuple[int, ...], left: bool) -> list[slice]:
    """Where each row's tokens stand in a pass, with its padding on the ``left`` or on the right."""
    T = max(taken)
    return [slice(T - n, T) if left else slice(0, n) for n in taken]


def cache_differing(
    takes: Takes, k_rope: Sequence[Call], qkv_proj: Sequence[Call], attention: Sequence[Call]
) -> tuple[int, int]:
    """Elements of keys and values that attention read that are not, bit for bit, those of the tokens read so far.

    Given are a layer's calls of these stages, one for each pass, of which the last has its padding on the left. The
    second number is how many were compared.
    """
    rows, differing, compared = range(len(takes[0])), 0, 0
    written: list[list[list[Tensor]]] = [[[] for _ in rows] for _ in "kv"]  # [t, G, C] of a row, pass after pass
    for number, taken in enumerate(takes):
        places = placed(taken, left=number + 1 == len(takes))
        k_BTGC = k_rope[number].output
        new = (k_BTGC, qkv_proj[number].output[2].view_as(k_BTGC))
        for so_far, memory, made in zip(written, attention[number].args[1:3], new, strict=True):
            for row in rows:
                so_far[row].append(made[row, places[row]])
                expected = torch.cat(so_far[row])
                found = memory[row, : len(expected)]
                same = found.shape == expected.shape
                differing += int((bits(found) != bits(expected)).sum()) if same else expected.numel()
                compared += expected.numel()
    return differing, compared


def fill(cache: KVCache, value: float) -> None:
    """Fill the memory of a cache with one number."""
    for layer in cache.layers:
        layer.k.fill_(value)
        layer.v.fill_(value)

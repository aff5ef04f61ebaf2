"""Probes of FALSIFY-CUDA-DECODE-001 ... -004: a cached decode is the prefill, whatever is batched, padded or reused."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from aprender.falsify.probe import Observation, probe
from aprender.parity.exact import bits
from aprender.parity.generation import compare_generation
from aprender.transformer.cuda.cache import KVCache
from aprender.transformer.cuda.model import CudaTransformer
from aprender.transformer.cuda.ops.blocks import attention_tile, small_tiles
from aprender.transformer.oracle import Batch
from falsifiers.cuda_decode_defects import DEFECTS
from falsifiers.cuda_model_system import MODELS, ModelsUnderContract, document, over, read
from falsifiers.digests import digest_of
from falsifiers.threads import on_one_thread

NAME = "untied"  # the model with groups of two query heads, QK-norm, and a window in its second layer
Takes = Sequence[tuple[int, ...]]

# How many tokens each of two rows reads in each pass. Lengths 1 and 3, a row that waits, and chunks of two.
RAGGED = ((1, 3), (1, 1), (1, 0), (2, 2), (2, 1))
LEFT_PADDED = 4  # the last of these passes has its padding on the left


@probe(
    system=MODELS,
    observes={"prefill_ratio": "", "oracle_ratio": "", "positions_compared": "positions", "logits_compared": "logits"},
    defects=DEFECTS,
)
@on_one_thread
def ragged(system: ModelsUnderContract) -> Observation:
    """Two rows of different lengths in five cached passes: logits over what one pass without a cache may differ by.

    The envelope of either is the oracle's (float32, sums whole and in parts, doubled); two passes may differ by two.
    """
    built = system.models[NAME]
    documents = [document(row, sum(taken[row] for taken in RAGGED)) for row in (0, 1)]
    whole = Batch.packed([[tokens] for tokens in documents])
    exact, envelope = system.references[NAME].of(lambda oracle: oracle.logits(whole))
    steps = cached(built, built.new_cache(2, 11), documents, RAGGED)
    prefill = read(built, whole)
    rows = list(zip(steps, prefill, exact, documents, strict=True))
    values = {
        "prefill_ratio": max(over(2 * envelope, y[: len(t)], x) for x, y, _, t in rows),
        "oracle_ratio": max(over(envelope, z[: len(t)], x) for x, _, z, t in rows),
        "positions_compared": sum(len(tokens) for tokens in documents),
        "logits_compared": sum(x.numel() for x in steps),
    }
    return Observation(values, digest_of([*steps, prefill]))


@probe(
    system=MODELS,
    observes={"reused_differing": "logits", "poisoned_differing": "logits", "logits_compared": "logits"},
    defects=DEFECTS,
)
@on_one_thread
def reused(system: ModelsUnderContract) -> Observation:
    """A cache that was used and reset gives the bits of a new one, over old values and over NaN alike."""
    built = system.models[NAME]
    documents = [document(row, 3) for row in (2, 3)]
    takes = ((2, 1), (1, 1))
    cache = built.new_cache(2, 11)
    fill(cache, math.nan)
    cached(built, cache, [document(4, 5), document(5, 5)], ((5, 5),))
    new = built.new_cache(2, 11)
    fill(new, 0.0)
    fresh = torch.cat(cached(built, new, documents, takes))
    cache.reset()
    over_old = torch.cat(cached(built, cache, documents, takes))
    cache.reset()
    fill(cache, math.nan)
    over_nan = torch.cat(cached(built, cache, documents, takes))
    values = {
        "reused_differing": int((bits(fresh) != bits(over_old)).sum()),
        "poisoned_differing": int((bits(fresh) != bits(over_nan)).sum()),
        "logits_compared": 2 * fresh.numel(),
    }
    return Observation(values, digest_of([fresh, over_old, over_nan]))


@probe(
    system=MODELS,
    observes={
        "disagreements": "tokens",
        "over_divergence": "tokens",
        "decidable": "",
        "tokens_compared": "tokens",
    },
    defects=DEFECTS,
)
@small_tiles()
@on_one_thread
def generation(system: ModelsUnderContract) -> Observation:
    """A text forced on a cached decode, one by one over the edge of a tile of keys: what it would choose next.

    ``decidable`` is the share of steps whose two best tokens lie farther apart than rounding can move them.
    """
    built = system.models[NAME]
    tile = attention_tile(built.config.head_dim, torch.float32, system.device).keys
    tokens = document(6, tile + 2)
    takes = [(tile - 1,), (1,), (1,), (1,)]
    reference, whole = system.references[NAME], Batch.of(tokens[None])
    (steps,) = cached(built, built.new_cache(1, tile + 3), [tokens], takes)
    plans = [plan.logits(whole)[0] for plan in reference.plans]
    found = compare_generation(reference.exact.logits(whole)[0], plans, steps)
    values = {
        "disagreements": len(found.disagreements),
        "over_divergence": found.over_divergence,
        "decidable": found.decidable,
        "tokens_compared": found.steps,
    }
    return Observation(values, digest_of([steps]))


@probe(
    system=MODELS,
    observes={"packed_ratio": "", "padded_ratio": "", "continued_ratio": "", "logits_compared": "logits"},
    defects=DEFECTS,
)
@on_one_thread
def packed(system: ModelsUnderContract) -> Observation:
    """Documents packed into one row, padded on either side, or continued in a cache, beside each of them alone."""
    built = system.models[NAME]
    first, second, third = (document(seed, length) for seed, length in ((7, 4), (8, 5), (9, 6)))
    alone = [read(built, Batch.of(tokens[None]))[0] for tokens in (first, second, third)]
    apart = Batch.packed([[first], [second], [third]])
    _, envelope = system.references[NAME].of(lambda oracle: oracle.logits(apart))
    row = Batch.packed([[first, second, torch.zeros(1, dtype=torch.int64)]])
    padded = torch.tensor([[0] * 4 + third.tolist()])
    left = torch.tensor([[-1] * 4 + [0] * len(third)])
    tokens = torch.cat((row.tokens_BT, padded))
    documents = torch.cat((torch.where(row.documents_BT == 2, -1, row.documents_BT), left))
    together = built.forward(tokens, documents_BT=documents).cpu()
    cache = built.new_cache(1, 9)
    start = Batch.packed([[first, second[:4]]])
    built.forward(start.tokens_BT, documents_BT=start.documents_BT, cache=cache)
    last = built.forward(second[None, 4:], documents_BT=torch.ones(1, 1, dtype=torch.int64), cache=cache).cpu()
    found = (together[0, :9], together[1, 4:], last[0])
    expected = (torch.cat(alone[:2]), alone[2], alone[1][4:])
    names = ("packed_ratio", "padded_ratio", "continued_ratio")
    values: dict[str, float | int] = {
        name: over(2 * envelope, y, x) for name, x, y in zip(names, found, expected, strict=True)
    }
    values["logits_compared"] = sum(x.numel() for x in found)
    return Observation(values, digest_of([together, last, *alone]))


def cached(built: CudaTransformer, cache: KVCache, rows: Sequence[Tensor], takes: Takes) -> list[Tensor]:
    """Read ``rows`` in passes of ``takes`` tokens each: the logits of every token, row by row, on the CPU."""
    logits: list[list[Tensor]] = [[] for _ in rows]
    starts = [0] * len(rows)
    for number, taken in enumerate(takes):
        T = max(taken)
        tokens, documents = torch.zeros(len(rows), T, dtype=torch.int64), torch.full((len(rows), T), -1)
        places = [slice(T - n, T) if number == LEFT_PADDED else slice(0, n) for n in taken]
        for row, (place, n) in enumerate(zip(places, taken, strict=True)):
            tokens[row, place] = rows[row][starts[row] : starts[row] + n]
            documents[row, place] = 0
            starts[row] += n
        found = built.forward(tokens, documents_BT=documents, cache=cache).cpu()
        for row, place in enumerate(places):
            logits[row].append(found[row, place])
    return [torch.cat(parts) for parts in logits]


def fill(cache: KVCache, value: float) -> None:
    """Fill the memory of a cache with one number."""
    for layer in cache.layers:
        layer.k.fill_(value)
        layer.v.fill_(value)

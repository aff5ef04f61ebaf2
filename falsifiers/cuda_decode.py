"""Probes of FALSIFY-CUDA-DECODE-001 ... -007: a cached decode is the prefill, whatever is batched, padded or reused."""

from __future__ import annotations

import math

import torch

from aprender.falsify.probe import Observation, probe
from aprender.parity.exact import bits
from aprender.parity.generation import compare_generation
from aprender.transformer.cuda.ops.blocks import attention_tile, small_tiles
from aprender.transformer.cuda.stages import recorded
from aprender.transformer.oracle import Batch
from falsifiers.cuda_decode_defects import DEFECTS
from falsifiers.cuda_decode_passes import cache_differing, cached, fill
from falsifiers.cuda_model_reference import largest_ratio
from falsifiers.cuda_model_system import MODELS, ModelsUnderContract, document, read
from falsifiers.digests import digest_of
from falsifiers.threads import on_one_thread

NAME = "untied"  # the model with groups of two query heads, QK-norm, and a window in its second layer
CACHED = ("k_rope", "qkv_proj", "attention")  # what makes keys and values, and what reads them

# How many tokens each of two rows reads in each pass. Lengths 1 and 3, a row that waits, and chunks of two.
RAGGED = ((1, 3), (1, 1), (1, 0), (2, 2), (2, 1))
FEW = ((9, 14), (1, 0), (2, 1))  # for the other models: more tokens, of which bfloat16's noise is known better
TEXTS = {"float32": 6, "bfloat16": 69}  # of generation, by their seed: ones whose choices are clear in the oracle


@probe(
    system=MODELS,
    observes={
        "prefill_ratio": "",
        "oracle_ratio": "",
        "cache_differing": "elements",
        "cache_compared": "elements",
        "positions_compared": "positions",
        "logits_compared": "logits",
    },
    defects=DEFECTS,
)
@on_one_thread
def ragged(system: ModelsUnderContract, *, model: str, dtype: str) -> Observation:
    """Two rows of different lengths in a few cached passes: logits over what one pass without a cache may differ by.

    Either pass may differ from the oracle by what its legal runs show, as a whole and in its largest element; two
    passes by twice that. The last pass has its padding on the left. ``cache_differing``: elements of the keys and
    values that attention reads that are not, bit for bit, what was rotated and projected when their token was read.
    """
    built, takes = system.model(model, dtype), RAGGED if (model, dtype) == (NAME, "float32") else FEW
    documents = [document(row, sum(taken[row] for taken in takes)) for row in (0, 1)]
    whole = Batch.packed([[tokens] for tokens in documents])
    real = whole.documents_BT >= 0
    logits = [of[real] for of in system.reference(model, dtype).read("logits", whole)]
    envelope = system.reference(model, dtype).envelope(*logits, positions=int(real.sum()))
    names = [[f"layers.{layer.index}.{stage}" for stage in CACHED] for layer in built.layers]
    with recorded(built, [name for layer in names for name in layer]) as calls:
        steps = torch.cat(cached(built, built.new_cache(2, max(map(len, documents)) + 4), documents, takes, len(takes)))
    of_layers = [cache_differing(takes, *(calls[name] for name in layer)) for layer in names]
    prefill = system.kept(f"prefill in {dtype}", model, lambda: read(built, whole)[real])
    values = {
        "prefill_ratio": envelope.ratio_of_two(prefill, steps),
        "oracle_ratio": envelope.ratio(steps),
        "cache_differing": sum(layer[0] for layer in of_layers),
        "cache_compared": sum(layer[1] for layer in of_layers),
        "positions_compared": len(steps),
        "logits_compared": steps.numel(),
    }
    return Observation(values, digest_of([steps, prefill]))


@probe(
    system=MODELS,
    observes={"reused_differing": "logits", "poisoned_differing": "logits", "logits_compared": "logits"},
    defects=DEFECTS,
)
@on_one_thread
def reused(system: ModelsUnderContract) -> Observation:
    """A cache that was used and reset gives the bits of a new one, over old values and over NaN alike."""
    built = system.model(NAME, "float32")
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
def generation(system: ModelsUnderContract, *, model: str, dtype: str) -> Observation:
    """A text forced on a cached decode, one by one over the edge of a tile of keys: what it would choose next.

    ``decidable`` is the share of steps whose two best tokens lie farther apart than rounding can move them.
    """
    built = system.model(model, dtype)
    tile = attention_tile(built.config.head_dim, built.dtype, system.device).keys
    tokens = document(TEXTS[dtype], tile + 2)
    takes = [(tile - 1,), (1,), (1,), (1,)]
    (steps,) = cached(built, built.new_cache(1, tile + 3), [tokens], takes)
    exact, *plans = (logits[0] for logits in system.reference(model, dtype).read("logits", Batch.of(tokens[None])))
    found = compare_generation(exact, plans, steps)
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
    built = system.model(NAME, "float32")
    first, second, third = (document(seed, length) for seed, length in ((7, 4), (8, 5), (9, 6)))
    alone = [read(built, Batch.of(tokens[None]))[0] for tokens in (first, second, third)]
    apart = Batch.packed([[first], [second], [third]])
    real = apart.documents_BT >= 0
    logits = [of[real] for of in system.reference(NAME, "float32").read("logits", apart)]
    envelope = system.reference(NAME, "float32").envelope(*logits, positions=int(real.sum()))
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
        name: largest_ratio(2 * envelope.largest, y, x) for name, x, y in zip(names, found, expected, strict=True)
    }
    values["logits_compared"] = sum(x.numel() for x in found)
    return Observation(values, digest_of([together, last, *alone]))

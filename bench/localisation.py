"""Localisation: one defect in one operator of one layer of a drawn model, and what parity names first.

python -m bench.localisation [--trials 720] [--first 0] [--processes 1]

Every planted defect of the operators (falsifiers/cuda_operator_*_defects.py), forward and backward, in both dtypes.
Models of 2 to 4 layers are drawn (widths, heads, biases, QK-norm, windows, documents, weights), and teacher-forced
parity compares every operator; in each of 10 trials of a model one defect is planted in one operator of a drawn layer,
and what parity names first is read. In a trial only that operator is run again: the others' results can't change.
A defect that changes no bit there (a bias rounded to bfloat16 in a bfloat16 model) is inert and does not count; one
that nothing names counts as wrong, and what is found there without a defect as well names nothing. Exits with 1 where
less than 98% are right, with 3 where fewer than 300 count.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aprender.falsify.probe import RequirementNotMet
from aprender.parity.compare import Kept, compare_stage
from aprender.parity.record import Comparison, StageRecord
from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda import ops
from aprender.transformer.oracle import operators
from aprender.transformer.oracle.attention import Places
from bench.model_stages import IGNORED, Reading, after_layers, embedding, of_layer, traced
from bench.operator_stages import Pair
from bench.shares import interval
from falsifiers import oracle_attention_stage
from falsifiers.cuda_operator_cases import EPS, POSITIONS, THETA, Leading, cases
from falsifiers.cuda_operator_defects import DEFECTS
from falsifiers.cuda_operator_system import DTYPES, ReplaceableStages, Watched, require_kernels
from falsifiers.digests import digest_of

LEAST_RIGHT, LEAST_TRIALS = 0.98, 300
PER_MODEL = 10
FAR = 300  # where rows after the first begin: in bfloat16 whole numbers end at 256
LENGTHS = (131, 140, 151, 163)  # with fewer positions eps and rotary tables show too little in bfloat16
HEADS = ((6, 2, 18), (6, 3, 20), (8, 4, 12), (9, 3, 16), (4, 2, 32))  # H, G, C
WIDTHS = (60, 76, 84, 100)
FEED_FORWARD = (97, 130, 147)
UNFILLED = 7  # slots of the cache that hold no token

# Which operators of a model a defect may be planted in, by the case that it was written for. Attention is one operator
# of a model: whole, packed with windows, or over a cache.
PLACES: Mapping[str, tuple[str, ...]] = {
    "embed_tokens": ("embed_tokens",),
    "qkv_proj": ("qkv_proj",),
    "o_proj": ("o_proj", "gate_proj", "up_proj", "down_proj"),
    "input_layernorm": ("input_layernorm", "norm"),
    "add_norm": ("post_attention_layernorm",),
    "k_norm": ("q_norm", "k_norm"),
    "rope_q": ("q_rope",),
    "rope_k": ("k_rope",),
    "attention": ("attention",),
    "attention_packed": ("attention",),
    "attention_decode": ("attention",),
    "swiglu": ("swiglu",),
    "residual": ("residual",),
    "loss": ("loss",),
}
ATTENTION = ("attention", "attention_packed", "attention_decode")


class Trial(NamedTuple):
    """A defect, in which dtype and where it was planted, and what parity named; ``inert`` where no bit changed."""

    defect: str
    dtype: str
    seed: int
    planted: str
    named: str
    found: str
    inert: bool

    @property
    def right(self) -> bool:
        """Operator and layer."""
        return self.planted == self.named


class Kind(NamedTuple):
    """What a model is drawn to be: its dtype, which of ``ATTENTION``, and whether it has QK-norm."""

    dtype: str
    attention: str
    qk_norm: bool

    @classmethod
    def of(cls, seed: int) -> Kind:
        """Each of the twelve in turn."""
        return list(itertools.starmap(cls, itertools.product(DTYPES, ATTENTION, (False, True))))[seed % 12]

    def cases(self) -> set[str]:
        """The cases of ``PLACES`` that such a model has."""
        absent = {*ATTENTION} - {self.attention} | (set() if self.qk_norm else {"k_norm"})
        return set(PLACES) - absent


@dataclass(frozen=True)
class Compared:
    """One operator of a model that was compared as it is; its oracle and plans are kept for others in its place."""

    pair: Pair
    records: tuple[StageRecord, ...]
    digest: str
    kept: Kept

    @classmethod
    def of(cls, pair: Pair, kept: Kept) -> Compared:
        """Compare; the digest is of all that the candidate returned."""
        watched = Watched(pair.candidate)
        records = compare_stage(pair.reference, watched, kept=kept).records
        return cls(pair, records, digest_of(watched.results), kept)

    def with_candidate(self, candidate: Any) -> Compared:
        """Another candidate on the same inputs."""
        return self.of(self.pair._replace(candidate=candidate), self.kept)


class Draw:
    """Seeded draws on the CPU."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def below(self, high: int) -> int:
        return int(torch.randint(high, (), generator=self.generator))

    def one_of(self, choices: Iterable[Any]) -> Any:
        found = list(choices)
        return found[self.below(len(found))]

    def normal(self, *shape: int, sd: float = 1.0, mean: float = 0.0) -> Tensor:
        return mean + sd * torch.randn(shape, generator=self.generator)


def config_of(d: Draw, kind: Kind) -> TransformerConfig:
    """A small model of the kind, nothing in it square; biases in every one, as Qwen2 has them."""
    layers, (H, G, C) = 2 + d.below(3), d.one_of(HEADS)
    windows = [11 + d.below(30) if kind.attention == "attention_packed" else None for _ in range(layers)]
    return TransformerConfig(
        family="qwen3" if kind.qk_norm else "qwen2",
        vocab_size=211,
        hidden_size=d.one_of(WIDTHS),
        intermediate_size=d.one_of(FEED_FORWARD),
        num_hidden_layers=layers,
        num_attention_heads=H,
        num_key_value_heads=G,
        head_dim=C,
        rms_norm_eps=EPS,
        rope_theta=THETA,
        rope_scaling=None,
        windows=tuple(windows),
        tie_word_embeddings=False,
        qkv_bias=True,
        qk_norm=kind.qk_norm,
    )


def weights_of(d: Draw, config: TransformerConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights that keep activations of size one, gains of 1 +- 0.3, and an outlier channel in embedding and biases."""
    found = {}
    for name, shape in config.tensor_shapes().items():
        if name.endswith("norm.weight"):
            found[name] = d.normal(*shape, sd=0.3, mean=1.0)
        elif name.endswith(".bias"):
            found[name] = d.normal(*shape, sd=0.5)
            found[name][3] += 9.0
        else:
            found[name] = d.normal(*shape, sd=1.5 / shape[1] ** 0.5)
    found["model.embed_tokens.weight"] *= 6.0
    found["model.embed_tokens.weight"][:, 3] += 8.0
    return {name: tensor.to(dtype) for name, tensor in found.items()}


def reading_of(d: Draw, config: TransformerConfig, kind: Kind, seed: int) -> Reading:
    """Two rows of text, the second far from position 0; packed, each row has two documents and the last padding."""
    T = d.one_of(LENGTHS)
    tokens, positions = torch.randint(211, (2, T), generator=d.generator), torch.arange(T).repeat(2, 1)
    positions[1] += FAR
    documents = torch.zeros_like(positions)
    if kind.attention == "attention_packed":
        first = T // 3
        positions[0, first:] -= first
        documents[0, first:] = 1
        positions[1, -4:], documents[1, -4:] = 0, -1
    targets = tokens.roll(-1, 1)
    targets[:, -1], targets[:, 5:9], targets[0, 0] = IGNORED, IGNORED, config.vocab_size - 1
    return Reading(config, tokens, targets, Places(positions, documents), POSITIONS, DTYPES[kind.dtype], seed)


def pairs(kind: Kind, seed: int) -> Iterator[Pair]:
    """Every operator of the model that ``seed`` draws, in the order of a forward pass."""
    d = Draw(seed)
    config = config_of(d, kind)
    weights, r = weights_of(d, config, DTYPES[kind.dtype]), reading_of(d, config, kind, seed)
    table_VD = weights["model.embed_tokens.weight"]
    yield embedding(r, table_VD)
    x_BTD = operators.embed(table_VD, r.tokens).double()
    for index in range(config.num_hidden_layers):
        trace = traced(r, weights, index, x_BTD)
        x_BTD = trace.out_BTD
        for pair in of_layer(r, weights, index, trace):
            yield attending(pair, kind, d) if pair.kind == "attention" else pair
    loss = ops.LinearCrossEntropy(weights["lm_head.weight"], IGNORED, logits_at_once=211 * 61)
    yield from after_layers(r, weights["model.norm.weight"], loss, x_BTD)


def attending(pair: Pair, kind: Kind, d: Draw) -> Pair:
    """Attention as a model of this kind calls it: without documents, with them, or the last queries over a cache."""
    if kind.attention == "attention":
        return pair._replace(candidate=Leading(pair.candidate, 5))
    if kind.attention == "attention_packed":
        return pair
    q, k, v, *places = pair.reference.inputs
    k, v = (torch.cat((x, d.normal(len(x), UNFILLED, *x.shape[2:]).to(x.dtype)), 1) for x in (k, v))
    new = q.shape[1] - 16 - d.below(16)
    at, documents = places[0], places[2]
    empty = torch.zeros_like(at[:, :UNFILLED])
    reference = oracle_attention_stage.attend(
        pair.reference.name,
        (q[:, -new:].contiguous(), k, v),
        Places(at[:, -new:].contiguous(), documents[:, -new:].contiguous()),
        Places(torch.cat((at, empty), 1), torch.cat((documents, empty - 1), 1)),
        pair.candidate.scale,
        seed=pair.reference.seed,
    )
    return pair._replace(reference=reference)


@cache
def targets_of(defect: str) -> tuple[str, ...]:
    """The cases that a planted defect changes."""
    made = cases(torch.device("cpu"), torch.float32)
    system = ReplaceableStages({("float32", name): case.stage for name, case in made.items()})
    with DEFECTS[defect].plant(system):
        return tuple(name for (_, name), stage in system.stages.items() if stage is not made[name].stage)


def plan(first: int, trials: int) -> dict[int, list[str]]:
    """Which defects are planted in the model of which seed: those that fit and were planted least in its dtype."""
    planted, found = Counter[tuple[str, str]](), {}
    for seed in range(first, first + -(-trials // PER_MODEL)):
        kind, d = Kind.of(seed), Draw(seed)
        fitting = [name for name in DEFECTS if kind.cases() & {*targets_of(name)}]
        order = torch.randperm(len(fitting), generator=d.generator).tolist()
        shuffled = sorted((fitting[i] for i in order), key=lambda name: planted[name, kind.dtype])
        found[seed] = shuffled[:PER_MODEL]
        planted.update((name, kind.dtype) for name in found[seed])
    return found


def trials_of(planned: tuple[int, list[str]]) -> list[Trial]:
    """Draw a seed's model, compare it as it is, and plant its defects one after the other."""
    seed, defects = planned
    torch.set_num_threads(1)
    ops.use_float32_accumulation()
    kind, d = Kind.of(seed), Draw(seed + 1_000_000)
    clean = {pair.reference.name: Compared.of(pair, {}) for pair in pairs(kind, seed)}
    return [trial(clean, name, kind, d, seed) for name in defects]


def trial(clean: Mapping[str, Compared], defect: str, kind: Kind, d: Draw, seed: int) -> Trial:
    """Plant ``defect`` in a drawn operator of a drawn layer, and read what is named first."""
    case = d.one_of(sorted(kind.cases() & {*targets_of(defect)}))
    operator = d.one_of(PLACES[case])
    place = d.one_of(name for name, found in clean.items() if found.pair.kind == operator)
    right = clean[place]
    system = ReplaceableStages({(kind.dtype, case): right.pair.candidate})
    with DEFECTS[defect].plant(system):
        wrong = right.with_candidate(system.stages[kind.dtype, case])
    first = Comparison(
        tuple(r for name, found in clean.items() for r in (wrong if name == place else found).records)
    ).first
    named, found = "nothing", ""
    if first is not None and first not in right.records:  # what was found without the defect does not name it
        named, found = first.stage, f"{first.verdict} {first.tensor}"
    return Trial(defect, kind.dtype, seed, place, named, found, wrong.digest == right.digest)


def report(found: list[Trial], seconds: float) -> int:
    """Print shares and what was wrong; returns the exit code."""
    counted = [t for t in found if not t.inert]
    right = sum(t.right for t in counted)
    low, share, high = interval(right, len(counted))
    models, defects = len({t.seed for t in found}), len({t.defect for t in counted})
    print(f"\n{len(found)} trials in {models} models, {len(found) - len(counted)} inert, {seconds:.0f} s")
    print(f"{defects} of {len(DEFECTS)} defects counted")
    for dtype in DTYPES:
        of = [t.right for t in counted if t.dtype == dtype]
        print(f"  {dtype}: {sum(of)} of {len(of)} right")
    if counted:
        print(f"right: {right} of {len(counted)}, {share:.2%} (95% interval: {low:.2%} to {high:.2%})")
    for t in counted:
        if not t.right:
            print(f"  {t.dtype} seed {t.seed}: {t.defect} in {t.planted}, named {t.named} {t.found}")
    return 3 if len(counted) < LEAST_TRIALS else 1 if share < LEAST_RIGHT else 0


def main() -> None:
    """Plant, print and exit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=720, help=f"rounded up to whole models of {PER_MODEL}")
    parser.add_argument("--first", type=int, default=0, help="the first model's seed")
    parser.add_argument("--processes", type=int, default=1)
    a = parser.parse_args()
    if min(a.trials, a.processes) < 1 or a.first < 0:
        parser.error("--trials and --processes must be at least 1, --first at least 0")
    try:
        require_kernels("cpu")
    except RequirementNotMet as error:
        parser.error(str(error))
    start = time.monotonic()
    planned, found = plan(a.first, a.trials), list[Trial]()
    with get_context("spawn").Pool(a.processes) as pool:
        for trials in pool.imap(trials_of, planned.items()):
            found += trials
            wrong = sum(not t.right and not t.inert for t in found)
            print(f"{len(found)} trials, {wrong} wrong, {time.monotonic() - start:.0f} s", flush=True)
    raise SystemExit(report(found, time.monotonic() - start))


if __name__ == "__main__":
    main()

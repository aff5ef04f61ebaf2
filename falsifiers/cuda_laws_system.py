"""The CUDA path's stages as a system that laws are checked on: small uneven stages, in two dtypes, and the optimizer.

A law needs no oracle. It is given stages by name, and fresh seeded draws; what it compared is a ``LawRecord``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Options
from aprender.parity.laws import LawRecord
from aprender.transformer.config import RopeScaling, TransformerConfig
from aprender.transformer.cuda import ops
from aprender.transformer.cuda.ops import adamw, memory
from aprender.transformer.cuda.ops.blocks import attention_tile, small_tiles
from aprender.transformer.cuda.ops.runtime import triton_kernel
from aprender.transformer.cuda.rope_tables import rope_tables
from aprender.transformer.oracle import rope
from falsifiers.cuda_operator_cases import SEED, Draw
from falsifiers.cuda_operator_system import DTYPES, ReplaceableStages, Watched, require_kernels
from falsifiers.digests import digest_of

D, V, TOKENS, IGNORED, EPS, THETA = 76, 67, 19, -100, 3e-4, 7e4
LR, MAX_NORM = 3e-3, 2.5
H, G, C, WINDOW = 4, 2, 18, 5  # query heads, key/value heads, channels, and a window narrower than a tile
POSITIONS = 4099  # rows of the tables for rotation


@dataclass(frozen=True)
class TokenLosses:
    """The loss of each target, which the mean hides; forward and backward are the whole stage's."""

    stage: ops.LinearCrossEntropy

    def __call__(self, x: Tensor, targets: Tensor) -> Tensor:
        return self.stage.token_losses(x, targets)

    def forward(self, x: Tensor, targets: Tensor) -> Any:
        return self.stage.forward(x, targets)

    def backward(self, saved: Any, d_output: Tensor) -> Any:
        return self.stage.backward(saved, d_output)


@dataclass(frozen=True)
class Step:
    """Step ``t`` of AdamW with clipping, as a stage: on copies, so that what is given stays; returns what it wrote."""

    optimizer: ops.AdamW
    t: int

    @property
    def kernel(self) -> str:
        return f"{triton_kernel(adamw.sum_of_squares)}+{self.optimizer.kernel}"

    backward_kernel = ""

    def __call__(self, *state: Tensor) -> tuple[Tensor, ...]:
        w, m, v = (memory.empty(tuple(x.shape), x.dtype, x.device).copy_(x) for x in (state[0], *state[2:]))
        copy = memory.empty(tuple(w.shape), torch.bfloat16, w.device)
        clip = ops.clip_scale(ops.global_norm([state[1]]), MAX_NORM)
        self.optimizer.update(w, state[1], m, v, self.t, clip, copy)
        return w, m, v, copy, clip

    def forward(self, *state: Tensor) -> Any:
        return self(*state), ()

    def backward(self, saved: Any, d_output: Any) -> Any:
        return (), {}


def configured(scaling: RopeScaling | None) -> TransformerConfig:
    """A model whose heads have ``C`` channels, rotated by ``THETA`` with ``scaling``."""
    return TransformerConfig(
        family="llama",
        vocab_size=V,
        hidden_size=D,
        intermediate_size=D,
        num_hidden_layers=1,
        num_attention_heads=H,
        num_key_value_heads=G,
        head_dim=C,
        rms_norm_eps=EPS,
        rope_theta=THETA,
        rope_scaling=scaling,
        windows=(None,),
        tie_word_embeddings=False,
        qkv_bias=False,
        qk_norm=False,
    )


@small_tiles()
def tile_of(d: Draw) -> int:
    """Positions that queries or keys may be moved by without meeting other neighbours in their tile, in the laws."""
    tile = attention_tile(C, d.dtype, d.device)
    return max(tile.queries, tile.keys)


def stages_of(d: Draw) -> dict[str, Any]:
    """Every stage by its name. The two norms and the residual addition share a gain, so that one is the others."""
    gain, head = d.gain(D), d.normal(V, D, sd=0.4)
    whole = {"weight": d.integers(-63, 64, 45, 37).to(d.dtype), "bias": d.integers(-63, 64, 45).to(d.dtype)}
    tables = rope.tables(torch.arange(POSITIONS)[None], C, THETA, None, torch.float32)
    cos, sin = (table[0].to(d.device).contiguous() for table in tables)
    scale = C**-0.5
    return {
        "embedding": ops.Embedding(d.normal(D, TOKENS).T),  # its last axis is not the dense one
        "linear": ops.Linear(d.normal(45, D, sd=1.5 / D**0.5), d.normal(45, sd=0.5)),
        "linear_of_zeros": ops.Linear(d.normal(45, D, sd=0.0), d.normal(45, sd=0.5)),
        "linear_of_integers": ops.Linear(**whole),
        "projections_of_integers": ops.FusedLinear(**whole, widths=(27, 9, 9)),
        "rms_norm": ops.RMSNorm(gain, EPS),
        "add_norm": ops.AddRMSNorm(gain, EPS),
        "residual": ops.ResidualAdd(),
        "rope": ops.Rope(cos, sin),
        "tables": rope_tables,
        "attention": ops.Attention(scale),
        "attention_grouped": ops.Attention(scale),
        "attention_softmax": ops.Attention(scale),
        "attention_window": ops.Attention(scale, WINDOW),
        "attention_wide": ops.Attention(scale, 3 * tile_of(d) - 1),  # wider than a tile: some tiles need no mask
        "attention_padded": ops.Attention(scale, WINDOW),
        "attention_packed": ops.Attention(scale, WINDOW),
        "attention_self": ops.Attention(scale, 1),
        "swiglu": ops.SwiGLU(),
        "loss": ops.LinearCrossEntropy(head, IGNORED, logits_at_once=V * 7),
        "token_losses": TokenLosses(ops.LinearCrossEntropy(head, IGNORED)),
        "adamw": Step(ops.AdamW(LR), 7),
        "adamw_first": Step(ops.AdamW(LR, weight_decay=0.0), 1),
    }


@dataclass(frozen=True)
class Law:
    """``check(draw, *stages)``; what it finds goes into the observation's number ``observed``.

    ``interpreted``: the one dtype in which it is checked where the interpreter runs the kernels, a thousand times
    slower than a GPU; None, and on a GPU: all of them.
    """

    observed: str
    stages: tuple[str, ...]
    check: Callable[..., LawRecord]
    interpreted: str | None


Check = Callable[..., LawRecord]


class Laws(list[Law]):
    """The laws of one probe."""

    def of(self, observed: str, *stages: str, interpreted: str | None = None) -> Callable[[Check], Check]:
        """Register a law of some stages, which it is given in this order."""

        def register(check: Check) -> Check:
            self.append(Law(observed, stages, check, interpreted))
            return check

        return register

    def of_each(self, observed: str, *stages: str, interpreted: str | None = None) -> Callable[[Check], Check]:
        """Register a law for each of some stages by itself; it is given the draw, the stage's name and the stage."""

        def register(check: Check) -> Check:
            for stage in stages:
                self.append(Law(observed, (stage,), partial(_named, check, stage), interpreted))
            return check

        return register


def _named(check: Check, name: str, d: Draw, stage: Any) -> LawRecord:
    return check(d, name, stage)


def parameter(stage: Any, name: str) -> Any:
    """A parameter, or the kernels' names, of the right stage, which a watched or a wrong one hides."""
    while not hasattr(stage, name):
        stage = stage.stage if isinstance(stage, Watched) else stage.right
    return getattr(stage, name)


@dataclass(frozen=True)
class Checked:
    """One law on the stages of one dtype, with a digest of all that the stages returned."""

    law: Law
    record: LawRecord
    digest: str


class LawsUnderContract(ReplaceableStages):
    """While nothing is replaced every law is checked anew. While a stage is, only the laws that look at it are."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        made = {name: stages_of(Draw(self.device, dtype)) for name, dtype in DTYPES.items()}
        super().__init__({(dtype, name): stage for dtype, found in made.items() for name, stage in found.items()})
        self.right = dict(self.stages)
        self._checked: dict[tuple[str, Law], Checked] = {}

    def checked(self, laws: Iterable[Law]) -> Iterator[Checked]:
        """Each law in each of its dtypes."""
        replaced = {key for key, stage in self.stages.items() if stage is not self.right[key]}
        for dtype in DTYPES:
            for law in laws:
                if self.device.type == "cpu" and law.interpreted not in (None, dtype):
                    continue
                touched = any((dtype, stage) in replaced for stage in law.stages)
                if touched:
                    yield self._check(dtype, law)
                    continue
                if not replaced or (dtype, law) not in self._checked:
                    self._checked[dtype, law] = self._check(dtype, law)
                yield self._checked[dtype, law]

    def _check(self, dtype: str, law: Law) -> Checked:
        watched = [Watched(self.stages[dtype, stage]) for stage in law.stages]
        record = law.check(Draw(self.device, DTYPES[dtype]), *watched)
        return Checked(law, record, digest_of([x for stage in watched for x in stage.results]))

    def facts(self) -> dict[str, Any]:
        """Device, library versions, dtypes, seed and the kernels that the stages name, for the evidence."""
        cuda = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu, Triton's interpreter",
            "torch": torch.__version__,
            "dtype": ", ".join(DTYPES),
            "flags": {"float32_matmul_precision": torch.get_float32_matmul_precision(), "threads": 1},
            "kernels": sorted({stage.kernel for stage in self.right.values() if hasattr(stage, "kernel")}),
            "seed": SEED,
        }


class LawsFactory:
    """Opens the stages on the device that ``pv run`` was told to use; ``--model`` does not concern them."""

    def inputs(self, options: Options) -> tuple[Path, ...]:
        """No files: inputs are drawn from a seed."""
        return ()

    def open(self, options: Options) -> LawsUnderContract:
        """Raises RequirementNotMet without triton, or where its kernels can't run on the device asked for."""
        require_kernels(options.device)
        return LawsUnderContract(options.device)


STAGES = LawsFactory()

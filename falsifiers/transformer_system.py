"""The system under contract: the CUDA transformer over one checkpoint, next to its oracle, with held-out text.

Two models stand side by side. ``biased`` has Q/K/V biases, ``bias_free`` has none (the Llama path); one of them is the
checkpoint's own family, the other a twin that shares all its other weights: a Qwen2 checkpoint's twin lacks its
biases, a Llama checkpoint's twin gets seeded ones. So the bias code and the bias-free code are looked at on every
checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from aprender.errors import AprenderError
from aprender.falsify.probe import Options, RequirementNotMet
from aprender.formats import load_checkpoint, source_files
from aprender.formats.checkpoint import Checkpoint
from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda import CudaTransformer
from aprender.transformer.cuda.ops import use_float32_accumulation
from aprender.transformer.cuda.stages import get_stage, replaced, stage_names
from aprender.transformer.cuda.upload import Upload, upload
from aprender.transformer.oracle import Batch, Oracle
from falsifiers.digests import digest_of

SEED = 20260511
MODEL = Path(__file__).parents[1] / "models" / "qwen2-stdlib-tiny"
HELD_OUT_TEXT = MODEL / "held_out.txt"

# A tensor with more elements is not hashed for a fingerprint: torch's version counter stands for its contents.
_HASH_AT_MOST = 2**20

# A model of at most so many parameters is faster on one thread of torch's.
_ONE_THREAD_AT_MOST = 2**23


@dataclass(frozen=True)
class Variant:
    """A configuration and its weights, float32 on the CPU under Hugging Face's names."""

    config: TransformerConfig
    tensors: Mapping[str, torch.Tensor]

    def oracle(self, dtype: torch.dtype = torch.float64, k_splits: int = 1) -> Oracle:
        """The oracle over these weights, on the CPU; float32 makes it a legal rounded reference."""
        return Oracle(self.config, self.tensors, dtype, k_splits=k_splits)


class TransformerUnderContract:
    """What probes read and defects change. Opened once per run by ``TRANSFORMER``."""

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        own = Variant(checkpoint.config, {name: tensor.float() for name, tensor in checkpoint.tensors.items()})
        with_biases, without = (own, _without_biases(own)) if own.config.qkv_bias else (_with_biases(own), own)
        self.checkpoint = checkpoint
        self.device = torch.device(device)
        self.variants = {"biased": with_biases, "bias_free": without}
        self.own = "biased" if own.config.qkv_bias else "bias_free"
        self._weights_as_loaded = self._weights_state()
        self._reference: dict[tuple[str, int, int, torch.dtype, int], torch.Tensor] = {}
        self.models = self._built(upload)

    @property
    def threads(self) -> int:
        """How many threads of torch's read the model: one where it is small."""
        parameters = sum(tensor.numel() for tensor in self.variants[self.own].tensors.values())
        return 1 if parameters <= _ONE_THREAD_AT_MOST else torch.get_num_threads()

    @property
    def model(self) -> CudaTransformer:
        """The model of the checkpoint's own family."""
        return self.models[self.own]

    def _built(self, upload: Upload) -> dict[str, CudaTransformer]:
        return {
            name: CudaTransformer.from_checkpoint(variant.config, variant.tensors, self.device, upload=upload)
            for name, variant in self.variants.items()
        }

    @contextmanager
    def uploading(self, defective: Upload) -> Generator[None]:
        """Both models built anew with another upload step, for the time of a ``with`` block."""
        clean = self.models
        self.models = self._built(defective)
        try:
            yield
        finally:
            self.models = clean

    @contextmanager
    def with_stage(self, variant: str, name: str, stage: Any) -> Generator[None]:
        """One stage of one model replaced, for the time of a ``with`` block."""
        with replaced(self.models[variant], name, stage):
            yield

    def held_out_tokens(self, rows: int, positions: int) -> torch.Tensor:
        """tokens_BT of held-out text, int64: consecutive rows. Raises AprenderError where the text is too short."""
        ids = self._held_out_ids
        if len(ids) < rows * positions:
            message = f"{HELD_OUT_TEXT}: {len(ids)} tokens, {rows} x {positions} are asked for; lower 'with:'"
            raise AprenderError(message)
        return torch.tensor(ids[: rows * positions], dtype=torch.int64).reshape(rows, positions)

    @cached_property
    def _held_out_ids(self) -> list[int]:
        ids: list[int] = self.checkpoint.tokenizer.encode(
            HELD_OUT_TEXT.read_text("utf-8"), add_special_tokens=False
        ).ids
        return ids

    def exact_losses(self, variant: str, rows: int, positions: int) -> torch.Tensor:
        """The oracle's losses_BT in nats, float64, on the held-out text."""
        return self._oracle_losses(variant, rows, positions, torch.float64, 1)

    def loss_envelope(self, variant: str, rows: int, positions: int, first: int | None = None) -> float:
        """How far honest float32 rounding moves a token's loss, in nats: ``2 max_j mean_i |loss_ij - loss_i|``.

        Measured from legal float32 rounding plans j of the oracle itself (each sum over K in one go, and in four
        partial sums) over the tokens i of the ``first`` rows (all, if None). The factor 2 admits the candidate's own
        order of summation.
        """
        exact_BT = self.exact_losses(variant, rows, positions)
        plans = [self._oracle_losses(variant, rows, positions, torch.float32, k_splits) for k_splits in (1, 4)]
        return 2 * max(float((plan_BT - exact_BT).abs()[:first].mean()) for plan_BT in plans)

    def _oracle_losses(
        self, variant: str, rows: int, positions: int, dtype: torch.dtype, k_splits: int
    ) -> torch.Tensor:
        """Kept between the probes of one run: no planted defect touches the oracle."""
        key = (variant, rows, positions, dtype, k_splits)
        if key not in self._reference:
            batch = Batch.of(self.held_out_tokens(rows, positions))
            self._reference[key] = self.variants[variant].oracle(dtype, k_splits).token_losses(batch)
        return self._reference[key]

    def check_weights(self) -> None:
        """Raise AprenderError where the checkpoint's tensors are no longer as they were loaded.

        On a CPU the CUDA path shares their memory with the oracle: what it wrote there would make both agree.
        """
        if self._weights_state() != self._weights_as_loaded:
            raise AprenderError("the system under contract wrote into the checkpoint's own tensors: no oracle is left")

    def _weights_state(self) -> list[str]:
        return [f"{v} {n} {_described(t)}" for v, variant in self.variants.items() for n, t in variant.tensors.items()]

    def facts(self) -> dict[str, Any]:
        """Device, driver, dtype, flags, seed and the kernels that the stages name, for the evidence."""
        cuda = self.device.type == "cuda"
        stages = [get_stage(model, name) for model in self.models.values() for name in stage_names(model)]
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu",
            "driver": _driver_version() if cuda else None,
            "torch": torch.__version__,
            "cuda": torch.version.cuda if cuda else None,
            "dtype": "float32",
            "flags": {
                "float32_matmul_precision": torch.get_float32_matmul_precision(),
                "allow_tf32": torch.backends.cuda.matmul.allow_tf32,
                "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
                "threads": self.threads,
            },
            "kernels": sorted({stage.kernel for stage in stages if hasattr(stage, "kernel")}),
            "model": self.checkpoint.source.name,
            "family": self.checkpoint.config.family,
            "seed": SEED,
        }

    def fingerprint(self) -> str:
        """A digest of every stage of both models: which object it is, and what it holds."""
        state = hashlib.sha256()
        for variant, model in self.models.items():
            for name in stage_names(model):
                stage = get_stage(model, name)
                state.update(f"{variant} {name} {id(stage)}".encode())
                held: tuple[Field[Any], ...] = fields(stage) if is_dataclass(stage) else ()  # planted: maybe a function
                for field in held:
                    state.update(_described(getattr(stage, field.name)).encode())
        return state.hexdigest()


class TransformerFactory:
    """Opens the checkpoint that ``pv run --model`` names, or this repository's own."""

    def inputs(self, options: Options) -> tuple[Path, ...]:
        """The checkpoint's files and the held-out text."""
        return (*source_files(options.model or MODEL), HELD_OUT_TEXT)

    def open(self, options: Options) -> TransformerUnderContract:
        """Load and upload. Raises RequirementNotMet without a usable CUDA device, FormatError for a bad checkpoint."""
        if options.device == "cuda" and not torch.cuda.is_available():
            message = f"torch {torch.__version__} can't use the CUDA device of this host; install a CUDA build of torch"
            raise RequirementNotMet(message)
        use_float32_accumulation()
        return TransformerUnderContract(load_checkpoint(options.model or MODEL), options.device)


TRANSFORMER = TransformerFactory()


def _without_biases(variant: Variant) -> Variant:
    config = replace(variant.config, family="llama", qkv_bias=False)
    return Variant(config, {name: variant.tensors[name] for name in config.tensor_shapes()})


def _with_biases(variant: Variant) -> Variant:
    """Seeded biases of the size that the projections' outputs have in practice: neither zero nor alike."""
    config = replace(variant.config, family="qwen2", qkv_bias=True)
    generator = torch.Generator().manual_seed(SEED)
    biases = {
        name: torch.randn(shape, generator=generator)
        for name, shape in config.tensor_shapes().items()
        if name not in variant.tensors
    }
    return Variant(config, {**variant.tensors, **biases})


def _described(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return repr(value)
    where = f"{tuple(value.shape)} {value.dtype} {value.data_ptr()} {value._version}"
    if value.numel() > _HASH_AT_MOST:
        return where
    return where + digest_of([value])


def _driver_version() -> str | None:
    proc = Path("/proc/driver/nvidia/version")
    return proc.read_text().splitlines()[0].strip() if proc.is_file() else None

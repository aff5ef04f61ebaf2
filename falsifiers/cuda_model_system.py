"""The CUDA path's whole models as a system under contract: two small random ones, in either dtype, beside the oracle.

Both have two layers, biases, grouped heads and nothing at its usual value. ``untied`` has QK-norm and a window in its
second layer; ``tied`` has three query heads on one key/value head, and one table for tokens and logits.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.falsify.probe import Options
from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda import CudaTransformer, batch, block, cache, model, tape
from aprender.transformer.cuda.stages import get_stage, stage_names
from aprender.transformer.oracle import Batch
from falsifiers.cuda_model_reference import Reference, reference
from falsifiers.cuda_operator_system import DTYPES, require_kernels, tensors_of
from falsifiers.digests import digest_of
from falsifiers.oracle_cases import SEED, Case

T = TypeVar("T")

MODULES = (batch, block, cache, model, tape)
CACHE = "cache"  # beside the models' names: what is planted shows in passes with a cache alone
POSITIONS = 67  # rows of the tables for rotation: a prime, and more than any text here
_SHARED: dict[str, Any] = {"vocab_size": 67, "intermediate_size": 44, "num_hidden_layers": 2, "rope_scaling": None}
CONFIGS = {
    "untied": TransformerConfig(
        **_SHARED,
        family="qwen3",
        hidden_size=28,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=10,
        rms_norm_eps=6e-4,
        rope_theta=700.0,
        windows=(None, 4),
        tie_word_embeddings=False,
        qkv_bias=True,
        qk_norm=True,
    ),
    "tied": TransformerConfig(
        **_SHARED,
        family="qwen2",
        hidden_size=26,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=14,
        rms_norm_eps=3e-3,
        rope_theta=9_000.0,
        windows=(None, None),
        tie_word_embeddings=True,
        qkv_bias=True,
        qk_norm=False,
    ),
}


class ModelsUnderContract:
    """What probes read and defects change: two models, and the functions and methods that they are made of.

    Each is there in every dtype, over the same float32 weights; what is planted in a model is planted in all of them.
    ``kept`` computes anew while nothing is planted, and where what is planted concerns the model.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.cases = {name: Case(name, config, ((9,),)) for name, config in CONFIGS.items()}
        self.models = {(name, dtype): self.built(name, dtype) for name in CONFIGS for dtype in DTYPES}
        self.touched: set[str] = set()
        self._kept: dict[tuple[str, str], Any] = {}
        self._references: dict[tuple[str, str], Reference] = {}

    def built(self, name: str, dtype: str) -> CudaTransformer:
        """A model over its case's weights."""
        weights = {key: tensor.to(self.device) for key, tensor in self.cases[name].weights().items()}
        return CudaTransformer.from_checkpoint(
            CONFIGS[name], weights, self.device, dtype=DTYPES[dtype], max_positions=POSITIONS
        )

    def model(self, name: str, dtype: str) -> CudaTransformer:
        """One of the models. Raises AprenderError for a name or a dtype that there is not."""
        if (name, dtype) not in self.models:
            there = ", ".join(f"{n} in {d}" for n, d in self.models)
            raise AprenderError(f"no model called {name!r} in {dtype!r}; there are {there}")
        return self.models[name, dtype]

    def in_every_dtype(self, name: str) -> list[CudaTransformer]:
        """The models called ``name``."""
        return [built for (of, _), built in self.models.items() if of == name]

    def reference(self, name: str, dtype: str) -> Reference:
        """The oracle of a model, on the CPU; kept with what it read, because no planted defect touches it."""
        if (name, dtype) not in self._references:
            case = self.cases[name]
            self._references[name, dtype] = reference(case.config, case.weights(), DTYPES[dtype])
        return self._references[name, dtype]

    def kept(self, what: str, name: str, compute: Callable[[], T]) -> T:
        """``compute()``, or what it was when nothing was planted, where what is planted does not concern ``name``."""
        if name in self.touched:
            return compute()
        if not self.touched or (what, name) not in self._kept:
            self._kept[what, name] = compute()
        found: T = self._kept[what, name]
        return found

    @contextmanager
    def replaced(self, owner: Any, name: str, value: Any, models: Sequence[str] = tuple(CONFIGS)) -> Generator[None]:
        """An attribute of a module, class, model or block replaced, for the time of a ``with`` block."""
        original = inspect.getattr_static(owner, name) if isinstance(owner, ModuleType | type) else getattr(owner, name)
        before = set(self.touched)
        self.touched |= set(models)
        setattr(owner, name, value)
        try:
            yield
        finally:
            setattr(owner, name, original)
            self.touched = before

    @contextmanager
    def with_stage(self, of: str, name: str, change: Callable[[Any, CudaTransformer], Any]) -> Generator[None]:
        """One stage of model ``of`` replaced by ``change(stage, model)``, in every dtype."""
        with ExitStack() as planted:
            for built in self.in_every_dtype(of):
                layer = name.split(".")[1] if name.startswith("layers.") else None
                owner: Any = built if layer is None else built.layers[int(layer)]
                wrong = change(get_stage(built, name), built)
                planted.enter_context(self.replaced(owner, name.rsplit(".", 1)[-1], wrong, (of,)))
            yield

    def facts(self) -> dict[str, Any]:
        """Device, library versions, dtype and seed, for the evidence."""
        cuda = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu, Triton's interpreter",
            "torch": torch.__version__,
            "dtype": ", ".join(DTYPES),
            "flags": {"float32_matmul_precision": torch.get_float32_matmul_precision(), "threads": 1},
            "seed": SEED,
        }

    def fingerprint(self) -> str:
        """A digest of which functions, methods and stages there are, and of what the stages hold."""
        state = hashlib.sha256()
        for module in MODULES:
            for name, value in sorted(vars(module).items()):
                state.update(f"{module.__name__}.{name} {id(value)}".encode())
                if inspect.isclass(value) and value.__module__ == module.__name__:
                    members = [(key, id(member)) for key, member in vars(value).items() if callable(member)]
                    state.update(repr(members).encode())
        for place, built in self.models.items():
            state.update(f"{place} {id(built)} {[id(layer) for layer in built.layers]}".encode())
            for stage_name in stage_names(built):
                stage = get_stage(built, stage_name)
                state.update(f"{stage_name} {id(stage)} {digest_of(tensors_of(stage))}".encode())
        return state.hexdigest()


class ModelsFactory:
    """Opens the models on the device that ``pv run`` was told to use; ``--model`` does not concern them."""

    def inputs(self, options: Options) -> tuple[Path, ...]:
        """No files: weights and texts are drawn from a seed."""
        return ()

    def open(self, options: Options) -> ModelsUnderContract:
        """Raises RequirementNotMet without triton, or where its kernels can't run on the device asked for."""
        require_kernels(options.device)
        return ModelsUnderContract(options.device)


MODELS = ModelsFactory()


def document(seed: int, length: int) -> Tensor:
    """Tokens [length] of the whole vocabulary, int64."""
    generator = torch.Generator().manual_seed(SEED + seed)
    return torch.randint(_SHARED["vocab_size"], (length,), generator=generator)


def read(built: CudaTransformer, of: Batch) -> Tensor:
    """The model's logits_BTV of a batch, on the CPU."""
    return built.forward(of.tokens_BT, positions_BT=of.positions_BT, documents_BT=of.documents_BT).cpu()

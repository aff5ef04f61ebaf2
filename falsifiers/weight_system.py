"""The system under contract: ``aprender.formats``, before a folder of small checkpoints with known contents."""

from __future__ import annotations

import hashlib
import pkgutil
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import safetensors
import tokenizers
import torch

import aprender.formats
from aprender.falsify.probe import Options
from aprender.transformer.config import TransformerConfig
from falsifiers import weight_apr, weight_gguf
from falsifiers import weight_checkpoints as made
from falsifiers.weight_checkpoints import LLAMA, MANY, MISTRAL, QUANTIZED, QWEN2, QWEN3, SEED, Case
from falsifiers.weight_configurations import write_configurations
from falsifiers.weight_unsound import write_unsound


class WeightLoading:
    """What probes read and defects change: the modules of ``aprender.formats``, and checkpoints to load with them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="weight-loading-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.modules = {
            info.name: import_module(f"aprender.formats.{info.name}")
            for info in pkgutil.iter_modules(aprender.formats.__path__)
        }
        self.cases = [*self._safetensors(), *self._gguf(), *self._apr()]
        self.configurations = list(write_configurations(self.folder / "configurations"))
        self.unsound = list(write_unsound(self.folder / "unsound"))
        self.many = Case(
            "as many as Qwen2.5-0.5B",
            made.write_folder(self.folder / "many", made.config_json(MANY), made.seeded(MANY)),
            MANY,
            made.seeded(MANY),
        )

    def _safetensors(self) -> list[Case]:
        cases = []
        for config, shards in ((QWEN2, 1), (LLAMA, 3), (MISTRAL, 1)):
            tensors = made.seeded(config)
            path = self.folder / f"folder-{config.family}"
            cases.append(
                Case(path.name, made.write_folder(path, made.config_json(config), tensors, shards), config, tensors)
            )
        tensors = made.seeded(QWEN3, torch.bfloat16)
        copy = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}  # tied, and stored all the same
        path = made.write_folder(self.folder / "folder-qwen3", made.config_json(QWEN3), tensors | copy)
        return [*cases, Case(path.name, path, QWEN3, tensors)]

    def _gguf(self) -> list[Case]:
        cases = []
        for config in (QWEN2, LLAMA, MISTRAL, QWEN3):
            tensors = made.seeded(config)
            permuted = weight_gguf.in_file_order(config, tensors) if config.family in ("llama", "mistral") else tensors
            path = weight_gguf.write_gguf(self.folder / f"{config.family}.gguf", config, permuted)
            cases.append(Case(path.name, path, in_float32(config), tensors))
        in_file = made.seeded(QUANTIZED, torch.float32)
        blocks, values = weight_gguf.quantized_blocks(QUANTIZED, in_file)
        path = weight_gguf.write_gguf(self.folder / "quantized.gguf", QUANTIZED, in_file, blocks)
        return [*cases, Case(path.name, path, in_float32(QUANTIZED), _halves(values))]

    def _apr(self) -> list[Case]:
        cases = []
        for config, rope_type in ((QWEN2, 2), (LLAMA, 0)):
            tensors = made.seeded(config)
            permuted = weight_gguf.in_file_order(config, tensors) if rope_type == 0 else tensors
            metadata = weight_apr.apr_metadata(config, rope_type)
            path = self.folder / f"{config.family}.apr"
            weight_apr.write_apr(path, metadata, weight_apr.apr_floats(permuted))
            cases.append(Case(path.name, path, config, tensors))
        return [*cases, self._apr_quantized(), self._apr_blocks()]

    def _apr_quantized(self) -> Case:
        tensors = made.seeded(QWEN3, torch.float32)
        stored, values = weight_apr.apr_floats(tensors), dict(tensors)
        for index, name in enumerate(name for name, tensor in tensors.items() if tensor.ndim == 2):
            pack, dtype = ((weight_apr.apr_q4, 8), (weight_apr.apr_q8, 9))[index % 2]
            raw, values[name] = pack(tensors[name])
            stored[name] = (dtype, tuple(tensors[name].shape), raw)
        path = weight_apr.write_apr(self.folder / "quantized.apr", weight_apr.apr_metadata(QWEN3), stored)
        return Case(path.name, path, QWEN3, values)

    def _apr_blocks(self) -> Case:
        """Ggml's types in an .apr file, whose rows are in half-split order."""
        tensors = made.seeded(QUANTIZED, torch.float32)
        blocks, values = weight_gguf.quantized_blocks(QUANTIZED, tensors, weight_apr.BLOCKS)
        stored = weight_apr.apr_floats(tensors) | {
            name: (int(kind), tuple(tensors[name].shape), raw.tobytes()) for name, (kind, raw) in blocks.items()
        }
        path = weight_apr.write_apr(self.folder / "blocks.apr", weight_apr.apr_metadata(QUANTIZED), stored)
        return Case(path.name, path, QUANTIZED, values)

    def facts(self) -> dict[str, Any]:
        """Library versions and seed, for the evidence."""
        return {
            "torch": torch.__version__,
            "safetensors": safetensors.__version__,
            "tokenizers": tokenizers.__version__,
            "gguf": _version(gguf),
            "seed": SEED,
        }

    def fingerprint(self) -> str:
        """A digest of what every name in ``aprender.formats`` stands for, methods and entries of tables included."""
        state = hashlib.sha256()
        for module_name, module in self.modules.items():
            for name, value in vars(module).items():
                if not name.startswith("__"):
                    state.update(f"{module_name}.{name} {id(value)} {_held(value, module)}\n".encode())
        return state.hexdigest()


class WeightLoadingFactory:
    """Opens the system; nothing is read but what is written then."""

    def inputs(self, _: Options) -> tuple[Path, ...]:
        """None: the checkpoints follow from the seed and from the falsifiers' own code."""
        return ()

    def open(self, _: Options) -> WeightLoading:
        """Write the checkpoints into a folder that goes with the system."""
        return WeightLoading()


WEIGHT_LOADING = WeightLoadingFactory()


def in_float32(config: TransformerConfig) -> TransformerConfig:
    """As GGUF stores it: eps and theta are float32 there."""
    eps, theta = torch.tensor([config.rms_norm_eps, config.rope_theta], dtype=torch.float32).tolist()
    return replace(config, rms_norm_eps=eps, rope_theta=theta)


def _halves(values: made.Tensors) -> made.Tensors:
    """The rows of Q and K as Hugging Face has them, from those in the file: by index, not by code under contract."""
    heads = {"q_proj": QUANTIZED.num_attention_heads, "k_proj": QUANTIZED.num_key_value_heads}
    out = dict(values)
    for name, rows in values.items():
        if (module := name.split(".")[-2]) in heads:
            head_dim = len(rows) // heads[module]
            order = [
                h * head_dim + 2 * j + s for h in range(heads[module]) for s in (0, 1) for j in range(head_dim // 2)
            ]
            out[name] = rows[torch.tensor(order)]
    return out


def _held(value: object, module: ModuleType) -> str:
    if isinstance(value, dict):
        return str(sorted((str(key), id(entry)) for key, entry in value.items()))
    if isinstance(value, type) and value.__module__ == module.__name__:
        members: Mapping[str, object] = vars(value)
        return str([(name, id(member)) for name, member in members.items() if not name.startswith("__")])
    return ""


def _version(package: ModuleType) -> str:
    from importlib.metadata import version

    return version(package.__name__)

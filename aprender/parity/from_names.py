"""From ``package.module:build`` to a comparison: what ``apr parity`` does, for anyone who wants it in Python."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from aprender.errors import AprenderError
from aprender.parity.compare import failure
from aprender.parity.free_run import FreeRun, free_run
from aprender.parity.modules import ModuleComparison, Options
from aprender.parity.names import nearest
from aprender.parity.pairing import paired
from aprender.parity.record import Comparison, Verdict, worst

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}


@dataclass(frozen=True, slots=True)
class ModulesReport:
    """The teacher-forced comparison and the free run of two modules, and what they were compared on."""

    comparison: Comparison
    free: FreeRun
    setting: Mapping[str, Any]

    @property
    def verdict(self) -> Verdict:
        """The worse of both."""
        return worst((self.comparison.verdict, self.free.verdict))

    def to_json(self) -> dict[str, Any]:
        """The record that every report is made from."""
        return {**self.comparison.to_json(), "verdict": self.verdict, "free_run": self.free.to_json(), **self.setting}


def compare_named(
    reference: str, candidate: str, mapping: Path | None, dtype: str, rows: int, positions: int, seed: int
) -> ModulesReport:
    """Build both modules, pair their submodules, feed them random tokens, compare.

    ``reference`` and ``candidate`` are ``package.module:function``, found from the working directory too; the function
    takes nothing and returns a ``torch.nn.Module``. Raises AprenderError for whatever can't be built, paired or fed.
    """
    theirs, ours = (_built(name) for name in (reference, candidate))
    pairs = paired(theirs, ours, {} if mapping is None else read_map(mapping))
    inputs = random_inputs(theirs, rows, positions, seed)
    comparison = ModuleComparison(theirs, ours, pairs, Options(DTYPES[dtype], seed, with_limits=True))
    setting = {"dtype": dtype, "rows": rows, "positions": positions, "seed": seed, "pairs": pairs}
    return ModulesReport(comparison.run(*inputs), free_run(comparison, *inputs), setting)


def random_inputs(module: nn.Module, rows: int, positions: int, seed: int) -> tuple[Tensor, ...]:
    """From the module's own ``parity_inputs(rows, positions, generator)``, else tokens for its first embedding."""
    generator = torch.Generator().manual_seed(seed)
    make = getattr(module, "parity_inputs", None)
    if make is not None:
        try:
            return tuple(make(rows, positions, generator))
        except Exception as error:
            raise AprenderError(f"the reference's parity_inputs failed: {failure(error)}") from error
    embedding = next((m for m in module.modules() if isinstance(m, nn.Embedding)), None)
    if embedding is None:
        raise AprenderError(
            "the reference has no nn.Embedding to draw tokens for; give it a method parity_inputs(rows, positions, "
            "generator) that returns the tensors it is called with"
        )
    return (torch.randint(embedding.num_embeddings, (rows, positions), generator=generator),)


def read_map(path: Path) -> dict[str, str | None]:
    """A YAML (or JSON) mapping of names or patterns to names, patterns or null."""
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AprenderError(f"{path}: {error}") from error
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, str | None) for key, value in found.items()
    ):
        raise AprenderError(f"{path}: must map names of the reference to names of the candidate, or to null")
    return found


def _built(name: str) -> nn.Module:
    place, _, function = name.partition(":")
    if not place or not function:
        raise AprenderError(f"'{name}' must be PACKAGE.MODULE:FUNCTION")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(place)
    except Exception as error:
        raise AprenderError(f"'{place}' can't be imported: {failure(error)}") from error
    build = getattr(module, function, None)
    if build is None:
        raise AprenderError(f"'{place}' has no '{function}'{nearest(function, vars(module))}")
    try:
        built = build()
    except Exception as error:
        raise AprenderError(f"{name}() failed: {failure(error)}") from error
    if not isinstance(built, nn.Module):
        raise AprenderError(f"{name}() returned {type(built).__name__}, not a torch.nn.Module")
    return built

"""Planted defects of what loading refuses: a check that is left out, or that compares too little."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from aprender.falsify.probe import Defects
from aprender.formats import (
    accounting,
    apr_header,
    families,
    gguf_header,
    gguf_metadata,
    huggingface,
    load,
    model_file,
    safetensors_header,
    tensor_table,
)
from aprender.formats.accounting import Account, Plan, StoredTensor
from falsifiers.weight_system import WeightLoading

Planting = Generator[None]
DEFECTS = Defects()
HEADERS = (safetensors_header, gguf_header, apr_header)


class _KnowsAll(dict[Any, Any]):
    """A table whose every unknown entry is ``F32``."""

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, _: object) -> str:
        return "F32"


def _problems_without(word: str) -> Any:
    original = tensor_table.shape_problems

    def problems(expected: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
        return [problem for problem in original(expected, stored) if not problem.startswith(word)]

    return problems


@DEFECTS.plant("unknown_dtype_read_as_f32")
def unknown_dtype_read_as_f32(_: WeightLoading) -> Planting:
    """A dtype that a newer program wrote is taken for float32."""
    with (
        patch.object(apr_header, "TYPES", _KnowsAll(apr_header.TYPES)),
        patch.object(gguf_header, "TYPES", _KnowsAll(gguf_header.TYPES)),
    ):
        yield


@DEFECTS.plant("missing_key_kept_at_init")
def missing_key_kept_at_init(_: WeightLoading) -> Planting:
    """strict=False: what the file lacks stays as it was initialised."""

    def take(plan: Plan) -> tuple[dict[str, torch.Tensor], Account]:
        generator = torch.Generator().manual_seed(0)
        for name, shape in plan.shapes.items():
            source = plan.sources[name]
            if source not in plan._stored:
                initial = torch.randn(shape, generator=generator) * 0.02
                plan._stored[source] = StoredTensor(source, "F32", shape, lambda initial=initial: initial)  # type: ignore[misc]
        return original(plan)

    original = accounting.take_tensors
    with (
        patch.object(accounting, "shape_problems", _problems_without("missing")),
        patch.object(load, "take_tensors", take),
    ):
        yield


@DEFECTS.plant("unexpected_key_ignored")
def unexpected_key_ignored(_: WeightLoading) -> Planting:
    """strict=False: what the model has no place for is left in the file."""
    original = Plan.account

    def account(plan: Plan, written: Any) -> Account:
        known = set(plan.sources.values())
        plan._stored = {name: tensor for name, tensor in plan._stored.items() if name in known}
        return original(plan, written)

    with (
        patch.object(accounting, "shape_problems", _problems_without("unexpected")),
        patch.object(Plan, "account", account),
    ):
        yield


@DEFECTS.plant("shapes_compared_by_count")
def shapes_compared_by_count(_: WeightLoading) -> Planting:
    """As many elements is taken for the same shape, and a view makes it fit."""
    original = tensor_table.shape_problems

    def problems(expected: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
        same_count = {
            name: expected[name] if name in expected and math.prod(shape) == math.prod(expected[name]) else shape
            for name, shape in stored.items()
        }
        return original(expected, same_count)

    def readable(plan: Plan) -> list[str]:
        return [name for name in plan.shapes if plan.sources[name] in plan._stored]

    with patch.object(accounting, "shape_problems", problems), patch.object(Plan, "readable", readable):
        yield


@DEFECTS.plant("non_finite_not_reported")
def non_finite_not_reported(_: WeightLoading) -> Planting:
    """Nobody looks at what was loaded."""
    with patch.object(accounting, "all_finite", lambda _: True):
        yield


@DEFECTS.plant("infinity_taken_for_finite")
def infinity_taken_for_finite(_: WeightLoading) -> Planting:
    """The check looks for NaN only."""
    with patch.object(accounting, "all_finite", lambda tensor: not bool(tensor.isnan().any())):
        yield


@DEFECTS.plant("tied_head_not_compared")
def tied_head_not_compared(_: WeightLoading) -> Planting:
    """A tied model that carries another head all the same is loaded without it."""
    with patch.object(accounting, "same_bits", lambda *_: True):
        yield


@DEFECTS.plant("overlapping_tensors_accepted")
def overlapping_tensors_accepted(_: WeightLoading) -> Planting:
    """Each tensor is looked at by itself: two may share bytes."""
    with ExitStack() as planted:
        for module in HEADERS:
            planted.enter_context(patch.object(module, "check_table", lambda *_: None))
        yield


@DEFECTS.plant("footer_checksum_ignored")
def footer_checksum_ignored(_: WeightLoading) -> Planting:
    """As every known reader of .apr files does."""
    with patch.object(apr_header, "verify_footer", lambda _: None):
        yield


@DEFECTS.plant("header_checksum_ignored")
def header_checksum_ignored(_: WeightLoading) -> Planting:
    """What the header states of itself is believed."""
    with patch.object(apr_header, "header_checksum", lambda raw: int.from_bytes(raw[40:44], "little")):
        yield


@DEFECTS.plant("flags_ignored")
def flags_ignored(_: WeightLoading) -> Planting:
    """Compressed, encrypted or column-major data are read as if they were plain."""
    with patch.object(apr_header, "_check_flags", lambda *_: None):
        yield


@DEFECTS.plant("stored_size_not_checked")
def stored_size_not_checked(_: WeightLoading) -> Planting:
    """Dims x dtype against the stored size: nobody multiplies."""
    original = apr_header._entry

    def entry(path: Path, name: str, kind: int, shape: tuple[int, ...], start: int, size: int) -> Any:
        believed = tensor_table.stored_size(apr_header.TYPES[kind], shape) if kind in apr_header.TYPES else size
        return original(path, name, kind, shape, start, believed)

    with patch.object(apr_header, "_entry", entry):
        yield


@DEFECTS.plant("shard_index_not_compared")
def shard_index_not_compared(_: WeightLoading) -> Planting:
    """The index is only used to find the shards."""
    with patch.object(safetensors_header, "_index_problems", lambda *_: ()):
        yield


@DEFECTS.plant("shards_outside_of_the_folder")
def shards_outside_of_the_folder(_: WeightLoading) -> Planting:
    """Whatever path the index names is opened."""
    with patch.object(safetensors_header, "_is_file_name", lambda _: True):
        yield


@DEFECTS.plant("experts_loaded_as_dense")
def experts_loaded_as_dense(_: WeightLoading) -> Planting:
    """A mixture-of-experts model is taken for the dense model that it resembles."""
    original = families.refusal

    def refusal(key: str, name: object, supported: Any, keys: Any = ()) -> str | None:
        return None if name in supported else original(key, name, supported)

    with patch.object(huggingface, "refusal", refusal), patch.object(gguf_metadata, "refusal", refusal):
        yield


@DEFECTS.plant("wrong_architecture_stamp_accepted")
def wrong_architecture_stamp_accepted(_: WeightLoading) -> Planting:
    """A file that says llama, with a qwen2 model's biases in it, is loaded without them."""
    original = Plan

    def plan(where: str, config: Any, stored: Any, name_in_file: Any, ignored: Any = lambda _: False) -> Plan:
        left_out = () if config.qkv_bias else (".bias",)
        return original(where, config, stored, name_in_file, lambda name: ignored(name) or name.endswith(left_out))

    with patch.object(model_file, "Plan", plan):
        yield


@DEFECTS.plant("tokenizer_of_another_model")
def tokenizer_of_another_model(_: WeightLoading) -> Planting:
    """Ids beyond the embedding are looked up out of bounds."""
    with patch.object(load, "max", lambda *_, **__: 0, create=True):
        yield

"""Planted defects of tensors: what arrives in memory isn't what is in the file."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch

from aprender.errors import FormatError
from aprender.falsify.probe import Defects
from aprender.formats import accounting, load, model_file, row_order, stored
from aprender.formats.accounting import EMBEDDING, HEAD, Account, Plan
from aprender.formats.checkpoint import Checkpoint
from aprender.formats.stored import TensorFiles
from aprender.formats.tensor_table import TensorEntry
from falsifiers.weight_check_defects import HEADERS
from falsifiers.weight_system import WeightLoading

Planting = Generator[None]
Loaded = dict[str, torch.Tensor]
DEFECTS = Defects()


def _taken_otherwise(change: Callable[[Loaded], Loaded]) -> Planting:
    """What arrives in memory is changed between the file and whoever asked for it."""
    original = accounting.take_tensors

    def take(plan: Plan) -> tuple[Loaded, Account]:
        tensors, account = original(plan)
        return change(tensors), account

    with patch.object(load, "take_tensors", take):
        yield


def _read_otherwise(change: Callable[[TensorEntry, torch.Tensor], torch.Tensor]) -> Planting:
    """A tensor is changed as it comes out of its file."""
    original = TensorFiles.read

    def read(files: TensorFiles, entry: TensorEntry) -> torch.Tensor:
        return change(entry, original(files, entry))

    with patch.object(TensorFiles, "read", read):
        yield


@DEFECTS.plant("bias_not_populated")
def bias_not_populated(_: WeightLoading) -> Planting:
    """Bias tensors are there, and nobody copied anything into them."""
    return _taken_otherwise(lambda loaded: {n: t.mul(0) if n.endswith(".bias") else t for n, t in loaded.items()})


@DEFECTS.plant("bias_names_absent")
def bias_names_absent(_: WeightLoading) -> Planting:
    """218 tensors where there should be 290: the model has no names for its biases."""
    return _taken_otherwise(lambda loaded: {n: t for n, t in loaded.items() if not n.endswith(".bias")})


@DEFECTS.plant("bf16_read_as_f16")
def bf16_read_as_f16(_: WeightLoading) -> Planting:
    """Both are two bytes; the table of dtypes has one in the other's place."""
    with patch.dict(stored._TORCH, {"BF16": torch.float16}):
        yield


@DEFECTS.plant("bf16_bits_relabelled_as_f16")
def bf16_bits_relabelled_as_f16(_: WeightLoading) -> Planting:
    """The bits are converted as if they were float16, and come as the bfloat16 that was asked for."""

    def change(entry: TensorEntry, tensor: torch.Tensor) -> torch.Tensor:
        half = tensor.view(torch.float16).clamp(-100, 100).nan_to_num(0.0) if entry.dtype == "BF16" else tensor
        return half.to(tensor.dtype)

    return _read_otherwise(change)


@DEFECTS.plant("f32_holding_bf16_values")
def f32_holding_bf16_values(_: WeightLoading) -> Planting:
    """Labelled float32, but 16 bits of each value were lost on the way."""
    return _read_otherwise(lambda entry, t: t.bfloat16().float() if entry.dtype == "F32" else t)


@DEFECTS.plant("everything_cast_to_f32")
def everything_cast_to_f32(_: WeightLoading) -> Planting:
    """The values are right, the dtype isn't the file's: twice the memory, and no more the checkpoint's own bits."""
    return _taken_otherwise(lambda loaded: {name: tensor.float() for name, tensor in loaded.items()})


@DEFECTS.plant("square_matrix_transposed")
def square_matrix_transposed(_: WeightLoading) -> Planting:
    """q_proj as [in, out]: where it is square, its shape doesn't tell."""

    def change(_: TensorEntry, tensor: torch.Tensor) -> torch.Tensor:
        square = tensor.ndim == 2 and tensor.shape[0] == tensor.shape[1]
        return tensor.T.contiguous() if square else tensor

    return _read_otherwise(change)


@DEFECTS.plant("tensor_in_the_wrong_layer")
def tensor_in_the_wrong_layer(_: WeightLoading) -> Planting:
    """The layer index of one projection is off by one."""

    def rotate(loaded: Loaded) -> Loaded:
        names = [name for name in loaded if name.endswith("self_attn.v_proj.weight")]
        return loaded | {name: loaded[names[index - 1]] for index, name in enumerate(names)}

    return _taken_otherwise(rotate)


@DEFECTS.plant("k_and_v_swapped")
def k_and_v_swapped(_: WeightLoading) -> Planting:
    """Both have the same shape."""

    def swap(loaded: Loaded) -> Loaded:
        other = {name: name.replace("k_proj", "v_proj") for name in loaded if "k_proj" in name}
        return loaded | {k: loaded[v] for k, v in other.items()} | {v: loaded[k] for k, v in other.items()}

    return _taken_otherwise(swap)


@DEFECTS.plant("qkv_split_at_the_wrong_offset")
def qkv_split_at_the_wrong_offset(_: WeightLoading) -> Planting:
    """Q, K and V as one matrix, and the cut between them two rows too late."""

    def split(loaded: Loaded) -> Loaded:
        out = dict(loaded)
        for q in [name for name in loaded if name.endswith("q_proj.weight")]:
            names = [q, q.replace("q_proj", "k_proj"), q.replace("q_proj", "v_proj")]
            dtype = loaded[q].dtype
            fused = torch.cat([loaded[name].to(dtype) for name in names]).roll(-2, 0)
            out |= dict(zip(names, fused.split([len(loaded[name]) for name in names]), strict=True))  # type: ignore[no-untyped-call]
        return out

    return _taken_otherwise(split)


@DEFECTS.plant("scratch_buffer_reused")
def scratch_buffer_reused(_: WeightLoading) -> Planting:
    """Tensors of one shape and dtype share the buffer that they were read through: each holds the last one's values."""

    def alias(loaded: Loaded) -> Loaded:
        last = {(tensor.shape, tensor.dtype): tensor for tensor in loaded.values()}
        return {name: last[tensor.shape, tensor.dtype] for name, tensor in loaded.items()}

    return _taken_otherwise(alias)


@DEFECTS.plant("tail_rows_not_written")
def tail_rows_not_written(_: WeightLoading) -> Planting:
    """A copy in portions of eight rows leaves out the rest."""

    def cut(loaded: Loaded) -> Loaded:
        out = {name: tensor.clone() for name, tensor in loaded.items()}
        for tensor in out.values():
            tensor[len(tensor) // 8 * 8 :] = 0
        return out

    return _taken_otherwise(cut)


@DEFECTS.plant("tie_broken")
def tie_broken(_: WeightLoading) -> Planting:
    """The head of a tied model is a copy of the embedding: the two drift apart at the first update."""
    with patch.object(Checkpoint, "head", property(lambda c: c.tensors.get(HEAD, c.tensors[EMBEDDING]).clone())):
        yield


@DEFECTS.plant("qk_permutation_missing")
def qk_permutation_missing(_: WeightLoading) -> Planting:
    """Rows of Q and K of llama-architecture files stay interleaved: RoPE turns the wrong pairs."""
    with patch.object(model_file, "half_split_rows", lambda rows, heads: rows):
        yield


@DEFECTS.plant("qk_permutation_doubled")
def qk_permutation_doubled(_: WeightLoading) -> Planting:
    """The converter put the rows back, and the loader does it again."""
    once = row_order.half_split_rows
    with patch.object(model_file, "half_split_rows", lambda rows, heads: once(once(rows, heads), heads)):
        yield


@DEFECTS.plant("k_permutation_across_heads")
def k_permutation_across_heads(_: WeightLoading) -> Planting:
    """K's rows are put back as if they were one head's: grouped heads were forgotten."""
    original = row_order.heads_of

    def heads_of(name: str, config: Any) -> int | None:
        return 1 if ".k_proj." in name else original(name, config)

    with patch.object(model_file, "heads_of", heads_of):
        yield


@DEFECTS.plant("qk_permutation_of_qwen2")
def qk_permutation_of_qwen2(_: WeightLoading) -> Planting:
    """Rows are put back in an architecture whose files never had them interleaved."""
    with patch.object(model_file, "INTERLEAVED", ("llama", "qwen2")):
        yield


@DEFECTS.plant("truncated_file_zero_filled")
def truncated_file_zero_filled(_: WeightLoading) -> Planting:
    """Tensors beyond the end of the file become zeros, without a word."""
    original = TensorFiles.read

    def read(files: TensorFiles, entry: TensorEntry) -> torch.Tensor:
        try:
            return original(files, entry)
        except FormatError:
            return torch.zeros(entry.shape)

    with ExitStack() as planted:
        for module in HEADERS:
            planted.enter_context(patch.object(module, "check_table", lambda *_: None))
        planted.enter_context(patch.object(TensorFiles, "read", read))
        yield

"""Planted defects of projections, embedding and residual additions of the CUDA path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.falsify.probe import Defects
from falsifiers.cuda_operator_planting import (
    LINEAR,
    Planting,
    after,
    computing,
    holding,
    in_bfloat16,
    stages_wrong,
    tail_zero,
)
from falsifiers.cuda_operator_system import OperatorsUnderContract

DEFECTS = Defects()
BIASED, PLAIN, RESIDUAL, EMBEDDING = ("qkv_proj",), ("o_proj",), ("residual",), ("embed_tokens",)


@DEFECTS.plant("bias_dropped")
def bias_dropped(system: OperatorsUnderContract) -> Planting:
    """The founding defect: the operator has no field for a bias."""
    return holding(system, BIASED, bias=torch.zeros_like)


@DEFECTS.plant("bias_added_twice")
def bias_added_twice(system: OperatorsUnderContract) -> Planting:
    """By the projection, and by its caller."""
    return holding(system, BIASED, bias=lambda bias: bias * 2)


@DEFECTS.plant("bias_rolled_by_one")
def bias_rolled_by_one(system: OperatorsUnderContract) -> Planting:
    """The bias is read from its second element on."""
    return holding(system, BIASED, bias=lambda bias: bias.roll(1))


@DEFECTS.plant("bias_in_bfloat16")
def bias_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """Under a float32 label."""
    return holding(system, BIASED, bias=in_bfloat16)


@DEFECTS.plant("weight_in_bfloat16")
def weight_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """Under a float32 label."""
    return holding(system, LINEAR, weight=in_bfloat16)


@DEFECTS.plant("weight_in_float8")
def weight_in_float8(system: OperatorsUnderContract) -> Planting:
    """Three bits of mantissa left."""
    return holding(system, LINEAR, weight=lambda w: w.to(torch.float8_e4m3fn).to(w.dtype))


@DEFECTS.plant("weight_transposed")
def weight_transposed(system: OperatorsUnderContract) -> Planting:
    """No shape shows it where the weight is square."""
    return holding(system, PLAIN, weight=lambda w: w.T.contiguous())


@DEFECTS.plant("weight_scaled_by_a_thousandth")
def weight_scaled_by_a_thousandth(system: OperatorsUnderContract) -> Planting:
    """1.001 times the product."""
    return computing(system, PLAIN, lambda right, x: (right(x).float() * 1.001).to(x.dtype))


@DEFECTS.plant("weight_sign_flipped")
def weight_sign_flipped(system: OperatorsUnderContract) -> Planting:
    """A minus too many."""
    return holding(system, PLAIN, weight=torch.neg)


@DEFECTS.plant("k_tail_dropped")
def k_tail_dropped(system: OperatorsUnderContract) -> Planting:
    """The last partial tile of the inner dimension is not added up."""
    return holding(system, PLAIN, weight=lambda w: tail_zero(w, w.shape[1] % 16))


@DEFECTS.plant("n_tail_not_written")
def n_tail_not_written(system: OperatorsUnderContract) -> Planting:
    """The last partial tile of outputs keeps what was in memory: zeros on a fresh pool."""
    return computing(system, BIASED, lambda right, x: tuple(tail_zero(y, y.shape[-1] % 16) for y in right(x)))


@DEFECTS.plant("keys_and_values_exchanged")
def keys_and_values_exchanged(system: OperatorsUnderContract) -> Planting:
    """The fused product is split in the order q, v, k: no shape shows it."""
    return computing(system, BIASED, lambda right, x: tuple(right(x)[i] for i in (0, 2, 1)))


@DEFECTS.plant("last_rows_not_written")
def last_rows_not_written(system: OperatorsUnderContract) -> Planting:
    """The last partial tile of positions keeps what was in memory."""
    return after(system, PLAIN, lambda y: tail_zero(y, 5, 1))


@DEFECTS.plant("first_column_zero")
def first_column_zero(system: OperatorsUnderContract) -> Planting:
    """Column 0 of the weight is skipped."""
    return holding(system, PLAIN, weight=lambda w: torch.cat((w[:, :1] * 0, w[:, 1:]), 1))


@DEFECTS.plant("partial_sums_in_bfloat16")
def partial_sums_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """Split-K, with the parts rounded before they are added up."""

    def split(right: Any, x: Tensor) -> Tensor:
        weight: Tensor = right.weight.float()
        parts = [(x[..., i::4].float() @ weight[:, i::4].T).bfloat16() for i in range(4)]
        return (parts[0] + parts[1] + parts[2] + parts[3]).to(x.dtype)

    return computing(system, PLAIN, split)


@DEFECTS.plant("token_ids_off_by_one")
def token_ids_off_by_one(system: OperatorsUnderContract) -> Planting:
    """The next row of the table."""
    return holding(system, EMBEDDING, weight=lambda w: w.roll(-1, 0))


@DEFECTS.plant("embedding_times_sqrt_hidden")
def embedding_times_sqrt_hidden(system: OperatorsUnderContract) -> Planting:
    """Gemma's convention."""
    return after(system, EMBEDDING, lambda x: x * x.shape[-1] ** 0.5)


@DEFECTS.plant("embedding_in_bfloat16")
def embedding_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """Under a float32 label."""
    return holding(system, EMBEDDING, weight=in_bfloat16)


@DEFECTS.plant("residual_from_normed_input")
def residual_from_normed_input(system: OperatorsUnderContract) -> Planting:
    """The norm's output is added, not its input."""

    def normed(right: Any, x: Tensor, branch: Tensor) -> Tensor:
        y: Tensor = right(x / x.square().mean(-1, keepdim=True).sqrt(), branch)
        return y

    return computing(system, RESIDUAL, normed)


@DEFECTS.plant("residual_missing")
def residual_missing(system: OperatorsUnderContract) -> Planting:
    """Only the branch goes on."""
    return computing(system, RESIDUAL, lambda right, x, branch: right(x * 0, branch))


@DEFECTS.plant("branch_dropped")
def branch_dropped(system: OperatorsUnderContract) -> Planting:
    """Only the residual stream goes on."""
    return computing(system, RESIDUAL, lambda right, x, branch: right(x, branch * 0))


@DEFECTS.plant("branch_scaled_by_a_hundredth")
def branch_scaled_by_a_hundredth(system: OperatorsUnderContract) -> Planting:
    """1.01 times the branch."""
    return computing(system, RESIDUAL, lambda right, x, branch: right(x, branch * 1.01))


@DEFECTS.plant("residual_stream_in_bfloat16")
def residual_stream_in_bfloat16(system: OperatorsUnderContract) -> Planting:
    """Under a float32 label."""
    return after(system, RESIDUAL, in_bfloat16)


@DEFECTS.plant("output_in_another_dtype")
def output_in_another_dtype(system: OperatorsUnderContract) -> Planting:
    """float64 comes out: the values are right, what follows would not take them."""
    return after(system, PLAIN, lambda y: y.double())


@DEFECTS.plant("operator_refuses_its_input")
def operator_refuses_its_input(system: OperatorsUnderContract) -> Planting:
    """There is no kernel for an operator: nothing of it is compared."""
    return stages_wrong(system, (*RESIDUAL, "swiglu"), Refusing)


@dataclass(frozen=True)
class Refusing:
    """A stage that has no kernel for what it is given."""

    right: Any

    def __call__(self, *inputs: Any) -> Any:
        raise AprenderError("there is no kernel for this input")

    forward = backward = __call__

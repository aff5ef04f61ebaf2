"""Matrix products: cuBLAS on CUDA, held to products and sums in float32; the same plan by hand on the CPU.

Rounding plan: products of float32 or bfloat16 operands are added up in float32 (never TF32, never bfloat16 partial
sums), a bias is added in float32, and the result is rounded once to the output's dtype, which may be float32 for
bfloat16 operands. On the CPU bfloat16 operands are widened, which is exact, because its bfloat16 kernels state no plan.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops.memory import empty
from aprender.transformer.cuda.ops.runtime import note_library


def use_float32_accumulation() -> None:
    """Set this process's cuBLAS to the precision that the CUDA path states: no TF32, no bfloat16 partial sums."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


def product(a_MK: Tensor, b_KN: Tensor, dtype: torch.dtype, bias_N: Tensor | None = None) -> Tensor:
    """Compute ``a b (+ bias)`` as ``dtype``: the operands' dtype, or float32 without a bias.

    Raises AprenderError for operands of two dtypes, and when cuBLAS is set to another precision than stated here.
    """
    if a_MK.dtype != b_KN.dtype:
        raise AprenderError(f"a product of {a_MK.dtype} and {b_KN.dtype}: the operands need one dtype")
    out = empty((a_MK.shape[0], b_KN.shape[1]), dtype, a_MK.device)
    for name in kernel_names(bias_N):
        note_library(a_MK, name)
    check_precision(a_MK.device)
    if a_MK.device.type == "cpu":
        a_MK, b_KN = a_MK.float(), b_KN.float()
    elif bias_N is None:
        return _mm(a_MK, b_KN, dtype, out)
    sums = _mm(a_MK, b_KN, torch.float32)
    # cuBLAS's own bias is no choice: for bfloat16 widths that are no multiple of 8 it is added to a rounded product.
    return out.copy_(sums if bias_N is None else sums.add_(bias_N))


def _mm(a_MK: Tensor, b_KN: Tensor, dtype: torch.dtype, out: Tensor | None = None) -> Tensor:
    if a_MK.dtype == dtype:
        return torch.mm(a_MK, b_KN, out=out)
    return torch.mm(a_MK, b_KN, out_dtype=dtype, out=out)


def kernel_names(bias_N: Tensor | None) -> tuple[str, ...]:
    """Name the library calls that ``product`` makes."""
    return ("mm",) if bias_N is None else ("mm", "add")


def check_precision(device: torch.device) -> None:
    """Raise AprenderError when cuBLAS, which computes on ``device``, is set to another precision than stated here."""
    if device.type == "cpu":
        return
    if torch.get_float32_matmul_precision() != "highest":
        raise AprenderError(
            f"float32 matrix products are set to {torch.get_float32_matmul_precision()!r} precision (TF32): "
            "call torch.set_float32_matmul_precision('highest') first"
        )
    if torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction:
        raise AprenderError(
            "cuBLAS may add up bfloat16 partial sums: set "
            "torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False first"
        )

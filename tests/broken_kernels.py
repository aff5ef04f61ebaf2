"""Kernels that are broken on purpose, each in another way."""

from __future__ import annotations

from aprender.transformer.cuda.ops.runtime import tl, triton


@triton.jit
def unlike_shapes(x):  # type: ignore[no-untyped-def]
    """Adds 32 numbers to 64: neither the compiler nor the interpreter takes it."""
    total = tl.load(x + tl.arange(0, 64)) + tl.load(x + tl.arange(0, 32))
    tl.store(x + tl.arange(0, 64), total)


@triton.jit
def products(x, n):  # type: ignore[no-untyped-def]
    """Multiply 64 rows of n bfloat16 with each other: right, unless it is compiled with more stages of tiles than memory holds."""
    row, column = tl.arange(0, 64)[:, None], tl.arange(0, 64)[None, :]
    total = tl.zeros([64, 64], tl.float32)
    for start in range(0, n, 64):
        total = tl.dot(tl.load(x + row * n + start + column), tl.load(x + column * n + start + row), total)
    tl.store(x + row * n + column, total.to(x.dtype.element_ty))

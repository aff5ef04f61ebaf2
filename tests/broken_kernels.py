"""Kernels that are broken on purpose, each in another way."""

from __future__ import annotations

from aprender.transformer.cuda.ops.runtime import tl, triton


@triton.jit
def unlike_shapes(x):  # type: ignore[no-untyped-def]
    """Adds 32 numbers to 64: neither the compiler nor the interpreter takes it."""
    total = tl.load(x + tl.arange(0, 64)) + tl.load(x + tl.arange(0, 32))
    tl.store(x + tl.arange(0, 64), total)


@triton.jit
def too_much_shared_memory(x):  # type: ignore[no-untyped-def]
    """A product of two tiles of 512 x 512 bfloat16: more than any multiprocessor holds."""
    row, column = tl.arange(0, 512)[:, None], tl.arange(0, 512)[None, :]
    tile = tl.load(x + row * 512 + column)
    tl.store(x + row * 512 + column, tl.dot(tile, tl.trans(tile)).to(x.dtype.element_ty))

"""Repairs of Triton's interpreter (3.6 to 3.9): two without which it does not compute what a GPU computes, one for speed.

Its float32-to-bfloat16 cast truncates, where a GPU rounds to nearest even, and from integers it makes bits, not values;
and its ``tl.dot`` multiplies the bits of bfloat16 operands, since numpy has no bfloat16. And each call of a device function searches the language anew for what has to
be replaced, 40% of the time, though the kernel's launch has replaced it. Only the emulation is changed: the kernels stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from aprender.errors import AprenderError


def to_bfloat16_bits(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round float32 to the nearest bfloat16, ties to even, and return its bits. NaN stays NaN."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(x), np.uint32(0x7FC0), rounded).astype(np.uint16)


def from_bfloat16_bits(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Widen bfloat16 bits to float32: exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def repair() -> None:
    """Repair the interpreter of this process. Raises AprenderError when it is not the one that this was written for."""
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    known = [(builder, "cast_impl"), (builder, "create_dot"), (interpreter, "_patch_lang")]
    if not all(hasattr(owner, name) for owner, name in known):
        raise AprenderError("this triton's interpreter is unknown here: install a triton from 3.6 to 3.9")
    _repair_arithmetic(interpreter)
    _repair_speed(interpreter)


def _repair_arithmetic(interpreter: Any) -> None:
    tl, builder = interpreter.tl, interpreter.InterpreterBuilder
    numpy_dtype = interpreter._get_np_dtype

    def cast_impl(self: Any, source: Any, target_type: Any) -> Any:
        # The label of a comparison's result is its operands' dtype: what it really holds decides.
        is_bfloat16 = source.dtype.scalar == tl.bfloat16 and source.data.dtype == np.uint16
        data = from_bfloat16_bits(source.data) if is_bfloat16 else source.data
        if target_type.scalar == tl.bfloat16:
            return interpreter.TensorHandle(to_bfloat16_bits(data.astype(np.float32)), tl.bfloat16)
        return interpreter.TensorHandle(data.astype(numpy_dtype(target_type)), target_type.scalar)

    def create_dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
        a_data, b_data = (
            from_bfloat16_bits(side.data) if side.dtype.scalar == tl.bfloat16 else side.data for side in (a, b)
        )
        return interpreter.TensorHandle(np.matmul(a_data, b_data) + d.data, d.dtype.scalar)

    builder.cast_impl = cast_impl
    builder.create_dot = create_dot


def _repair_speed(interpreter: Any) -> None:
    """Let nested calls replace nothing while an outer one has replaced the same modules of the language."""
    tl, patch = interpreter.tl, interpreter._patch_lang
    replaced: set[str] = set()
    modules_of: dict[Any, set[str]] = {}

    def patch_lang(function: Any) -> Any:
        if function not in modules_of:
            seen = {id(value) for value in function.__globals__.values()}
            modules_of[function] = {module.__name__ for module in (tl, tl.core) if id(module) in seen}
        if modules_of[function] <= replaced:
            return interpreter._LangPatchScope()
        scope = patch(function)
        # triton 3.6 says int(data) here, which numpy 2.4 refuses for the one-element arrays that its scalars are.
        scope.set_attr(tl.core.tensor, "__index__", lambda self: int(self.handle.data.item()))
        restore = scope.restore

        def restore_and_forget() -> None:
            replaced.clear()
            restore()

        scope.restore = restore_and_forget
        replaced.update(modules_of[function])
        return scope

    interpreter._patch_lang = patch_lang

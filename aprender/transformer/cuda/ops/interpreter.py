"""Repairs of Triton's interpreter (3.6 to 3.9), which does not compute everything as a GPU does.

The kernels stay as they are; what is wrong, or slow, is the emulation:

- Its float32-to-bfloat16 cast truncates, where a GPU rounds to nearest even, and from integers it makes bits, not
  values.
- Its ``tl.dot`` multiplies the bits of bfloat16 operands, since numpy has no bfloat16.
- numpy warns about NaN and inf, where a GPU goes on.
- Each call of a device function searches the language anew for what has to be replaced, 40% of the time, though the
  kernel's launch has replaced it.
- triton 3.6 says ``int(data)`` of its scalars, one-element arrays, which numpy 2.4 refuses.
"""

from __future__ import annotations

from typing import Any

import torch

from aprender.errors import AprenderError


def to_bfloat16_bits(x: Any) -> Any:
    """Round a float32 array to the nearest bfloat16, ties to even, and return its bits as uint16."""
    return torch.as_tensor(x).to(torch.bfloat16).view(torch.uint16).numpy()


def from_bfloat16_bits(bits: Any) -> Any:
    """Widen bfloat16 bits, a uint16 array, to float32: exact."""
    return torch.as_tensor(bits).view(torch.bfloat16).to(torch.float32).numpy()


def repair() -> None:
    """Repair the interpreter of this process. Raises AprenderError when it is not one that this was written for."""
    from triton.runtime import interpreter

    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    known = [(builder, "cast_impl"), (builder, "create_dot"), (executor, "__call__"), (interpreter, "_patch_lang")]
    if not all(hasattr(owner, name) for owner, name in known):
        raise AprenderError("this triton's interpreter is unknown here: install a triton from 3.6 to 3.9")
    _repair_arithmetic(interpreter)
    _repair_warnings(interpreter)
    _repair_calls(interpreter)


def _repair_arithmetic(interpreter: Any) -> None:
    tl, builder = interpreter.tl, interpreter.InterpreterBuilder

    def values(source: Any) -> Any:
        # The label of a comparison's result is its operands' dtype: what it really holds decides.
        is_bfloat16 = source.dtype.scalar == tl.bfloat16 and source.data.dtype.name == "uint16"
        return from_bfloat16_bits(source.data) if is_bfloat16 else source.data

    def cast_impl(self: Any, source: Any, target_type: Any) -> Any:
        if target_type.scalar == tl.bfloat16:
            bits = to_bfloat16_bits(values(source).astype("float32"))
            return interpreter.TensorHandle(bits, tl.bfloat16)
        data = values(source).astype(interpreter._get_np_dtype(target_type))
        return interpreter.TensorHandle(data, target_type.scalar)

    def create_dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
        return interpreter.TensorHandle(values(a) @ values(b) + d.data, d.dtype.scalar)

    builder.cast_impl = cast_impl
    builder.create_dot = create_dot


def _repair_warnings(interpreter: Any) -> None:
    execute = interpreter.GridExecutor.__call__

    def execute_quietly(self: Any, *arguments: Any, **meta: Any) -> None:
        with interpreter.np.errstate(all="ignore"):
            execute(self, *arguments, **meta)

    interpreter.GridExecutor.__call__ = execute_quietly


def _repair_calls(interpreter: Any) -> None:
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
        scope.set_attr(tl.core.tensor, "__index__", lambda self: int(self.handle.data.item()))
        restore = scope.restore

        def restore_and_forget() -> None:
            replaced.clear()
            restore()

        scope.restore = restore_and_forget
        replaced.update(modules_of[function])
        return scope

    interpreter._patch_lang = patch_lang

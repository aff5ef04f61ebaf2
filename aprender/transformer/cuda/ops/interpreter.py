"""Repairs of Triton's interpreter (3.6 to 3.9), which does not compute everything as a GPU does.

The kernels stay as they are; what is wrong, or slow, is the emulation:

- Its float32-to-bfloat16 cast truncates, where a GPU rounds to nearest even, and from integers it makes bits, not
  values.
- Its ``tl.dot`` multiplies the bits of bfloat16 operands, since numpy has no bfloat16.
- numpy warns about NaN and inf, where a GPU goes on.
- Each launch, and each call of a device function, searches the language anew for what has to be replaced.
- Each operation works out anew what it has to do for its operands' types (``interpreter_plans``), and what a block's
  type, shape and numpy dtype are. Without these repairs a kernel takes three times as long.
- triton 3.6 says ``int(data)`` of its scalars, one-element arrays, which numpy 2.4 refuses.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops.interpreter_plans import Recorder, planned


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
    known = [
        *((builder, "cast_impl"), (builder, "create_dot"), (executor, "__call__")),
        *(
            (interpreter, "_patch_lang"),
            (interpreter, "_patch_attr"),
            (interpreter, "_get_np_dtype"),
            (interpreter.tl.core, "tuple"),
        ),
    ]
    if not all(hasattr(owner, name) for owner, name in known):
        raise AprenderError("this triton's interpreter is unknown here: install a triton from 3.6 to 3.9")
    _repair_arithmetic(interpreter)
    _repair_warnings(interpreter)
    _repair_calls(interpreter)
    _repair_types(interpreter)


def _repair_arithmetic(interpreter: Any) -> None:
    tl, builder, bfloat16 = interpreter.tl, interpreter.InterpreterBuilder, interpreter.tl.bfloat16.name

    def values(source: Any) -> Any:
        # The label of a comparison's result is its operands' dtype: what it really holds decides.
        is_bfloat16 = source.dtype.scalar.name == bfloat16 and source.data.dtype.name == "uint16"
        return from_bfloat16_bits(source.data) if is_bfloat16 else source.data

    def cast_impl(self: Any, source: Any, target_type: Any) -> Any:
        if target_type.scalar.name == bfloat16:
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
        with interpreter.np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)  # of reductions, which errstate does not reach
            execute(self, *arguments, **meta)

    interpreter.GridExecutor.__call__ = execute_quietly


def _repair_calls(interpreter: Any) -> None:
    """Replace the language once for each function that sees it, and for good: by operations that keep their plans."""
    tl, patch, semantic = interpreter.tl, interpreter._patch_lang, interpreter.interpreter_semantic
    recorder = semantic.builder = Recorder(semantic.builder)
    seen: set[Any] = set()

    def patch_lang(function: Any) -> Any:
        if function not in seen:
            seen.add(function)
            scope = patch(function)
            scope.set_attr(tl.core.tensor, "__index__", lambda self: int(self.handle.data.item()))
        return interpreter._LangPatchScope()  # which has nothing to restore

    def patch_attr(owner: Any, name: str, member: Any, builder: Any, scope: Any) -> None:
        scope.set_attr(owner, name, planned(member, interpreter))

    def sanitize_overflow(x: Any, y: Any, operation: Any) -> None:
        integer = x.type.scalar
        if integer.int_bitwidth < 64 and recorder.options.sanitize_overflow:
            limits = integer.get_int_min_value(), integer.get_int_max_value()
            recorder.check_overflow(x.handle, y.handle, operation.__name__, *limits)

    interpreter._patch_lang = patch_lang
    interpreter._patch_attr = patch_attr
    semantic.binary_op_sanitize_overflow_impl = sanitize_overflow


def _repair_types(interpreter: Any) -> None:
    """Keep what was worked out for a type: blocks of one element type and shape have one shape object from then on."""
    core = interpreter.tl.core
    np_dtype_of, init_block, init_tensor = interpreter._get_np_dtype, core.block_type.__init__, core.tensor.__init__
    np_dtypes: dict[str, Any] = {}
    blocks: dict[Any, dict[str, Any]] = {}
    tensors: dict[int, dict[str, Any]] = {}
    equal = core.tuple.__eq__

    def get_np_dtype(dtype: Any) -> Any:
        name = dtype.scalar.name
        if name not in np_dtypes:
            np_dtypes[name] = np_dtype_of(dtype.scalar)
        return np_dtypes[name]

    def init_known_block(self: Any, element_ty: Any, shape: Any) -> None:
        key = (element_ty.name, *(size.value if isinstance(size, core.constexpr) else size for size in shape))
        if key not in blocks:
            init_block(self, element_ty, shape)
            blocks[key] = dict(self.__dict__)
        self.__dict__.update(blocks[key])

    def init_known_tensor(self: Any, handle: Any, type: Any) -> None:  # noqa: A002 - triton's name
        key = id(type.shape) if type.is_block() else 0  # ``blocks`` keeps every shape alive
        if key not in tensors:
            init_tensor(self, handle, type)
            tensors[key] = {name: self.__dict__[name] for name in ("shape", "numel")}
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.__dict__.update(tensors[key])

    interpreter._get_np_dtype = get_np_dtype
    core.block_type.__init__ = init_known_block
    core.tensor.__init__ = init_known_tensor
    core.tuple.__eq__ = lambda self, other: core.constexpr(True) if self is other else equal(self, other)

"""Compile the kernels that a set of stages launches for an H100, on any machine: no GPU and no driver is needed.

The stages run on "meta" tensors, which have shapes and no memory, and ``launch`` is replaced by Triton's ahead-of-time
compiler. Run as a program, in a process of its own with TRITON_INTERPRET=0: prints one line per kernel.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from aprender.transformer.cuda.ops.runtime import OPTIONS

POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
H100 = GPUTarget("cuda", 90, 32)


def compile_for_h100(kernel: Any, arguments: tuple[Any, ...], meta: dict[str, Any]) -> Any:
    """Compile ``kernel`` as a launch with these arguments would."""
    options = OPTIONS | {name: meta.pop(name) for name in ("num_warps", "num_stages") if name in meta}
    values = inspect.signature(kernel.fn).bind(*arguments, **meta).arguments
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for index, (name, value) in enumerate(values.items()):
        if name in meta or (isinstance(value, int) and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[name] = POINTERS[value.dtype]
            attributes[(index,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=H100, options=options)


def main() -> None:
    from aprender.transformer.cuda.ops import use_float32_accumulation
    from tests.transformer.cuda_ops import compile_cases

    compiled: set[str] = set()

    def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **meta: Any) -> None:
        binary = compile_for_h100(kernel, arguments, dict(meta))
        dtypes = sorted({str(x.dtype).removeprefix("torch.") for x in arguments if isinstance(x, Tensor)})
        compiled.add(kernel.fn.__name__)
        sys.stdout.write(f"{kernel.fn.__name__} shared={binary.metadata.shared} {','.join(dtypes)}\n")

    def allow(device: torch.device) -> None:
        del device

    for module in [module for name, module in sys.modules.items() if name.startswith("aprender.transformer.cuda.ops")]:
        for name, replacement in (("launch", launch), ("check_device", allow), ("require_triton", lambda: None)):
            if hasattr(module, name):
                setattr(module, name, replacement)
    use_float32_accumulation()
    compile_cases.run_all(quick="quick" in sys.argv)


if __name__ == "__main__":
    main()

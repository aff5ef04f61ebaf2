"""The launches that must compile for an H100: every kernel, in both dtypes, at a real model's widths."""

from __future__ import annotations

import torch
from torch import Tensor

from aprender.transformer.cuda.ops.residual import ResidualAdd
from aprender.transformer.cuda.ops.rms_norm import AddRMSNorm, RMSNorm
from aprender.transformer.cuda.ops.rope import Rope
from aprender.transformer.cuda.ops.swiglu import SwiGLU


def run_all() -> None:
    for dtype in (torch.float32, torch.bfloat16):

        def tensor(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device="meta")

        x, gain = tensor(2, 77, 896), tensor(896)
        norm = RMSNorm(gain, 1e-6)
        y, saved = norm.forward(x)
        norm.backward(saved, y)
        add = AddRMSNorm(gain, 1e-6)
        outputs, saved = add.forward(tensor(2, 77, 896, dtype=torch.float32), x)
        add.backward(saved, outputs)
        ResidualAdd().forward(x, x)
        gate = tensor(2, 77, 4864)
        activated, saved = SwiGLU().forward(gate, gate)
        SwiGLU().backward(saved, activated)
        table = tensor(4096, 32, dtype=torch.float32)
        rope = Rope(table, table)
        q, saved = rope.forward(tensor(2, 77, 14, 64), tensor(2, 77, dtype=torch.int64))
        rope.backward(saved, q)

"""One layer of the transformer, forward and backward side by side.

Letters in names give shapes: B rows, T positions, S positions of keys, D hidden, F feed-forward, H query heads, G
key/value heads, C channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from aprender.transformer.cuda.batch import Places
from aprender.transformer.cuda.cache import Extension
from aprender.transformer.cuda.tape import Back, Run, calling

Stage = Callable[..., Any]


@dataclass(slots=True)
class Block:
    """Layer ``index``: x_BTD -> x_BTD. Every field from ``input_layernorm`` on is a stage, in forward order.

    ``q_norm`` and ``k_norm`` are None where the family has no QK-norm.
    """

    index: int
    head_dim: int
    input_layernorm: Stage
    qkv_proj: Stage
    q_norm: Stage | None
    k_norm: Stage | None
    q_rope: Stage
    k_rope: Stage
    attention: Stage
    o_proj: Stage
    post_attention_layernorm: Stage
    gate_proj: Stage
    up_proj: Stage
    swiglu: Stage
    down_proj: Stage
    residual: Stage

    def __call__(self, x_BTD: Tensor, places: Places, past: Extension | None = None) -> Tensor:
        """Compute the layer and save nothing."""
        return self.forward(x_BTD, places, calling(self), past)

    def forward(self, x_BTD: Tensor, places: Places, run: Run, past: Extension | None = None) -> Tensor:
        """Compute the layer; ``run`` calls a stage by name, and keeps for ``backward`` what it saves."""
        heads = (*x_BTD.shape[:2], -1, self.head_dim)
        h_BTD = run("input_layernorm", x_BTD)
        q_BTHC, k_BTGC, v_BTGC = (y.view(heads) for y in run("qkv_proj", h_BTD))
        if self.q_norm is not None:
            q_BTHC, k_BTGC = run("q_norm", q_BTHC), run("k_norm", k_BTGC)
        q_BTHC = run("q_rope", q_BTHC, places.positions_BT)
        k_BTGC = run("k_rope", k_BTGC, places.positions_BT)
        keys, k_BSGC, v_BSGC = places, k_BTGC, v_BTGC
        if past is not None:
            keys, (k_BSGC, v_BSGC) = past.keys, past.append(self.index, k_BTGC, v_BTGC)
        out_BTHC = run("attention", q_BTHC, k_BSGC, v_BSGC, *places.seeing(keys))
        x_BTD, h_BTD = run("post_attention_layernorm", x_BTD, run("o_proj", out_BTHC.flatten(-2)))
        h_BTF = run("swiglu", run("gate_proj", h_BTD), run("up_proj", h_BTD))
        return run("residual", x_BTD, run("down_proj", h_BTF))  # type: ignore[no-any-return]

    def backward(self, d_x_BTD: Tensor, back: Back) -> Tensor:
        """Carry the gradient from the output to the input of a pass without a cache: ``forward``, upside down.

        ``back`` takes a stage's gradient from its output to its inputs, and keeps its parameters' gradients. Where a
        tensor was used more than once, its gradients are added up in its dtype.
        """
        heads = (*d_x_BTD.shape[:2], -1, self.head_dim)
        d_x_BTD, d_branch_BTD = back("residual", d_x_BTD)
        (d_h_BTF,) = back("down_proj", d_branch_BTD)
        d_gate_BTF, d_up_BTF = back("swiglu", d_h_BTF)
        d_h_BTD = _sum(back("up_proj", d_up_BTF), back("gate_proj", d_gate_BTF))
        d_x_BTD, d_branch_BTD = back("post_attention_layernorm", (d_x_BTD, d_h_BTD))
        (d_out_BTN,) = back("o_proj", d_branch_BTD)
        d_q_BTHC, d_k_BTGC, d_v_BTGC = back("attention", d_out_BTN.view(heads))
        (d_k_BTGC,) = back("k_rope", d_k_BTGC)
        (d_q_BTHC,) = back("q_rope", d_q_BTHC)
        if self.q_norm is not None:
            (d_k_BTGC,), (d_q_BTHC,) = back("k_norm", d_k_BTGC), back("q_norm", d_q_BTHC)
        (d_h_BTD,) = back("qkv_proj", tuple(d_heads.flatten(-2) for d_heads in (d_q_BTHC, d_k_BTGC, d_v_BTGC)))
        return _sum((d_x_BTD,), back("input_layernorm", d_h_BTD))


def _sum(*gradients: tuple[Tensor, ...]) -> Tensor:
    (total,) = gradients[0]
    for (gradient,) in gradients[1:]:
        total = total + gradient
    return total

"""Causal grouped-query attention: scores, softmax and weighted values in one pass, never a matrix of scores in memory.

Formula (Vaswani et al. 2017, arXiv 1706.03762, eq. 1; grouped queries from Ainslie et al. 2023, arXiv 2305.13245), for
query i of head h and the keys j of key/value head g = h // (H/G) that it sees (``attention_mask``)::

    s_ij = scale * q_i . k_j        p_ij = e^(s_ij) / sum_j e^(s_ij)        out_i = sum_j p_ij v_j

computed with the online softmax of Milakov and Gimelshein 2018 (arXiv 1805.02867), tile by tile as in FlashAttention-2
(Dao 2023, arXiv 2307.08691). A query that sees no key gives 0. Backward, with lse_i = ln sum_j e^(s_ij)::

    p_ij  = e^(s_ij - lse_i)              delta_i = do_i . out_i
    dv_j  = sum_i p_ij do_i               ds_ij   = p_ij (do_i . v_j - delta_i)
    dq_i  = scale * sum_j ds_ij k_j       dk_j    = scale * sum_i ds_ij q_i

where sums over i of dv and dk also run over the H/G query heads of the group, in order.

NaN and inf go where they are seen and nowhere else: to the output of the queries that see such a key or value; to dq of
those queries, and to dk and dv of every key that they see. What a query does not see (padding, the future, another
document, beyond the window) changes no bit of its results, whatever it holds, and a query whose do is 0 gives no key
a gradient, whatever it sees. Of keys whose score is -inf the weight is 0, and what they give is 0.

Rounding plan: q, k, v, out and gradients float32 or bfloat16; all products are added up in float32 (never TF32),
scores, maxima, exponentials, their sum, lse and delta are float32. Before a product with v, k, q or do, the weights p
(relative to the greatest score so far) and ds are rounded to the storage dtype, as FlashAttention does; the sum of
weights takes them unrounded. delta comes from the rounded out. Each result is rounded once. Key and query tiles go in
ascending order, so equal inputs give equal bits; tile sizes do not depend on B, T or S.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.cuda.ops.attention_backward import (
    attention_backward_delta,
    attention_backward_keys,
    attention_backward_queries,
)
from aprender.transformer.cuda.ops.attention_forward import attention_forward
from aprender.transformer.cuda.ops.blocks import attention_tile
from aprender.transformer.cuda.ops.checks import check_floats, check_integers, check_shape
from aprender.transformer.cuda.ops.memory import empty
from aprender.transformer.cuda.ops.runtime import launch, require_triton, triton, triton_kernel
from aprender.transformer.cuda.ops.stage import Gradients, Saved


@dataclass(slots=True)
class Attention:
    """Attend: q_BTHC, k_BSGC, v_BSGC and the positions of queries [B, T] and keys [B, S] -> out_BTHC.

    ``scale`` multiplies the scores (head_dim ** -0.5). ``window``: how many positions, its own included, a query
    sees. Documents of queries and keys, [B, T] and [B, S] integers, both or neither: tokens see their own document
    only, and a negative document is padding: such a query gives 0 and such a key is not read. In a cached decode the
    unfilled part of the cache is padding. Positions and documents lie within +-2^30.

    float32 or bfloat16; head_dim even, up to 256; the last axes dense, all others of any stride. AprenderError for
    anything else.
    """

    scale: float
    window: int | None = None

    kernel = property(lambda self: triton_kernel(attention_forward))
    backward_kernel = property(
        lambda self: triton_kernel(attention_backward_delta, attention_backward_queries, attention_backward_keys)
    )

    def __post_init__(self) -> None:
        require_triton()
        if self.window is not None and self.window < 1:
            raise AprenderError(f"attention: a window of {self.window} positions; a query sees at least its own")

    def forward(
        self,
        q_BTHC: Tensor,
        k_BSGC: Tensor,
        v_BSGC: Tensor,
        q_positions_BT: Tensor,
        k_positions_BS: Tensor,
        q_documents_BT: Tensor | None = None,
        k_documents_BS: Tensor | None = None,
    ) -> tuple[Tensor, Saved]:
        """Attend; saves the inputs, the output and ln of each query's sum of e^score, lse_BHT."""
        places = _places(q_BTHC, k_BSGC, q_positions_BT, k_positions_BS, q_documents_BT, k_documents_BS)
        _check(q_BTHC, k_BSGC, v_BSGC)
        B, T, H, C = q_BTHC.shape
        out_BTHC = empty((B, T, H, C), q_BTHC.dtype, q_BTHC.device)
        lse_BHT = empty((B, H, T), torch.float32, q_BTHC.device)
        saved = (q_BTHC, k_BSGC, v_BSGC, out_BTHC, lse_BHT, *places)
        tile = attention_tile(C, q_BTHC.dtype, q_BTHC.device)
        launch(
            attention_forward,
            (triton.cdiv(T, tile.queries), H, B),
            *(q_BTHC, k_BSGC, v_BSGC, out_BTHC, lse_BHT),
            *self._shared(saved),
            *(*q_BTHC.stride()[:3], *k_BSGC.stride()[:3], *v_BSGC.stride()[:3]),
            **self._meta(saved),
        )
        return out_BTHC, saved

    def backward(self, saved: Saved, d_output: Tensor) -> Gradients:
        """Compute (d_q, d_k, d_v) in the inputs' dtype; there are no parameters. Padding has gradient 0."""
        q_BTHC, k_BSGC, v_BSGC, out_BTHC, lse_BHT = saved[:5]
        check_floats("attention backward", q=q_BTHC, d_output=d_output)
        check_shape("attention backward", "d_output", d_output, tuple(q_BTHC.shape))
        _check_dense("d_output", d_output)
        B, T, H, C = q_BTHC.shape
        _, S, G, _ = k_BSGC.shape
        delta_BHT = empty((B, H, T), torch.float32, q_BTHC.device)
        d_q, d_k, d_v = (empty(tuple(x.shape), x.dtype, x.device) for x in (q_BTHC, k_BSGC, v_BSGC))
        tile = attention_tile(C, q_BTHC.dtype, q_BTHC.device)
        query_tiles, key_tiles = triton.cdiv(T, tile.queries), triton.cdiv(S, tile.keys)
        launch(
            attention_backward_delta,
            (query_tiles, H, B),
            *(d_output, out_BTHC, delta_BHT, T, *d_output.stride()[:3]),
            H=H,
            C=C,
            QUERIES=tile.queries,
            CHANNELS=tile.channels,
        )
        inputs = (q_BTHC, k_BSGC, v_BSGC, d_output, lse_BHT, delta_BHT)
        strides = [stride for x in inputs[:4] for stride in x.stride()[:3]]
        shared, meta = self._shared(saved), self._meta(saved)
        launch(attention_backward_queries, (query_tiles, H, B), *inputs, d_q, *shared, *strides, **meta)
        launch(attention_backward_keys, (key_tiles, G, B), *inputs, d_k, d_v, *shared, *strides, **meta)
        return (d_q, d_k, d_v), {}

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """Attend."""
        return self.forward(*inputs)[0]  # type: ignore[arg-type]

    def _shared(self, saved: Saved) -> tuple[Any, ...]:
        q_BTHC, k_BSGC = saved[:2]
        q_positions_BT, k_positions_BS = saved[5:7]
        documents = saved[7:] or (q_positions_BT, k_positions_BS)  # not looked at without HAS_DOCUMENTS
        sizes = (q_BTHC.shape[1], k_BSGC.shape[1], float(self.scale), self.window or 0)
        return (q_positions_BT, k_positions_BS, *documents, *sizes)

    def _meta(self, saved: Saved) -> dict[str, Any]:
        q_BTHC, k_BSGC = saved[:2]
        H, C = q_BTHC.shape[2:]
        tile = attention_tile(C, q_BTHC.dtype, q_BTHC.device)
        return {
            "H": H,
            "GROUP": H // k_BSGC.shape[2],
            "C": C,
            "HAS_WINDOW": self.window is not None,
            "HAS_DOCUMENTS": len(saved) > 7,
            "QUERIES": tile.queries,
            "KEYS": tile.keys,
            "CHANNELS": tile.channels,
            "SCAN": tile.scan,
            "num_warps": tile.warps,
            "num_stages": tile.stages,
        }


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    check_floats("attention", q=q, k=k, v=v)
    B, _, H, C = q.shape
    G = k.shape[2]
    check_shape("attention", "k", k, (B, k.shape[1], G, C))
    check_shape("attention", "v", v, tuple(k.shape))
    if H % G:
        raise AprenderError(f"attention: {H} query heads can't be grouped over {G} key/value heads")
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        _check_dense(name, tensor)


def _check_dense(name: str, tensor: Tensor) -> None:
    if tensor.stride(-1) != 1:
        raise AprenderError(f"attention: the channels of {name} are not dense in memory: call .contiguous() first")


def _places(
    q: Tensor,
    k: Tensor,
    q_positions: Tensor,
    k_positions: Tensor,
    q_documents: Tensor | None,
    k_documents: Tensor | None,
) -> tuple[Tensor, ...]:
    if (q_documents is None) != (k_documents is None):
        raise AprenderError("attention: documents of queries and of keys go together: give both or neither")
    places = {"q_positions": q_positions, "k_positions": k_positions}
    if q_documents is not None and k_documents is not None:
        places |= {"q_documents": q_documents, "k_documents": k_documents}
    check_integers("attention", q, **places)
    for name, tensor in places.items():
        check_shape("attention", name, tensor, tuple((q if name.startswith("q") else k).shape[:2]))
    return tuple(tensor.to(torch.int32).contiguous() for tensor in places.values())

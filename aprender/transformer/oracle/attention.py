"""Who may look at whom, and grouped-query attention with its VJP."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aprender.transformer.oracle import operators
from aprender.transformer.oracle.batch import PADDING


class Places(NamedTuple):
    """Where tokens stand: positions_BT and documents_BT, int64; ``PADDING`` as document marks what is no token."""

    positions_BT: Tensor
    documents_BT: Tensor


def allowed_pairs(queries: Places, keys: Places, window: int | None) -> Tensor:
    """Which keys a query sees: bool allowed_BTS. It depends on positions and documents, never on the order of slots.

    Same document, neither of the two padding, key position <= query position, and with a ``window`` of w positions
    (the query's own included) ``query - key < w``: Mistral 7B (arXiv 2310.06825), section 2.
    """
    query_BT1, key_B1S = queries.positions_BT[:, :, None], keys.positions_BT[:, None, :]
    same_BTS = queries.documents_BT[:, :, None] == keys.documents_BT[:, None, :]
    allowed_BTS = same_BTS & (keys.documents_BT != PADDING)[:, None, :] & (key_B1S <= query_BT1)
    return allowed_BTS if window is None else allowed_BTS & (query_BT1 - key_B1S < window)


def attention(q_BTHC: Tensor, k_BSGC: Tensor, v_BSGC: Tensor, allowed_BTS: Tensor, scale: float) -> Tensor:
    """Attend per query head: ``softmax(scale q k^T) v`` over the allowed keys. Result: out_BTHC.

    Vaswani et al. 2017 (arXiv 1706.03762), eq. 1; query head h reads key/value head ``h // (H / G)``, Ainslie
    et al. 2023 (arXiv 2305.13245). One group of one row at a time: scores take H / G * T * S numbers.
    """
    rows = []
    for q_GQTC, k_GSC, v_GSC, allowed_TS in zip(*_by_group(q_BTHC, k_BSGC, v_BSGC), allowed_BTS, strict=True):
        groups = [_weights(q, k, allowed_TS, scale) @ v for q, k, v in zip(q_GQTC, k_GSC, v_GSC, strict=True)]
        rows.append(torch.stack(groups))
    return _by_position(rows)


def attention_vjp(
    q_BTHC: Tensor, k_BSGC: Tensor, v_BSGC: Tensor, allowed_BTS: Tensor, scale: float, dout_BTHC: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """``dv = P^T dout``, ``ds = softmax_vjp(P, dout v^T)``, ``dq = scale ds k``, ``dk = scale ds^T q``.

    P are the softmax's weights, computed anew from q and k; dk and dv are summed over the query heads of their group.
    Returns (dq_BTHC, dk_BSGC, dv_BSGC).
    """
    dq_rows, dk_rows, dv_rows = [], [], []
    inputs = zip(*_by_group(q_BTHC, k_BSGC, v_BSGC), allowed_BTS, _heads_grouped(dout_BTHC, k_BSGC), strict=True)
    for q_GQTC, k_GSC, v_GSC, allowed_TS, dout_GQTC in inputs:
        dq, dk, dv = [], [], []
        for q_QTC, k_SC, v_SC, dout_QTC in zip(q_GQTC, k_GSC, v_GSC, dout_GQTC, strict=True):
            p_QTS = _weights(q_QTC, k_SC, allowed_TS, scale)
            ds_QTS = operators.softmax_vjp(p_QTS, dout_QTC @ v_SC.T)
            dq.append(scale * ds_QTS @ k_SC)
            dk.append((scale * ds_QTS.mT @ q_QTC).sum(0))
            dv.append((p_QTS.mT @ dout_QTC).sum(0))
        dq_rows.append(torch.stack(dq))
        dk_rows.append(torch.stack(dk, 1))
        dv_rows.append(torch.stack(dv, 1))
    return _by_position(dq_rows), torch.stack(dk_rows), torch.stack(dv_rows)


def _weights(q_QTC: Tensor, k_SC: Tensor, allowed_TS: Tensor, scale: float) -> Tensor:
    """The attention weights of the query heads that share one key head: shape [Q, T, S]."""
    return operators.softmax(torch.where(allowed_TS, q_QTC @ k_SC.T * scale, -math.inf))


def _by_group(q_BTHC: Tensor, k_BSGC: Tensor, v_BSGC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _heads_grouped(q_BTHC, k_BSGC), k_BSGC.transpose(1, 2), v_BSGC.transpose(1, 2)


def _heads_grouped(q_BTHC: Tensor, k_BSGC: Tensor) -> Tensor:
    """Query heads in order, those that read one key head together: shape [B, G, Q, T, C] with Q = H / G."""
    B, T, H, C = q_BTHC.shape
    G = k_BSGC.shape[2]
    return q_BTHC.transpose(1, 2).reshape(B, G, H // G, T, C)


def _by_position(rows_GQTC: list[Tensor]) -> Tensor:
    return torch.stack(rows_GQTC).flatten(1, 2).transpose(1, 2)

"""Attention written with a matrix of scores: exact in float64, and in float32 with the kernel's rounding plan."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.transformer.cuda.ops.blocks import attention_tile
from tests.transformer.cuda_ops.legal import Arithmetic, normal


@dataclass(frozen=True)
class Case:
    """What to attend over; ``tile`` lengths are in query tiles of the device, plus ``T`` and ``S`` more."""

    name: str
    H: int
    G: int
    C: int
    tiles: int
    T: int  # may be negative
    cached: int = 0  # keys before the first query
    window: int | None = None
    documents: bool = False
    B: int = 1


@dataclass
class Inputs:
    """The tensors of a case, in the order in which the stage takes them."""

    q: Tensor
    k: Tensor
    v: Tensor
    q_positions: Tensor
    k_positions: Tensor
    q_documents: Tensor | None
    k_documents: Tensor | None
    d_out: Tensor

    @property
    def all(self) -> tuple[Tensor, ...]:
        documents = (self.q_documents, self.k_documents)
        return (self.q, self.k, self.v, self.q_positions, self.k_positions, *(x for x in documents if x is not None))

    def seen(self, window: int | None) -> Tensor:
        """seen_BTS, from the definition: causal, within the window, in one document, no padding."""
        q, k = self.q_positions.cpu()[:, :, None], self.k_positions.cpu()[:, None, :]
        seen = (k <= q) & (q - k < (window or 2**40))
        if self.q_documents is not None and self.k_documents is not None:
            q, k = self.q_documents.cpu()[:, :, None], self.k_documents.cpu()[:, None, :]
            seen &= (q == k) & (q >= 0)
        return seen


def inputs(case: Case, dtype: torch.dtype, device: torch.device) -> Inputs:
    """Draw a case: rows of a batch have different positions, and with documents different padding on both ends."""
    tile = attention_tile(case.C, dtype, device)
    T = case.tiles * tile.queries + case.T
    S = T + case.cached
    B, H, G, C = case.B, case.H, case.G, case.C
    q, k, v, d_out = (
        normal(seed, B, length, heads, C, dtype=dtype, device=device)
        for seed, length, heads in ((1, T, H), (2, S, G), (3, S, G), (4, T, H))
    )
    k_positions = torch.arange(S, device=device) + 5 * torch.arange(B, device=device)[:, None]
    q_documents = k_documents = None
    if case.documents:
        k_documents = (torch.arange(S, device=device) // (2 * S // 5 + 1)).repeat(B, 1)
        k_documents[-1, : 1 + S // 9] = -1
        k_documents[0, S - 2 :] = -3
        q_documents = k_documents[:, S - T :]
    return Inputs(q, k, v, k_positions[:, S - T :], k_positions, q_documents, k_documents, d_out)


def exact_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> Tensor:
    """out_BTHC of float64 leaves."""
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    scores = torch.einsum("bthc,bshc->bhts", q, k) * scale
    live = seen.any(-1)[:, None, :, None]
    weights = torch.softmax(torch.where(seen[:, None], scores, -torch.inf).where(live, torch.zeros(()).double()), -1)
    return torch.einsum("bhts,bshc->bthc", weights.where(live, torch.zeros(()).double()), v)


def legal_attention(
    a: Arithmetic, q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float, d_out: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(out, d_q, d_k, d_v) in the stated rounding plan; sums over a group's heads are in the plan's order too."""
    B, T, H, C = q.shape
    S, G = k.shape[1:3]
    q, d_out = (x.transpose(1, 2).reshape(B, G, H // G, T, C) for x in (q, d_out))
    k, v = (x.transpose(1, 2)[:, :, None] for x in (k, v))
    seen = seen[:, None, None]
    scores = torch.where(seen, a.matmul(q, k.mT) * scale, -torch.inf)
    peak = scores.amax(-1, keepdim=True)
    peak = peak.where(peak > -torch.inf, torch.zeros(()))
    weights = torch.exp(scores - peak)
    mass = a.sum(weights, keepdim=True)
    mass = mass.where(mass > 0, torch.ones(()))
    out = a.store(a.matmul(a.store(weights), v) / mass)

    p = torch.exp(scores - (peak + mass.log()))
    delta = a.sum(d_out * out, keepdim=True)
    d_scores = a.store(p * (a.matmul(d_out, v.mT) - delta))
    d_q = a.store(a.matmul(d_scores, k) * scale)

    def over_group(weights: Tensor, rows: Tensor) -> Tensor:
        """Sum over heads and queries: one long axis of H/G * T terms."""
        return a.matmul(weights.reshape(B, G, -1, S).mT, rows.reshape(B, G, -1, C))

    d_k, d_v = a.store(over_group(d_scores, q) * scale), a.store(over_group(a.store(p), d_out))
    return (
        out.reshape(B, H, T, C).transpose(1, 2),
        d_q.reshape(B, H, T, C).transpose(1, 2),
        d_k.transpose(1, 2),
        d_v.transpose(1, 2),
    )

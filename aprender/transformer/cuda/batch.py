"""What a pass reads: tokens, where each stands, and which document it belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.errors import AprenderError

_LARGEST_DOCUMENT = 2**30
IGNORED = -100  # as target of a place after which nothing is to be predicted


@dataclass(frozen=True, slots=True)
class Places:
    """positions_BT and documents_BT, dense int32 on the model's device, as the kernels read them.

    ``documents_BT`` is None when every token is in its row's one document. A negative document is padding; its position
    is 0, which every table has.
    """

    positions_BT: Tensor
    documents_BT: Tensor | None

    def seeing(self, keys: Places) -> tuple[Tensor, ...]:
        """What attention is told of these queries and of ``keys``."""
        positions = (self.positions_BT, keys.positions_BT)
        if self.documents_BT is None or keys.documents_BT is None:
            return positions
        return (*positions, self.documents_BT, keys.documents_BT)


def places(
    tokens_BT: Tensor,
    positions_BT: Tensor | None,
    documents_BT: Tensor | None,
    device: torch.device,
    past: Places | None,
    max_positions: int,
) -> Places:
    """Complete what the caller left out. Positions are counted within each document, on from ``past``'s greatest.

    Raises AprenderError for another shape than the tokens', for another dtype than int32 and int64, for a position that
    the tables lack, and for a document number that the kernels can't hold.
    """
    for name, tensor in (("positions", positions_BT), ("documents", documents_BT)):
        if tensor is not None and (tensor.shape != tokens_BT.shape or tensor.dtype not in (torch.int32, torch.int64)):
            raise AprenderError(
                f"{name} must be integers of the tokens' shape {tuple(tokens_BT.shape)}, "
                f"not {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
    if past is not None and documents_BT is None:
        documents_BT = torch.zeros_like(tokens_BT)
    documents_BT = None if documents_BT is None else _checked_documents(documents_BT.to(device))
    if positions_BT is not None:
        positions_BT = positions_BT.to(device, torch.int64)
    elif documents_BT is None:
        positions_BT = torch.arange(tokens_BT.shape[1], device=device).expand(tokens_BT.shape)
    else:
        positions_BT = _counted_within(documents_BT) + (0 if past is None else _continued(documents_BT, past))
    if documents_BT is not None:
        positions_BT = positions_BT.where(documents_BT >= 0, 0)
    _check_positions(positions_BT, max_positions)
    return Places(positions_BT.to(torch.int32).contiguous(), documents_BT)


def targets(tokens_BT: Tensor, places: Places) -> Tensor:
    """The next token of each place, or ``IGNORED`` where that is none of the same document: int64, [B, T]."""
    next_BT = tokens_BT.roll(-1, 1)
    if places.documents_BT is not None:
        same_BT = (places.documents_BT == places.documents_BT.roll(-1, 1)) & (places.documents_BT >= 0)
        next_BT = next_BT.where(same_BT, IGNORED)
    next_BT[:, -1] = IGNORED
    return next_BT


def check_tokens(tokens_BT: Tensor, vocab_size: int) -> None:
    """Raise AprenderError unless these are rows of tokens of the vocabulary, padding included."""
    if tokens_BT.ndim != 2 or tokens_BT.numel() == 0 or tokens_BT.dtype not in (torch.int32, torch.int64):
        raise AprenderError(
            "tokens must be integers of shape [rows, positions], "
            f"not {tokens_BT.dtype} of shape {tuple(tokens_BT.shape)}"
        )
    outside = ((tokens_BT < 0) | (tokens_BT >= vocab_size)).nonzero()
    if len(outside):
        row, column = outside[0].tolist()
        raise AprenderError(
            f"the vocabulary has {vocab_size} tokens: token {tokens_BT[row, column].item()} "
            f"(row {row}, column {column}) is not one of them"
        )


def _counted_within(documents_BT: Tensor) -> Tensor:
    """How many tokens of its document stand before each token in its row."""
    sorted_BT, order_BT = documents_BT.sort(dim=1, stable=True)
    first_BT = torch.searchsorted(sorted_BT, sorted_BT)
    rank_BT = torch.arange(documents_BT.shape[1], device=documents_BT.device) - first_BT
    return torch.empty_like(rank_BT).scatter_(1, order_BT, rank_BT)


def _continued(documents_BT: Tensor, past: Places) -> Tensor:
    """The first free position of each token's document after ``past``; 0 where it begins here."""
    assert past.documents_BT is not None  # noqa: S101 - a cache always has documents
    same_BTS = documents_BT[:, :, None] == past.documents_BT[:, None, :]
    return torch.where(same_BTS, past.positions_BT[:, None, :] + 1, 0).amax(-1)


def _checked_documents(documents_BT: Tensor) -> Tensor:
    if bool((documents_BT.abs() > _LARGEST_DOCUMENT).any()):
        raise AprenderError(f"documents must lie within +-{_LARGEST_DOCUMENT}: number them from 0 in each row")
    return documents_BT.to(torch.int32).contiguous()


def _check_positions(positions_BT: Tensor, max_positions: int) -> None:
    outside = ((positions_BT < 0) | (positions_BT >= max_positions)).nonzero()
    if len(outside):
        row, column = outside[0].tolist()
        raise AprenderError(
            f"position {positions_BT[row, column].item()} (row {row}, column {column}): the model was built for "
            f"positions 0 to {max_positions - 1}; build it with a larger max_positions"
        )

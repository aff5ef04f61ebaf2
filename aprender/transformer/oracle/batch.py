"""What the oracle reads: tokens, where each stands, and which document it belongs to. Nothing is implied by order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.errors import AprenderError

PADDING = -1  # as document of a place that holds no token


@dataclass(frozen=True, slots=True)
class Batch:
    """Three int64 tensors of shape [B, T]: tokens, their positions in their document, and the document's number.

    Places whose document is ``PADDING`` are looked at by nothing; they need a token of the vocabulary all the same.
    Documents of different rows are different, whatever their numbers. Raises AprenderError for other dtypes or shapes,
    for an empty batch, and where a document has two tokens at one position (which of them came first?).
    """

    tokens_BT: Tensor
    positions_BT: Tensor
    documents_BT: Tensor

    def __post_init__(self) -> None:
        for name in ("tokens_BT", "positions_BT", "documents_BT"):
            tensor = getattr(self, name)
            if tensor.ndim != 2 or tensor.numel() == 0 or tensor.dtype != torch.int64:
                raise AprenderError(
                    f"{name[:-3]} must be int64 of shape [rows, positions], not {tensor.dtype} of shape "
                    f"{tuple(tensor.shape)}"
                )
            if tensor.shape != self.tokens_BT.shape:
                raise AprenderError(
                    f"{name[:-3]} have shape {tuple(tensor.shape)}, tokens {tuple(self.tokens_BT.shape)}"
                )
        check_places(self.positions_BT, self.documents_BT)

    @classmethod
    def of(cls, tokens_BT: Tensor) -> Batch:
        """One document per row, at positions 0 to T-1, without padding."""
        positions_BT = torch.arange(tokens_BT.shape[-1], device=tokens_BT.device).expand(tokens_BT.shape)
        return cls(tokens_BT, positions_BT, torch.zeros_like(tokens_BT))

    @classmethod
    def packed(cls, rows: Sequence[Sequence[Tensor]]) -> Batch:
        """Documents (int64 tensors [t]) one after the other in each row, each from position 0, padded at the end."""
        T = max(sum(map(len, documents)) for documents in rows)
        tokens_BT = torch.zeros(len(rows), T, dtype=torch.int64)
        positions_BT, documents_BT = tokens_BT.clone(), torch.full_like(tokens_BT, PADDING)
        for b, documents in enumerate(rows):
            start = 0
            for number, document in enumerate(documents):
                place = slice(start, start + len(document))
                tokens_BT[b, place] = document
                positions_BT[b, place] = torch.arange(len(document))
                documents_BT[b, place] = number
                start += len(document)
        return cls(tokens_BT, positions_BT, documents_BT)

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        return Batch(self.tokens_BT.to(device), self.positions_BT.to(device), self.documents_BT.to(device))

    def targets(self) -> tuple[Tensor, Tensor]:
        """The next token of each place but the last, and whether it counts: (int64, bool), both [B, T-1].

        It counts where it belongs to the same document: not across a boundary, not into or from padding.
        """
        here_BT, next_BT = self.documents_BT[:, :-1], self.documents_BT[:, 1:]
        return self.tokens_BT[:, 1:], (here_BT == next_BT) & (here_BT != PADDING)

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise AprenderError, naming the first of them, where a token is not in 0..vocab_size-1."""
        outside = ((self.tokens_BT < 0) | (self.tokens_BT >= vocab_size)).nonzero()
        if len(outside):
            row, column = outside[0].tolist()
            token = int(self.tokens_BT[row, column])
            message = f"token {token} at row {row}, column {column} is outside the vocabulary of {vocab_size}"
            raise AprenderError(message)


def check_places(positions_BT: Tensor, documents_BT: Tensor) -> None:
    """Raise AprenderError where a document holds two tokens at one position."""
    for row, (positions_T, documents_T) in enumerate(zip(positions_BT, documents_BT, strict=True)):
        places = torch.stack((documents_T, positions_T), -1)[documents_T != PADDING]
        found, counts = torch.unique(places, dim=0, return_counts=True)
        if (counts > 1).any():
            document, position = found[counts > 1][0].tolist()
            raise AprenderError(f"row {row}: document {document} has more than one token at position {position}")

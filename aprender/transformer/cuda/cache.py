"""Keys and values of what was read so far, so that a new token costs one position instead of all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda.batch import Places
from aprender.transformer.cuda.ops.memory import empty


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's rotated keys and its values, both [B, S, G, C] in the model's dtype."""

    k: Tensor
    v: Tensor


class KVCache:
    """Room for ``positions`` tokens in each of ``rows`` requests, which grow each at its own pace.

    Slots from a row's length on hold anything, NaN too: to attention they are padding. Made by
    ``CudaTransformer.new_cache``; AprenderError when there is no room to make.
    """

    def __init__(
        self, config: TransformerConfig, rows: int, positions: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        if rows < 1 or positions < 1:
            raise AprenderError(f"a cache of {rows} rows of {positions} positions: both must be at least 1")
        shape = (rows, positions, config.num_key_value_heads, config.head_dim)
        self.layers = [
            LayerCache(empty(shape, dtype, device), empty(shape, dtype, device))
            for _ in range(config.num_hidden_layers)
        ]
        self.lengths_B = torch.zeros(rows, dtype=torch.int64, device=device)
        self.positions_BS = torch.zeros(rows, positions, dtype=torch.int32, device=device)
        self.documents_BS = torch.zeros(rows, positions, dtype=torch.int32, device=device)

    def reset(self) -> None:
        """Forget all rows; the memory stays."""
        self.lengths_B.zero_()

    def places(self, lengths_B: Tensor | None = None) -> Places:
        """Where the tokens stand, up to the longest row; the rest of a shorter row is padding."""
        lengths_B = self.lengths_B if lengths_B is None else lengths_B
        longest = max(1, int(lengths_B.max()))
        filled_BS = torch.arange(longest, device=lengths_B.device) < lengths_B[:, None]
        return Places(self.positions_BS[:, :longest], self.documents_BS[:, :longest].where(filled_BS, -1))

    def check_rows(self, rows: int) -> None:
        """Raise AprenderError unless the cache has ``rows`` rows."""
        if rows != len(self.lengths_B):
            raise AprenderError(f"{rows} rows of tokens, but the cache has {len(self.lengths_B)}: one row per request")

    def extended(self, new: Places) -> Extension:
        """Find the slots of new tokens; nothing is kept before ``Extension.keep``. AprenderError on overflow."""
        assert new.documents_BT is not None  # noqa: S101 - ``places`` gives documents beside a past
        real_BT = new.documents_BT >= 0
        lengths_B = self.lengths_B + real_BT.sum(1)
        room = self.positions_BS.shape[1]
        if bool((lengths_B > room).any()):
            row = int((lengths_B > room).nonzero()[0])
            raise AprenderError(
                f"row {row} would hold {int(lengths_B[row])} tokens, but the cache has {room} positions: "
                "make one with more, or reset this one"
            )
        rows_N, columns_N = real_BT.nonzero(as_tuple=True)
        slots_N = (self.lengths_B[:, None] + real_BT.cumsum(1) - 1)[rows_N, columns_N]
        return Extension(self, new, lengths_B, rows_N, columns_N, slots_N)


class Extension:
    """New tokens of one pass on their way into a cache: token ``columns_N`` of row ``rows_N`` goes to ``slots_N``."""

    def __init__(
        self, cache: KVCache, new: Places, lengths_B: Tensor, rows_N: Tensor, columns_N: Tensor, slots_N: Tensor
    ) -> None:
        self.cache = cache
        self.lengths_B = lengths_B
        self.taken = (rows_N, columns_N)
        self.slots = (rows_N, slots_N)
        # Slots beyond a row's length mean nothing, so they may be written before the pass has succeeded.
        assert new.documents_BT is not None  # noqa: S101
        cache.positions_BS[self.slots] = new.positions_BT[self.taken]
        cache.documents_BS[self.slots] = new.documents_BT[self.taken]
        self.keys = cache.places(lengths_B)

    def append(self, layer: int, k_BTGC: Tensor, v_BTGC: Tensor) -> tuple[Tensor, Tensor]:
        """Write one layer's new keys and values; returns all of them, k_BSGC and v_BSGC, up to the longest row."""
        kept = self.cache.layers[layer]
        kept.k[self.slots] = k_BTGC[self.taken]
        kept.v[self.slots] = v_BTGC[self.taken]
        longest = self.keys.positions_BT.shape[1]
        return kept.k[:, :longest], kept.v[:, :longest]

    def keep(self) -> None:
        """The pass has succeeded: the new tokens count from now on."""
        self.cache.lengths_B.copy_(self.lengths_B)

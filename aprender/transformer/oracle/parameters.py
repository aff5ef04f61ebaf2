"""Weights as the oracle reads them: by name, cast to the working dtype on use, so that one copy is in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aprender.errors import FormatError
from aprender.transformer.config import TransformerConfig

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
NORM = "model.norm.weight"


@dataclass(frozen=True, slots=True)
class Parameters:
    """``tensors`` of any float dtype under Hugging Face's names; ``[name]`` is the tensor in ``dtype`` on ``device``.

    ``prefix`` stands before every name that is asked for: a layer is a view of all the parameters.
    """

    tensors: Mapping[str, Tensor]
    dtype: torch.dtype
    device: torch.device
    prefix: str = ""

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[self.prefix + name].to(self.device, self.dtype)

    def rows(self, name: str, rows_BT: Tensor) -> Tensor:
        """``self[name][rows_BT]``, without a cast of the rows that nobody asked for."""
        stored = self.tensors[self.prefix + name]
        return stored[rows_BT.to(stored.device)].to(self.device, self.dtype)

    def layer(self, index: int) -> Parameters:
        """The parameters of one layer, by their names in it: ``self_attn.q_proj.weight``."""
        return replace(self, prefix=f"model.layers.{index}.")


def check_tensors(config: TransformerConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raise FormatError where a tensor of ``config.tensor_shapes()`` is missing, misshapen, or not of a float dtype."""
    for name, shape in config.tensor_shapes().items():
        if name not in tensors:
            raise FormatError(f"oracle: tensor {name} is missing")
        if tuple(tensors[name].shape) != shape:
            raise FormatError(f"oracle: tensor {name} has shape {tuple(tensors[name].shape)}, expected {shape}")
        if not tensors[name].is_floating_point():
            raise FormatError(f"oracle: tensor {name} is {tensors[name].dtype}, must be of a float dtype")

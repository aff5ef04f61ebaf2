"""The oracle: a Qwen2/Llama/Mistral/Qwen3 transformer in float64, written from the mathematics, slow and plain.

It shares nothing with the CUDA path but the configuration and the weights: a mistake in one is not in the other.
With ``dtype=torch.float32`` the same formulas become a *legal rounded reference*, what an implementation without a
defect may return. Two of those (``k_splits`` 1 and 4) differ by rounding only, and the distance from either to
float64 measures the envelope of honest error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.transformer.config import TransformerConfig
from aprender.transformer.oracle import attention, layer, operators, rope
from aprender.transformer.oracle.attention import Places
from aprender.transformer.oracle.batch import Batch, check_places
from aprender.transformer.oracle.layer import Gradients, Setting, Trace
from aprender.transformer.oracle.parameters import EMBEDDING, HEAD, NORM, Parameters, check_tensors


class Backward(NamedTuple):
    """The mean loss in nats and its gradient by every parameter, in the oracle's dtype, by Hugging Face's names."""

    loss: Tensor
    gradients: Gradients


@dataclass(frozen=True, slots=True)
class Cache:
    """What was read so far: where it stands, and the rotated keys and the values of every layer, k_BSGC and v_BSGC.

    Slots may be padding (a request that had nothing to add): they are marked so in ``places`` and never seen.
    """

    places: Places
    layers: tuple[tuple[Tensor, Tensor], ...]


class Oracle:
    """The whole model over weights under Hugging Face's names.

    ``weights`` are of any float dtype, on any device; each is cast to ``dtype`` (torch.float64 or float32) on
    ``device`` when it is used, and none is changed. They may require gradients: the forward pass is plain torch.
    Raises FormatError if a tensor of ``config.tensor_shapes()`` is missing, has another shape, or holds no floats.
    """

    def __init__(
        self,
        config: TransformerConfig,
        weights: Mapping[str, Tensor],
        dtype: torch.dtype = torch.float64,
        *,
        device: str | torch.device = "cpu",
        k_splits: int = 1,
    ) -> None:
        check_tensors(config, weights)
        self.config = config
        self.dtype = dtype
        self.device = torch.device(device)
        self.parameters = Parameters(weights, dtype, self.device)
        self.k_splits = k_splits

    def logits(self, batch: Batch) -> Tensor:
        """Next-token logits_BTV, meaningless at padding. Raises AprenderError for a token outside the vocabulary."""
        return self._head(self._normed(self._last(batch)))

    def hidden_states(self, batch: Batch) -> list[Tensor]:
        """x_BTD after the embedding, after each layer, and after the last norm: ``num_hidden_layers + 2`` tensors."""
        traces = list(self._layers(batch))
        states = [traces[0].x_BTD, *(trace.out_BTD for trace in traces)]
        return [*states, self._normed(states[-1])]

    def token_losses(self, batch: Batch) -> Tensor:
        """Cross-entropy in nats of the token after each place but the last: [B, T-1], NaN where that is no target.

        Logits exist for one row at a time. Raises AprenderError when T < 2 (there is nothing to predict) or a
        token is outside the vocabulary.
        """
        if batch.tokens_BT.shape[1] < 2:
            raise AprenderError(f"next-token losses need at least 2 tokens a row, got {batch.tokens_BT.shape[1]}")
        x_BTD = self._normed(self._last(batch))[:, :-1]
        targets_BT, counted_BT = batch.to(self.device).targets()
        head_VD = self.parameters[self.head_name]
        rows = [
            operators.cross_entropy(operators.linear(x_TD, head_VD, None, self.k_splits), targets_T)
            for x_TD, targets_T in zip(x_BTD, targets_BT, strict=True)
        ]
        return torch.where(counted_BT, torch.stack(rows), torch.nan)

    def loss(self, batch: Batch) -> Tensor:
        """The mean of the losses of all targets, in nats. Raises AprenderError where there is none."""
        return self.token_losses(batch)[_counted(batch.to(self.device))].mean()

    def backward(self, batch: Batch) -> Backward:
        """The loss and its gradients from the operators' vector-Jacobian products, without autograd.

        A tied table's gradient is the sum of the head's and the embedding's. Raises AprenderError as ``loss`` does.
        """
        traces = list(self._layers(batch))
        setting = self._setting(batch.positions_BT.to(self.device))
        gradients: Gradients = {}
        loss, dnormed_BTD = self._head_backward(batch, self._normed(traces[-1].out_BTD), gradients)
        dx_BTD = layer.norm_back(
            self.parameters, setting, NORM.removesuffix(".weight"), traces[-1].out_BTD, dnormed_BTD, gradients
        )
        for index in reversed(range(len(traces))):
            dx_BTD = layer.backward(self.parameters.layer(index), setting, traces[index], dx_BTD, gradients)
        tokens_BT = batch.tokens_BT.to(self.device)
        add_gradient(gradients, EMBEDDING, operators.embed_vjp(tokens_BT, dx_BTD, self.config.vocab_size))
        return Backward(loss, {name: gradients[name] for name in self.config.tensor_shapes()})

    def prefill(self, batch: Batch) -> tuple[Tensor, Cache]:
        """The logits_BTV of ``batch``, and a cache of what it read."""
        return self._extend(batch, None)

    def decode(self, batch: Batch, cache: Cache) -> tuple[Tensor, Cache]:
        """The logits_BTV of the new tokens ``batch``, which see those in ``cache``, and the cache with both.

        Positions and documents say what continues what: ``batch.positions_BT`` go on where each request stopped, and a
        request without a new token has padding. ``cache`` is not changed. Raises AprenderError for another number of
        rows, or a position that is taken.
        """
        if len(batch.tokens_BT) != len(cache.places.positions_BT):
            raise AprenderError(f"{len(batch.tokens_BT)} rows, but the cache holds {len(cache.places.positions_BT)}")
        return self._extend(batch, cache)

    @property
    def head_name(self) -> str:
        """The tensor that makes logits: the embedding itself in a model with tied embeddings."""
        return EMBEDDING if self.config.tie_word_embeddings else HEAD

    def _extend(self, batch: Batch, cache: Cache | None) -> tuple[Tensor, Cache]:
        places = all_places(batch.to(self.device), cache)
        check_places(*places)
        traces = list(self._layers(batch, cache))
        kept = tuple((trace.k_BSGC, trace.v_BSGC) for trace in traces)
        return self._head(self._normed(traces[-1].out_BTD)), Cache(places, kept)

    def _last(self, batch: Batch) -> Tensor:
        """x_BTD after the last layer; what the layers before it computed is let go."""
        for trace in self._layers(batch):
            x_BTD = trace.out_BTD
        return x_BTD

    def _layers(self, batch: Batch, cache: Cache | None = None) -> Iterator[Trace]:
        batch.check_vocabulary(self.config.vocab_size)
        batch = batch.to(self.device)
        queries, keys = Places(batch.positions_BT, batch.documents_BT), all_places(batch, cache)
        setting = self._setting(batch.positions_BT)
        x_BTD = self.parameters.rows(EMBEDDING, batch.tokens_BT)
        for index, window in enumerate(self.config.windows):
            allowed_BTS = attention.allowed_pairs(queries, keys, window)
            past = cache.layers[index] if cache else None
            trace = layer.forward(self.parameters.layer(index), setting, x_BTD, allowed_BTS, past)
            x_BTD = trace.out_BTD
            yield trace

    def _setting(self, positions_BT: Tensor) -> Setting:
        config = self.config
        tables = rope.tables(positions_BT, config.head_dim, config.rope_theta, config.rope_scaling, self.dtype)
        return Setting(config, *tables, self.k_splits)

    def _normed(self, x_BTD: Tensor) -> Tensor:
        return operators.rms_norm(x_BTD, self.parameters[NORM], self.config.rms_norm_eps)

    def _head(self, x_BTD: Tensor) -> Tensor:
        return operators.linear(x_BTD, self.parameters[self.head_name], None, self.k_splits)

    def _head_backward(self, batch: Batch, normed_BTD: Tensor, gradients: Gradients) -> tuple[Tensor, Tensor]:
        """The loss and dnormed_BTD; logits and their gradients exist for one row at a time."""
        batch = batch.to(self.device)
        targets_BT, _ = batch.targets()
        counted_BT = _counted(batch)
        weight_VD = self.parameters[self.head_name]
        losses, rows = [], []
        for x_TD, targets_T, counted_T in zip(normed_BTD, targets_BT, counted_BT, strict=True):
            logits_TV = operators.linear(x_TD[:-1], weight_VD, None, self.k_splits)
            losses.append(operators.cross_entropy(logits_TV, targets_T)[counted_T])
            dloss_T = counted_T.to(self.dtype) / counted_BT.sum()
            dlogits_TV = operators.cross_entropy_vjp(logits_TV, targets_T, dloss_T)
            dx_TD, dweight_VD, _ = operators.linear_vjp(x_TD[:-1], weight_VD, dlogits_TV)
            add_gradient(gradients, self.head_name, dweight_VD)
            rows.append(torch.cat((dx_TD, torch.zeros_like(x_TD[-1:]))))  # nothing is asked of the last place
        return torch.cat(losses).mean(), torch.stack(rows)


def add_gradient(gradients: Gradients, name: str, gradient: Tensor) -> None:
    """Add to what is there: a tensor that is used twice has a gradient of two parts."""
    gradients[name] = gradients[name] + gradient if name in gradients else gradient


def all_places(batch: Batch, cache: Cache | None) -> Places:
    """Where the keys stand that ``batch`` may see: those in the cache, then its own."""
    if cache is None:
        return Places(batch.positions_BT, batch.documents_BT)
    return Places(
        torch.cat((cache.places.positions_BT, batch.positions_BT), 1),
        torch.cat((cache.places.documents_BT, batch.documents_BT), 1),
    )


def _counted(batch: Batch) -> Tensor:
    _, counted_BT = batch.targets()
    if not counted_BT.any():
        raise AprenderError("no token of the batch has a predecessor in its document: there is no loss")
    return counted_BT

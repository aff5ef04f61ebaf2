"""The oracle: a Qwen2/Llama transformer in numpy float64, written from the mathematics, slow and plain.

It shares nothing with the CUDA path but the configuration and the weights: a mistake in one is not in the other.
With ``dtype=np.float32`` the same formulas become a *legal rounded reference*, what an implementation without a
defect may return. Two of those (``k_splits`` 1 and 4) differ by rounding only, and the distance from either to
float64 measures the envelope of honest error.

Letters in names give shapes: B rows, T positions, D hidden, F feed-forward, V vocabulary, H query heads, G
key/value heads, C channels of a head, R = C/2 rotation pairs, K and N a projection's input and output width.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from aprender.errors import AprenderError, FormatError
from aprender.transformer.config import TransformerConfig

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
FloatType = type[np.float64] | type[np.float32]


def rms_norm(x_BTD: Floats, gain_D: Floats, eps: float) -> Floats:
    """Scale by the root mean square over the last axis: ``gain * x / sqrt(mean(x^2) + eps)``.

    Zhang and Sennrich 2019 (arXiv 1910.07467), eq. 4, with eps inside the root as Llama has it.
    """
    mean_square_BT1 = np.mean(x_BTD * x_BTD, axis=-1, keepdims=True)
    normed_BTD: Floats = x_BTD / np.sqrt(mean_square_BT1 + eps) * gain_D
    return normed_BTD


def linear(x_BTK: Floats, weight_NK: Floats, bias_N: Floats | None = None, k_splits: int = 1) -> Floats:
    """Project: ``y = x W^T + b``, the sum over K taken as ``k_splits`` partial products added in order.

    Every number of splits is the same mathematics; in float32 each is another legal order of summation.
    """
    K = weight_NK.shape[1]
    edges = [K * i // k_splits for i in range(k_splits + 1)]
    y_BTN: Floats = x_BTK[..., : edges[1]] @ weight_NK[:, : edges[1]].T
    for start, stop in pairwise(edges[1:]):
        y_BTN = y_BTN + x_BTK[..., start:stop] @ weight_NK[:, start:stop].T
    return y_BTN if bias_N is None else y_BTN + bias_N


def rope_tables(T: int, head_dim: int, theta: float, dtype: FloatType = np.float64) -> tuple[Floats, Floats]:
    """Tabulate cos_TR and sin_TR of the angles ``t * theta^(-2r / head_dim)``: float64, then cast.

    Su et al. 2021 (arXiv 2104.09864), section 3.2.2, with the base 10000 replaced by ``theta``.
    """
    frequency_R = theta ** (-2.0 * np.arange(head_dim // 2, dtype=np.float64) / head_dim)
    angle_TR = np.arange(T, dtype=np.float64)[:, None] * frequency_R
    return np.cos(angle_TR).astype(dtype), np.sin(angle_TR).astype(dtype)


def rope(x_BTHC: Floats, cos_TR: Floats, sin_TR: Floats) -> Floats:
    """Rotate the pair (x[r], x[r + C/2]) of every head by the angle of its position: ``(a, b) e^{i angle}``.

    Half-split pairs as in GPT-NeoX, which checkpoints under Hugging Face's names assume; the paper (arXiv
    2104.09864, eq. 34) pairs neighbours, which is the same up to an order of channels.
    """
    R = x_BTHC.shape[-1] // 2
    a_BTHR, b_BTHR = x_BTHC[..., :R], x_BTHC[..., R:]
    cos_T1R, sin_T1R = cos_TR[:, None, :], sin_TR[:, None, :]
    return np.concatenate((a_BTHR * cos_T1R - b_BTHR * sin_T1R, a_BTHR * sin_T1R + b_BTHR * cos_T1R), axis=-1)


def softmax(scores: Floats) -> Floats:
    """Normalise over the last axis: ``exp(s - max s) / sum exp(s - max s)``; a score of -inf weighs 0.

    Every row needs one finite score.
    """
    weights = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    normalised: Floats = weights / np.sum(weights, axis=-1, keepdims=True)
    return normalised


def causal_attention(q_BTHC: Floats, k_BTGC: Floats, v_BTGC: Floats, scale: float) -> Floats:
    """Attend per query head: ``softmax(scale * q k^T) v`` over positions s <= t. Result: out_BTHC.

    Vaswani et al. 2017 (arXiv 1706.03762), eq. 1; query head h reads key/value head ``h // (H / G)``, Ainslie
    et al. 2023 (arXiv 2305.13245). One head of one row at a time, so that scores take T * T numbers.
    """
    B, T, H, _ = q_BTHC.shape
    heads_per_group = H // k_BTGC.shape[2]
    hidden_TT = np.triu(np.ones((T, T), dtype=bool), k=1)
    out_BTHC = np.empty_like(q_BTHC)
    for b in range(B):
        for h in range(H):
            g = h // heads_per_group
            scores_TT = (q_BTHC[b, :, h] @ k_BTGC[b, :, g].T) * scale
            scores_TT[hidden_TT] = -np.inf
            out_BTHC[b, :, h] = softmax(scores_TT) @ v_BTGC[b, :, g]
    return out_BTHC


def swiglu(gate_BTF: Floats, up_BTF: Floats) -> Floats:
    """Gate: ``silu(gate) * up`` with ``silu(z) = z / (1 + e^-z)``. Shazeer 2020 (arXiv 2002.05202), sec. 2.

    The sigmoid is ``(1 + tanh(z/2)) / 2``: the same function without an exponential that overflows.
    """
    product_BTF: Floats = gate_BTF * (0.5 * (1.0 + np.tanh(0.5 * gate_BTF))) * up_BTF
    return product_BTF


def next_token_losses(logits_TV: Floats, targets_T: Ints) -> Floats:
    """Cross-entropy ``log(sum_v e^(z_v)) - z_target`` in nats per position; no exponent is above 0."""
    largest_T1 = np.max(logits_TV, axis=-1, keepdims=True)
    log_sum_T = np.log(np.sum(np.exp(logits_TV - largest_T1), axis=-1)) + largest_T1[:, 0]
    losses_T: Floats = log_sum_T - np.take_along_axis(logits_TV, targets_T[:, None], axis=-1)[:, 0]
    return losses_T


class Oracle:
    """The whole model over weights under Hugging Face's names.

    ``weights`` are float32 and are cast to ``dtype`` one tensor at a time, on use. Raises FormatError if a
    tensor of ``config.tensor_shapes()`` is missing or has another shape.
    """

    def __init__(
        self,
        config: TransformerConfig,
        weights: Mapping[str, npt.NDArray[np.float32]],
        dtype: FloatType = np.float64,
        *,
        k_splits: int = 1,
    ) -> None:
        for name, shape in config.tensor_shapes().items():
            if name not in weights:
                raise FormatError(f"oracle: tensor {name} is missing")
            if weights[name].shape != shape:
                raise FormatError(f"oracle: tensor {name} has shape {weights[name].shape}, expected {shape}")
        self.config = config
        self.weights = weights
        self.dtype = dtype
        self.k_splits = k_splits

    def logits(self, tokens_BT: Ints) -> Floats:
        """Compute next-token logits_BTV. Raises AprenderError for a token outside the vocabulary."""
        return linear(self._normed_hidden(tokens_BT), self._weight(self._head), k_splits=self.k_splits)

    def token_losses(self, tokens_BT: Ints) -> Floats:
        """Cross-entropy in nats of tokens 1..T-1 given all before: shape [B, T-1].

        Logits exist for one row at a time. Raises AprenderError when T < 2 (there is nothing to predict) or a
        token is outside the vocabulary.
        """
        if tokens_BT.ndim == 2 and tokens_BT.shape[1] < 2:
            raise AprenderError(f"next-token losses need at least 2 tokens a row, got {tokens_BT.shape[1]}")
        x_BTD = self._normed_hidden(tokens_BT)
        head_VD = self._weight(self._head)
        rows = [
            next_token_losses(linear(x_TD[:-1], head_VD, k_splits=self.k_splits), tokens_T[1:])
            for x_TD, tokens_T in zip(x_BTD, tokens_BT, strict=True)
        ]
        return np.stack(rows)

    @property
    def _head(self) -> str:
        return "model.embed_tokens.weight" if self.config.tie_word_embeddings else "lm_head.weight"

    def _weight(self, name: str) -> Floats:
        return self.weights[name].astype(self.dtype, copy=False)

    def _linear(self, x_BTK: Floats, name: str, bias: bool = False) -> Floats:
        bias_N = self._weight(f"{name}.bias") if bias else None
        return linear(x_BTK, self._weight(f"{name}.weight"), bias_N, self.k_splits)

    def _rms_norm(self, x_BTD: Floats, name: str) -> Floats:
        return rms_norm(x_BTD, self._weight(f"{name}.weight"), self.config.rms_norm_eps)

    def _normed_hidden(self, tokens_BT: Ints) -> Floats:
        """Compute x_BTD, the hidden state after all layers and the last norm."""
        check_tokens(tokens_BT, self.config.vocab_size)
        tables = rope_tables(tokens_BT.shape[1], self.config.head_dim, self.config.rope_theta, self.dtype)
        x_BTD: Floats = self.weights["model.embed_tokens.weight"][tokens_BT].astype(self.dtype)
        for i in range(self.config.num_hidden_layers):
            layer = f"model.layers.{i}"
            x_BTD = x_BTD + self._attention(self._rms_norm(x_BTD, f"{layer}.input_layernorm"), layer, tables)
            x_BTD = x_BTD + self._mlp(self._rms_norm(x_BTD, f"{layer}.post_attention_layernorm"), layer)
        return self._rms_norm(x_BTD, "model.norm")

    def _attention(self, x_BTD: Floats, layer: str, tables: tuple[Floats, Floats]) -> Floats:
        B, T, _ = x_BTD.shape
        C, bias = self.config.head_dim, self.config.qkv_bias
        q_BTHC = self._linear(x_BTD, f"{layer}.self_attn.q_proj", bias).reshape(B, T, -1, C)
        k_BTGC = self._linear(x_BTD, f"{layer}.self_attn.k_proj", bias).reshape(B, T, -1, C)
        v_BTGC = self._linear(x_BTD, f"{layer}.self_attn.v_proj", bias).reshape(B, T, -1, C)
        out_BTHC = causal_attention(rope(q_BTHC, *tables), rope(k_BTGC, *tables), v_BTGC, scale=C**-0.5)
        return self._linear(out_BTHC.reshape(B, T, -1), f"{layer}.self_attn.o_proj")

    def _mlp(self, x_BTD: Floats, layer: str) -> Floats:
        gate_BTF = self._linear(x_BTD, f"{layer}.mlp.gate_proj")
        up_BTF = self._linear(x_BTD, f"{layer}.mlp.up_proj")
        return self._linear(swiglu(gate_BTF, up_BTF), f"{layer}.mlp.down_proj")


def check_tokens(tokens_BT: Ints, vocab_size: int) -> None:
    """Raise AprenderError unless tokens_BT are integers in 0..vocab_size-1 and there is at least one."""
    if tokens_BT.ndim != 2 or tokens_BT.size == 0 or not np.issubdtype(tokens_BT.dtype, np.integer):
        raise AprenderError(
            f"tokens must be integers of shape [rows, positions], not {tokens_BT.dtype} of shape {tokens_BT.shape}"
        )
    outside = np.argwhere((tokens_BT < 0) | (tokens_BT >= vocab_size))
    if len(outside):
        row, column = outside[0]
        raise AprenderError(
            f"token {tokens_BT[row, column]} at row {row}, column {column} is outside the vocabulary of {vocab_size}"
        )

"""The model of the CUDA path: Qwen2 and Llama, logits and next-token losses in float32 without TF32.

Plain objects: a model has ``embed_tokens``, ``layers``, ``norm`` and ``lm_head``, a block has its operators as
attributes, and each is called where the paper has it. ``aprender.transformer.cuda.stages`` reads and replaces them
by name; the forward pass itself knows nothing of that. It runs on "cuda" and on "cpu", and under autograd when the
tensors it was given require gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.errors import AprenderError, FormatError
from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda.operators import (
    CausalAttention,
    Embedding,
    Linear,
    RMSNorm,
    Rope,
    SwiGLU,
    next_token_losses,
    rope_tables,
)
from aprender.transformer.cuda.upload import Upload, upload

Stage = Callable[..., Tensor]

# token_losses makes at most this many logits at a time: 256 MiB, 441 positions of Qwen2's 151,936 tokens.
_LOGITS_AT_ONCE = 2**26


@dataclass(slots=True)
class Block:
    """One layer: x_BTD -> x_BTD. Every field but ``head_dim`` is a stage, in forward order."""

    head_dim: int
    input_layernorm: Stage
    q_proj: Stage
    k_proj: Stage
    v_proj: Stage
    q_rope: Stage
    k_rope: Stage
    attention: Stage
    o_proj: Stage
    post_attention_layernorm: Stage
    gate_proj: Stage
    up_proj: Stage
    swiglu: Stage
    down_proj: Stage

    def __call__(self, x_BTD: Tensor) -> Tensor:
        heads = (*x_BTD.shape[:2], -1, self.head_dim)
        h_BTD = self.input_layernorm(x_BTD)
        q_BTHC = self.q_proj(h_BTD).reshape(heads)
        k_BTGC = self.k_proj(h_BTD).reshape(heads)
        v_BTGC = self.v_proj(h_BTD).reshape(heads)
        out_BTHC = self.attention(self.q_rope(q_BTHC), self.k_rope(k_BTGC), v_BTGC)
        x_BTD = x_BTD + self.o_proj(out_BTHC.flatten(-2))

        h_BTD = self.post_attention_layernorm(x_BTD)
        h_BTF = self.swiglu(self.gate_proj(h_BTD), self.up_proj(h_BTD))
        return x_BTD + self.down_proj(h_BTF)


@dataclass(slots=True)
class CudaTransformer:
    """Tokens in, next-token logits or losses out. Build one with ``from_checkpoint``."""

    config: TransformerConfig
    device: torch.device
    embed_tokens: Stage
    layers: list[Block]
    norm: Stage
    lm_head: Stage

    @classmethod
    def from_checkpoint(
        cls,
        config: TransformerConfig,
        tensors: Mapping[str, Tensor],
        device: str | torch.device,
        *,
        upload: Upload = upload,
        max_positions: int = 4096,
    ) -> CudaTransformer:
        """Build the model over ``tensors`` (Hugging Face's names), put on ``device`` as float32 by ``upload``.

        ``max_positions`` is the longest row that the rotary tables serve. Raises FormatError when the configuration
        asks for what this path has not, or a tensor is missing or has another shape than ``config`` says,
        AprenderError when ``device`` can't be had, when TF32 is on there, or when an uploaded tensor lies elsewhere.
        """
        device = torch.device(device)
        _check_supported(config)
        _check_tensors(config, tensors)
        _check_device(device)
        uploaded = upload(config, tensors, device, torch.float32)
        for name, tensor in uploaded.items():
            _check_on(device, f"tensor {name}", tensor)
        tables = rope_tables(max_positions, config.head_dim, config.rope_theta, device, torch.float32)
        embeddings_VD = uploaded["model.embed_tokens.weight"]
        return cls(
            config=config,
            device=device,
            embed_tokens=Embedding(embeddings_VD),
            layers=[_block(config, uploaded, i, tables) for i in range(config.num_hidden_layers)],
            norm=RMSNorm(uploaded["model.norm.weight"], config.rms_norm_eps),
            lm_head=Linear(embeddings_VD if config.tie_word_embeddings else uploaded["lm_head.weight"], None),
        )

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Compute next-token logits_BTV, float32; ``tokens_BT`` may be on any device.

        Raises AprenderError for a token outside the vocabulary, and when the logits come out on another device
        than the one asked for: a model that falls back to the CPU in silence proves nothing about the GPU.
        """
        return self._logits(self._normed_hidden(tokens_BT))

    def token_losses(self, tokens_BT: Tensor) -> Tensor:
        """Cross-entropy in nats of tokens 1..T-1 given all before: float32, shape [B, T-1].

        ``lm_head`` is called on flattened [positions, D] chunks, so that the logits over a large vocabulary are
        never all in memory. Raises AprenderError as ``forward`` does, and when T < 2: nothing to predict.
        """
        if tokens_BT.ndim == 2 and tokens_BT.shape[1] < 2:
            raise AprenderError(f"losses of next tokens need rows of 2 tokens or more, these have {tokens_BT.shape[1]}")
        x_ND = self._normed_hidden(tokens_BT)[:, :-1].flatten(0, 1)
        targets_N = tokens_BT[:, 1:].flatten().to(self.device)
        chunk = max(1, _LOGITS_AT_ONCE // self.config.vocab_size)
        losses_N = torch.cat(
            [
                next_token_losses(self._logits(x_nD), targets_n)
                for x_nD, targets_n in zip(torch.split(x_ND, chunk), torch.split(targets_N, chunk), strict=True)
            ]
        )
        return losses_N.view(len(tokens_BT), -1)

    def _normed_hidden(self, tokens_BT: Tensor) -> Tensor:
        """Compute x_BTD, the hidden state after all layers and the last norm."""
        _check_tokens(tokens_BT, self.config.vocab_size)
        x_BTD = self.embed_tokens(tokens_BT.to(self.device))
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        return self.norm(x_BTD)

    def _logits(self, x_BTD: Tensor) -> Tensor:
        logits_BTV = self.lm_head(x_BTD)
        _check_on(self.device, "the tensor of logits", logits_BTV)
        return logits_BTV


def _block(
    config: TransformerConfig, uploaded: Mapping[str, Tensor], index: int, tables: tuple[Tensor, Tensor]
) -> Block:
    def linear(name: str) -> Linear:
        name = f"model.layers.{index}.{name}"
        return Linear(uploaded[f"{name}.weight"], uploaded.get(f"{name}.bias"))

    def norm(name: str) -> RMSNorm:
        return RMSNorm(uploaded[f"model.layers.{index}.{name}.weight"], config.rms_norm_eps)

    return Block(
        head_dim=config.head_dim,
        input_layernorm=norm("input_layernorm"),
        q_proj=linear("self_attn.q_proj"),
        k_proj=linear("self_attn.k_proj"),
        v_proj=linear("self_attn.v_proj"),
        q_rope=Rope(*tables),
        k_rope=Rope(*tables),
        attention=CausalAttention(scale=config.head_dim**-0.5),
        o_proj=linear("self_attn.o_proj"),
        post_attention_layernorm=norm("post_attention_layernorm"),
        gate_proj=linear("mlp.gate_proj"),
        up_proj=linear("mlp.up_proj"),
        swiglu=SwiGLU(),
        down_proj=linear("mlp.down_proj"),
    )


def _check_supported(config: TransformerConfig) -> None:
    asked_for = {
        "RoPE scaling": config.rope_scaling is not None,
        "sliding windows": any(window is not None for window in config.windows),
        "QK-norm": config.qk_norm,
    }
    if missing := [feature for feature, wanted in asked_for.items() if wanted]:
        raise FormatError(f"the CUDA path has no {' and no '.join(missing)} yet; this model runs on the oracle only")


def _check_tensors(config: TransformerConfig, tensors: Mapping[str, Tensor]) -> None:
    for name, shape in config.tensor_shapes().items():
        if name not in tensors:
            raise FormatError(f"tensor {name} is missing from the checkpoint")
        if tuple(tensors[name].shape) != shape:
            raise FormatError(f"tensor {name} has shape {tuple(tensors[name].shape)}, the configuration says {shape}")


def _check_device(device: torch.device) -> None:
    if device.type != "cuda":
        return
    if not torch.cuda.is_available():
        raise AprenderError(f"device {device} was asked for, but torch {torch.__version__} finds no CUDA device")
    if torch.get_float32_matmul_precision() != "highest":
        raise AprenderError(
            f"float32 matrix products are set to {torch.get_float32_matmul_precision()!r} precision (TF32): "
            "call torch.set_float32_matmul_precision('highest') first"
        )


def _check_on(device: torch.device, what: str, tensor: Tensor) -> None:
    # "cuda" without an index means whichever CUDA device is current.
    if tensor.device.type != device.type or device.index not in (None, tensor.device.index):
        raise AprenderError(f"{what} is on {tensor.device}, not on {device} as asked for")


def _check_tokens(tokens_BT: Tensor, vocab_size: int) -> None:
    if tokens_BT.ndim != 2 or tokens_BT.numel() == 0 or tokens_BT.is_floating_point():
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

"""The model of the CUDA path: Qwen2, Llama, Mistral and Qwen3; logits, next-token losses, and their gradients.

Plain objects: a model has ``embed_tokens``, ``layers``, ``norm``, ``lm_head`` and ``loss``, a block has its operators
as attributes, and each is called where the paper has it. Each is a stage with a forward and a backward of its own
(``aprender.transformer.cuda.ops``): there is no autograd. ``aprender.transformer.cuda.stages`` reads and replaces them
by name; the pass itself knows nothing of that. The kernels run on "cuda", and on "cpu" in Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.faults import located_at
from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda.batch import Places, check_tokens, places, targets
from aprender.transformer.cuda.block import Block, Stage
from aprender.transformer.cuda.build import (
    EMBEDDING,
    HEAD,
    build_block,
    by_checkpoint_name,
    check_runnable,
    check_tensors,
)
from aprender.transformer.cuda.cache import Extension, KVCache
from aprender.transformer.cuda.ops import Embedding, LinearCrossEntropy, Logits, RMSNorm
from aprender.transformer.cuda.rope_tables import rope_tables
from aprender.transformer.cuda.tape import Run, Tape, calling
from aprender.transformer.cuda.upload import Upload, check_finite, check_on, upload


@dataclass(slots=True)
class CudaTransformer:
    """Tokens in, next-token logits, losses or gradients out. Build one with ``from_checkpoint``.

    All methods take tokens_BT, int64 or int32, on any device, and where wanted ``positions_BT`` and ``documents_BT`` of
    their shape. Tokens see their own document only; a negative document is padding, whose token means nothing but must
    be one of the vocabulary. Without positions they are counted from 0 within each document.

    Where the device runs out of memory, is busy or lost, or a kernel does not compile, all methods raise
    ``aprender.faults.DeviceFault``, an AprenderError that says at which stage, and what to do; its cause is torch's.
    """

    config: TransformerConfig
    device: torch.device
    dtype: torch.dtype
    max_positions: int
    embed_tokens: Stage
    layers: list[Block]
    norm: Stage
    lm_head: Stage
    loss: Stage

    @classmethod
    @located_at("building the model")
    def from_checkpoint(
        cls,
        config: TransformerConfig,
        tensors: Mapping[str, Tensor],
        device: str | torch.device,
        *,
        dtype: torch.dtype = torch.float32,
        upload: Upload = upload,
        max_positions: int = 4096,
    ) -> CudaTransformer:
        """Build the model over ``tensors`` (Hugging Face's names), put on ``device`` as ``dtype`` by ``upload``.

        float32 is float32, without TF32. In bfloat16 weights, activations and the cache are bfloat16; sums, logits,
        losses and the gradients of parameters are float32. Positions go from 0 to ``max_positions - 1``. Raises
        FormatError when a tensor is missing, has another shape than ``config`` says or holds NaN or infinity;
        AprenderError when the kernels can't run on ``device`` or in ``dtype``, or an uploaded tensor lies elsewhere.
        """
        device = torch.device(device)
        check_tensors(config, tensors)
        check_runnable(device, dtype)
        uploaded = upload(config, tensors, device, dtype)
        for name, tensor in uploaded.items():
            check_on(device, f"tensor {name}", tensor)
        check_finite(uploaded)
        tables = rope_tables(config, max_positions, device)
        head_VD = uploaded[EMBEDDING if config.tie_word_embeddings else HEAD]
        return cls(
            config=config,
            device=device,
            dtype=dtype,
            max_positions=max_positions,
            embed_tokens=Embedding(uploaded[EMBEDDING]),
            layers=[build_block(config, uploaded, index, tables) for index in range(config.num_hidden_layers)],
            norm=RMSNorm(uploaded["model.norm.weight"], config.rms_norm_eps),
            lm_head=Logits(head_VD),
            loss=LinearCrossEntropy(head_VD),
        )

    @torch.no_grad()
    @located_at("CudaTransformer.forward")
    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        documents_BT: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Compute next-token logits_BTV, float32; at padding they mean nothing.

        With a ``cache``, tokens come after those that it holds of their row, see them, and are appended to it, except
        padding; positions go on where each document stopped. Raises AprenderError for a token outside the
        vocabulary, a position outside the tables, unlike shapes, too small a cache, and when the logits come out on
        another device than the one asked for: a model that falls back to the CPU in silence proves nothing.
        """
        past = None
        if cache is not None:
            self._check_cache(cache, tokens_BT)
            past = cache.places()
        at = self._places(tokens_BT, positions_BT, documents_BT, past)
        extension = None if cache is None else cache.extended(at)
        x_BTD = self._hidden(tokens_BT, at, calling, extension)
        logits_BTV: Tensor = calling(self)("lm_head", x_BTD)
        check_on(self.device, "the tensor of logits", logits_BTV)
        if extension is not None:
            extension.keep()
        return logits_BTV

    @torch.no_grad()
    @located_at("CudaTransformer.token_losses")
    def token_losses(
        self, tokens_BT: Tensor, *, positions_BT: Tensor | None = None, documents_BT: Tensor | None = None
    ) -> Tensor:
        """Cross-entropy in nats of tokens 1..T-1 given those before: float32, [B, T-1].

        0 where the token is padding or begins another document: nothing predicts it. The logits over a large vocabulary
        are never all in memory. Raises AprenderError as ``forward`` does, and when T < 2.
        """
        at = self._places(tokens_BT, positions_BT, documents_BT)
        x_BTD = self._hidden(tokens_BT, at, calling)
        if not hasattr(self.loss, "token_losses"):
            raise AprenderError(f"stage loss was replaced by one without token_losses: {self.loss!r}")
        losses_BT: Tensor = self.loss.token_losses(x_BTD, self._targets(tokens_BT, at))
        check_on(self.device, "the tensor of losses", losses_BT)
        return losses_BT[:, :-1]

    @torch.no_grad()
    @located_at("CudaTransformer.loss_and_gradients")
    def loss_and_gradients(
        self, tokens_BT: Tensor, *, positions_BT: Tensor | None = None, documents_BT: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the mean of the losses that ``token_losses`` gives to targets, and its gradient by each parameter.

        The loss is a float32 scalar; gradients are float32 under Hugging Face's names, one for tied tables. Raises
        AprenderError as ``token_losses`` does, where nothing is predicted, and where a stage has no backward pass.
        """
        at = self._places(tokens_BT, positions_BT, documents_BT)
        targets_BT = self._targets(tokens_BT, at)
        if not bool((targets_BT >= 0).any()):
            raise AprenderError("no token has one before it in its document: there is no loss")
        tape = Tape()
        x_BTD = self._hidden(tokens_BT, at, tape.forward)
        loss = tape.forward(self)("loss", x_BTD, targets_BT)

        back = tape.backward(self)
        (d_x_BTD,) = back("loss", torch.ones_like(loss))
        (d_x_BTD,) = back("norm", d_x_BTD)
        for layer in reversed(self.layers):
            d_x_BTD = layer.backward(d_x_BTD, tape.backward(layer, f"layers.{layer.index}."))
        back("embed_tokens", d_x_BTD)
        return loss, self._by_checkpoint_name(tape.gradients)

    @located_at("making the cache")
    def new_cache(self, rows: int, positions: int) -> KVCache:
        """Make an empty cache for ``rows`` requests of up to ``positions`` tokens each."""
        return KVCache(self.config, rows, positions, self.dtype, self.device)

    def _hidden(
        self,
        tokens_BT: Tensor,
        at: Places,
        running: Callable[..., Run],
        past: Extension | None = None,
    ) -> Tensor:
        """Compute x_BTD after all layers and the last norm; ``running(owner, prefix)`` says how stages are called."""
        run = running(self)
        x_BTD: Tensor = run("embed_tokens", tokens_BT.to(self.device))
        for layer in self.layers:
            x_BTD = layer.forward(x_BTD, at, running(layer, f"layers.{layer.index}."), past)
        return run("norm", x_BTD)  # type: ignore[no-any-return]

    def _places(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None,
        documents_BT: Tensor | None,
        past: Places | None = None,
    ) -> Places:
        check_tokens(tokens_BT, self.config.vocab_size)
        return places(tokens_BT, positions_BT, documents_BT, self.device, past, self.max_positions)

    def _targets(self, tokens_BT: Tensor, at: Places) -> Tensor:
        if tokens_BT.shape[1] < 2:
            raise AprenderError(f"losses of next tokens need rows of 2 tokens or more, these have {tokens_BT.shape[1]}")
        return targets(tokens_BT.to(self.device), at)

    def _check_cache(self, cache: KVCache, tokens_BT: Tensor) -> None:
        check_tokens(tokens_BT, self.config.vocab_size)
        cache.check_rows(len(tokens_BT))
        made_for = [(kept.k.shape[2:], kept.k.dtype) for kept in cache.layers]
        heads = (self.config.num_key_value_heads, self.config.head_dim)
        if made_for != [(heads, self.dtype)] * self.config.num_hidden_layers:
            raise AprenderError("the cache was made by another model: make one with this model's new_cache")

    def _by_checkpoint_name(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        named: dict[str, Tensor] = {}
        for parameter, gradient in gradients.items():
            for name, part in by_checkpoint_name(self.config, parameter, gradient):
                named[name] = named[name] + part if name in named else part
        return {name: named[name] for name in self.config.tensor_shapes() if name in named}

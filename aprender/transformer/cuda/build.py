"""From a checkpoint's tensors to the stages of a model, and from the stages' names back to the checkpoint's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from aprender.errors import AprenderError, FormatError
from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda.block import Block
from aprender.transformer.cuda.ops import AddRMSNorm, Attention, FusedLinear, Linear, ResidualAdd, RMSNorm, Rope, SwiGLU
from aprender.transformer.cuda.ops.checks import STORAGE_DTYPES
from aprender.transformer.cuda.ops.matmul import check_precision
from aprender.transformer.cuda.ops.runtime import check_device, require_triton

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
QKV = ("q_proj", "k_proj", "v_proj")  # one stage here, three modules of a checkpoint

# Which module of a checkpoint's layer holds a stage's parameters.
_MODULES = {
    **dict.fromkeys((*QKV, "q_norm", "k_norm", "o_proj"), "self_attn."),
    **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), "mlp."),
}


def build_block(
    config: TransformerConfig, uploaded: Mapping[str, Tensor], index: int, tables: tuple[Tensor, Tensor]
) -> Block:
    """Make layer ``index``; a projection has a bias when one was uploaded. FormatError when only some of QKV's were."""

    def of(stage: str, field: str = "weight") -> str:
        return checkpoint_name(f"layers.{index}.{stage}.{field}", tied=False)

    def linear(stage: str) -> Linear:
        return Linear(uploaded[of(stage)], uploaded.get(of(stage, "bias")))

    def fused(*stages: str) -> FusedLinear:
        weights = [uploaded[of(stage)] for stage in stages]
        biases = [uploaded[name] for name in (of(stage, "bias") for stage in stages) if name in uploaded]
        if len(biases) not in (0, len(stages)):
            missing = next(name for name in (of(stage, "bias") for stage in stages) if name not in uploaded)
            raise FormatError(f"tensor {missing} was not uploaded, others of that product were: it needs all or none")
        return FusedLinear(torch.cat(weights), torch.cat(biases) if biases else None, tuple(map(len, weights)))

    def head_norm(stage: str) -> RMSNorm | None:
        return RMSNorm(uploaded[of(stage)], config.rms_norm_eps) if config.qk_norm else None

    return Block(
        index=index,
        head_dim=config.head_dim,
        input_layernorm=RMSNorm(uploaded[of("input_layernorm")], config.rms_norm_eps),
        qkv_proj=fused(*QKV),
        q_norm=head_norm("q_norm"),
        k_norm=head_norm("k_norm"),
        q_rope=Rope(*tables),
        k_rope=Rope(*tables),
        attention=Attention(config.head_dim**-0.5, config.windows[index]),
        o_proj=linear("o_proj"),
        post_attention_layernorm=AddRMSNorm(uploaded[of("post_attention_layernorm")], config.rms_norm_eps),
        gate_proj=linear("gate_proj"),
        up_proj=linear("up_proj"),
        swiglu=SwiGLU(),
        down_proj=linear("down_proj"),
        residual=ResidualAdd(),
    )


def checkpoint_name(parameter: str, tied: bool) -> str:
    """Name a stage's parameter as Hugging Face does: layers.3.o_proj.weight -> model.layers.3.self_attn.o_proj.weight.

    The table of ``lm_head`` and ``loss`` is the embedding's in a ``tied`` model.
    """
    if parameter.startswith(("lm_head.", "loss.")):
        return EMBEDDING if tied else HEAD
    if not parameter.startswith("layers."):
        return f"model.{parameter}"
    layer, index, stage, field = parameter.split(".")
    return f"model.{layer}.{index}.{_MODULES.get(stage, '')}{stage}.{field}"


def by_checkpoint_name(config: TransformerConfig, parameter: str, gradient: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Name the gradient of a stage's parameter as the checkpoint does; that of ``qkv_proj`` is three tensors' there."""
    if ".qkv_proj." in parameter:
        parts = torch.split(gradient, [config.q_dim, config.kv_dim, config.kv_dim])
        for stage, part in zip(QKV, parts, strict=True):
            yield checkpoint_name(parameter.replace("qkv_proj", stage), tied=False), part
    else:
        yield checkpoint_name(parameter, config.tie_word_embeddings), gradient


def check_tensors(config: TransformerConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raise FormatError unless there is every tensor that ``config`` names, in its shape."""
    for name, shape in config.tensor_shapes().items():
        if name not in tensors:
            raise FormatError(f"tensor {name} is missing from the checkpoint")
        if tuple(tensors[name].shape) != shape:
            raise FormatError(f"tensor {name} has shape {tuple(tensors[name].shape)}, the configuration says {shape}")


def check_runnable(device: torch.device, dtype: torch.dtype) -> None:
    """Raise AprenderError unless the kernels run in ``dtype`` on ``device``, in the precision that they state."""
    if dtype not in STORAGE_DTYPES:
        raise AprenderError(f"a model in {dtype}: there are kernels for torch.float32 and torch.bfloat16")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise AprenderError(
            f"device {device} was asked for, but torch {torch.__version__} finds no CUDA device: nvidia-smi shows what "
            "there is; install a CUDA build of torch, or use the CPU"
        )
    require_triton()
    check_device(device)
    check_precision(device)

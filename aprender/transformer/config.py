"""What a Qwen2/Llama-family transformer is: the one thing besides weights that oracle and CUDA path share."""

from __future__ import annotations

from dataclasses import dataclass, fields

from aprender.errors import FormatError


@dataclass(frozen=True, slots=True)
class LinearScaling:
    """Every RoPE frequency divided by ``factor``. Chen et al. 2023 (arXiv 2306.15595)."""

    factor: float


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Llama 3.1's scaling: long wavelengths divided by ``factor``, short ones kept, in between interpolated."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True, slots=True)
class YarnScaling:
    """YaRN: NTK by parts, and cos and sin multiplied by ``attention_factor``. Peng et al. 2023 (arXiv 2309.00071).

    ``truncate`` says whether the ends of the ramp between interpolated and kept frequencies are whole numbers.
    """

    factor: float
    beta_fast: float
    beta_slow: float
    attention_factor: float
    truncate: bool
    original_max_position_embeddings: int


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Configuration under Hugging Face's names. No field has a default: a checkpoint states it, or is refused.

    ``qkv_bias`` says whether q_proj, k_proj and v_proj carry biases (Qwen2: yes, Llama: no); ``o_proj`` and
    the MLP never do. ``qk_norm``: an RMSNorm over each head of q and k, before RoPE (Qwen3). ``head_dim`` need not
    be ``hidden_size / num_attention_heads``. ``windows`` has one entry per layer: how many positions, its own
    included, a query sees (Mistral), or None where it sees all before it.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    windows: tuple[int | None, ...]
    tie_word_embeddings: bool
    qkv_bias: bool
    qk_norm: bool

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
        ):
            if getattr(self, name) < 1:
                raise FormatError(f"model configuration: {name} is {getattr(self, name)}, must be at least 1")
        if self.num_attention_heads % self.num_key_value_heads:
            raise FormatError(
                f"model configuration: num_attention_heads ({self.num_attention_heads}) is not a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads}): query heads can't be grouped"
            )
        if self.head_dim % 2:
            raise FormatError(f"model configuration: head_dim is {self.head_dim}; half-split RoPE needs an even one")
        for name in ("rms_norm_eps", "rope_theta"):
            if not 0 < getattr(self, name) < float("inf"):
                raise FormatError(f"model configuration: {name} is {getattr(self, name)}, must be a positive number")
        if len(self.windows) != self.num_hidden_layers:
            raise FormatError(
                f"model configuration: {len(self.windows)} attention windows for {self.num_hidden_layers} layers"
            )
        for window in self.windows:
            if window is not None and window < 1:
                raise FormatError(f"model configuration: an attention window is {window}, must be at least 1")
        _check_scaling(self.rope_scaling)

    @property
    def q_dim(self) -> int:
        """Width of all query heads: num_attention_heads * head_dim."""
        return self.num_attention_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of all key (or value) heads: num_key_value_heads * head_dim."""
        return self.num_key_value_heads * self.head_dim

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that a checkpoint of this configuration holds, by Hugging Face name, in forward order."""
        D, F = self.hidden_size, self.intermediate_size
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, D)}
        for i in range(self.num_hidden_layers):
            layer = f"model.layers.{i}"
            shapes[f"{layer}.input_layernorm.weight"] = (D,)
            for name, width in (("q_proj", self.q_dim), ("k_proj", self.kv_dim), ("v_proj", self.kv_dim)):
                shapes[f"{layer}.self_attn.{name}.weight"] = (width, D)
                if self.qkv_bias:
                    shapes[f"{layer}.self_attn.{name}.bias"] = (width,)
            if self.qk_norm:
                shapes[f"{layer}.self_attn.q_norm.weight"] = (self.head_dim,)
                shapes[f"{layer}.self_attn.k_norm.weight"] = (self.head_dim,)
            shapes[f"{layer}.self_attn.o_proj.weight"] = (D, self.q_dim)
            shapes[f"{layer}.post_attention_layernorm.weight"] = (D,)
            shapes[f"{layer}.mlp.gate_proj.weight"] = (F, D)
            shapes[f"{layer}.mlp.up_proj.weight"] = (F, D)
            shapes[f"{layer}.mlp.down_proj.weight"] = (D, F)
        shapes["model.norm.weight"] = (D,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, D)
        return shapes


def _check_scaling(scaling: RopeScaling | None) -> None:
    if scaling is None:
        return
    for field in fields(scaling):
        value = getattr(scaling, field.name)
        if not 0 < value < float("inf") and field.name != "truncate":
            raise FormatError(f"model configuration: RoPE scaling's {field.name} is {value}, must be a positive number")
    if isinstance(scaling, Llama3Scaling) and scaling.low_freq_factor >= scaling.high_freq_factor:
        raise FormatError(
            f"model configuration: RoPE scaling's low_freq_factor ({scaling.low_freq_factor}) must be below its "
            f"high_freq_factor ({scaling.high_freq_factor})"
        )
    if isinstance(scaling, YarnScaling) and scaling.beta_slow >= scaling.beta_fast:
        raise FormatError(
            f"model configuration: RoPE scaling's beta_slow ({scaling.beta_slow}) must be below its "
            f"beta_fast ({scaling.beta_fast})"
        )

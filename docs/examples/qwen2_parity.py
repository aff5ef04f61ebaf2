"""Two models to compare with ``apr parity``: Hugging Face's Qwen2 with random weights, and one written by hand.

The hand-written one, as ``build_candidate``, has a bug: its attention maps query head h to key/value head ``h % G``
instead of ``h // (H / G)``. ``build_fixed`` has not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2Config, Qwen2ForCausalLM

CONFIG = Qwen2Config(
    vocab_size=257,
    hidden_size=84,
    intermediate_size=120,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=14,
    max_position_embeddings=512,
    rms_norm_eps=1e-6,
    rope_parameters={"rope_type": "default", "rope_theta": 7e4},
    tie_word_embeddings=False,
    use_cache=False,  # the reference must not remember its calls
    attn_implementation="eager",
)


def build_reference() -> nn.Module:
    """The right one, with weights on which mistakes show: gains unlike 1, biases unlike 0."""
    model = Qwen2ForCausalLM(CONFIG)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            parameter.data = 1 + 0.3 * noise
        elif name.endswith("bias"):
            parameter.data = 0.5 * noise
        else:
            parameter.data = noise if "embed" in name else 1.5 * noise / parameter.shape[-1] ** 0.5
    return model


def build_candidate() -> nn.Module:
    """The one in question, with the same weights under its own names."""
    return _loaded(Decoder(wrong_heads=True))


def build_fixed() -> nn.Module:
    """The same without the bug."""
    return _loaded(Decoder(wrong_heads=False))


class RMSNorm(nn.Module):
    """``gain x / sqrt(mean(x^2) + eps)``, in float32 inside."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(CONFIG.hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        """x_BTD to x_BTD."""
        up = x.float()
        return (up * torch.rsqrt(up.square().mean(-1, keepdim=True) + CONFIG.rms_norm_eps) * self.weight.float()).to(x)


class Attention(nn.Module):
    """Causal grouped-query attention with biases on q, k and v, and half-split RoPE of its own."""

    def __init__(self, wrong_heads: bool) -> None:
        super().__init__()
        heads, groups, width = CONFIG.num_attention_heads, CONFIG.num_key_value_heads, CONFIG.head_dim
        self.q = nn.Linear(CONFIG.hidden_size, heads * width)
        self.k = nn.Linear(CONFIG.hidden_size, groups * width)
        self.v = nn.Linear(CONFIG.hidden_size, groups * width)
        self.o = nn.Linear(heads * width, CONFIG.hidden_size, bias=False)
        head = torch.arange(heads)
        self.group = head % groups if wrong_heads else head // (heads // groups)

    def forward(self, x: Tensor) -> Tensor:
        """x_BTD to x_BTD, over all positions in order."""
        q, k, v = (p(x).unflatten(-1, (-1, CONFIG.head_dim)).transpose(1, 2) for p in (self.q, self.k, self.v))
        q, k = rotated(q), rotated(k)
        out = functional.scaled_dot_product_attention(q, k[:, self.group], v[:, self.group], is_causal=True)
        return self.o(out.transpose(1, 2).flatten(-2))


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(CONFIG.hidden_size, CONFIG.intermediate_size, bias=False)
        self.up = nn.Linear(CONFIG.hidden_size, CONFIG.intermediate_size, bias=False)
        self.down = nn.Linear(CONFIG.intermediate_size, CONFIG.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x_BTD to x_BTD."""
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """One pre-norm layer."""

    def __init__(self, wrong_heads: bool) -> None:
        super().__init__()
        self.attention_norm, self.attention = RMSNorm(), Attention(wrong_heads)
        self.mlp_norm, self.mlp = RMSNorm(), MLP()

    def forward(self, x: Tensor) -> Tensor:
        """x_BTD to x_BTD."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Decoder(nn.Module):
    """Tokens to logits."""

    def __init__(self, wrong_heads: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(CONFIG.vocab_size, CONFIG.hidden_size)
        self.blocks = nn.ModuleList(Layer(wrong_heads) for _ in range(CONFIG.num_hidden_layers))
        self.norm = RMSNorm()
        self.head = nn.Linear(CONFIG.hidden_size, CONFIG.vocab_size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens_BT to logits_BTV."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def rotated(x: Tensor) -> Tensor:
    """RoPE of x_BHTC at positions 0 to T - 1, angles in float64."""
    width = x.shape[-1]
    frequency = CONFIG.rope_parameters["rope_theta"] ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(x.shape[2], dtype=torch.float64)[:, None] * frequency
    cos, sin = (torch.cat((table, table), -1).float() for table in (angle.cos(), angle.sin()))
    up = x.float()
    a, b = up.chunk(2, -1)
    return (up * cos + torch.cat((-b, a), -1) * sin).to(x.dtype)


NAMES = {
    "self_attn.q_proj": "attention.q",
    "self_attn.k_proj": "attention.k",
    "self_attn.v_proj": "attention.v",
    "self_attn.o_proj": "attention.o",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "mlp_norm",
    "mlp.gate_proj": "mlp.gate",
    "mlp.up_proj": "mlp.up",
    "mlp.down_proj": "mlp.down",
    "model.embed_tokens": "embed",
    "model.norm": "norm",
    "lm_head": "head",
    "model.layers": "blocks",
}


def _loaded(model: Decoder) -> Decoder:
    """With the reference's weights."""
    weights = {}
    for name, tensor in build_reference().state_dict().items():
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        weights[name] = tensor
    model.load_state_dict(weights)
    return model

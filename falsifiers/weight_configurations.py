"""Configurations that differ in one field each, as every format writes them, and files that leave a key out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from aprender.transformer.config import LinearScaling, Llama3Scaling, TransformerConfig, YarnScaling
from falsifiers import weight_apr, weight_gguf
from falsifiers.weight_checkpoints import LLAMA, MISTRAL, QWEN2, QWEN3, config_json, new_config_json, write_folder

_YARN = YarnScaling(4.0, 24.0, 2.0, 1.138629436111989, True, 4096)  # 0.1 ln 4 + 1
_BASE = replace(QWEN2, num_hidden_layers=4, windows=(None,) * 4)

# One at least for every field of TransformerConfig, and for every form that a field has.
VARIANTS = [
    _BASE,
    LLAMA,
    MISTRAL,
    replace(MISTRAL, windows=(None, None)),
    QWEN3,
    replace(_BASE, vocab_size=311),
    replace(_BASE, hidden_size=52),
    replace(_BASE, intermediate_size=92),
    replace(_BASE, num_hidden_layers=3, windows=(None,) * 3),
    replace(_BASE, num_attention_heads=4),
    replace(_BASE, num_key_value_heads=3),
    replace(_BASE, head_dim=12),
    replace(_BASE, rms_norm_eps=7e-6),
    replace(_BASE, rope_theta=77_000.0),
    replace(_BASE, tie_word_embeddings=True),
    replace(_BASE, windows=(None, None, 9, 9)),
    replace(QWEN3, windows=(None, 5, 5)),
    replace(LLAMA, rope_scaling=LinearScaling(2.5)),
    replace(_BASE, rope_scaling=_YARN),
    replace(LLAMA, rope_scaling=Llama3Scaling(32.0, 1.0, 4.0, 8192)),
]
# Keys without which nobody can know what the model computes.
_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
_NEEDED_JSON = (*_NEEDED, "vocab_size", "rms_norm_eps", "rope_theta", "tie_word_embeddings", "hidden_act", "model_type")
_NEEDED_GGUF = (
    *("embedding_length", "feed_forward_length", "block_count", "attention.head_count"),
    *("attention.head_count_kv", "attention.layer_norm_rms_epsilon", "rope.freq_base"),
)
_NEEDED_APR = (
    *("architecture", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads"),
    *("vocab_size", "rms_norm_eps", "rope_theta", "head_dim", "rope_type"),
)


@dataclass(frozen=True)
class Stated:
    """A file and the configuration that it states; None where it leaves out something needed."""

    path: Path
    config: TransformerConfig | None


def write_configurations(folder: Path) -> Iterator[Stated]:
    """Every variant in every format that can say it, and every omission."""
    folder.mkdir()
    for index, config in enumerate(VARIANTS):
        for form, values in (("old", config_json(config)), ("new", new_config_json(config))):
            yield Stated(_folder(folder / f"{form}-{index}", values, config), config)
        yield Stated(_apr(folder / f"{index}.apr", weight_apr.apr_metadata(config), config), config)
        if (stated := _in_gguf(config)) is not None:
            yield Stated(_gguf(folder / f"{index}.gguf", config), stated)
    defined = {key: value for key, value in config_json(replace(LLAMA, head_dim=8)).items() if key != "head_dim"}
    of_its_own = replace(LLAMA, hidden_size=48, head_dim=8)  # Hugging Face defines an absent head_dim as the quotient
    yield Stated(_folder(folder / "head-dim", defined | {"hidden_size": 48}, of_its_own), of_its_own)
    yield from _omissions(folder)


def _omissions(folder: Path) -> Iterator[Stated]:
    for key in _NEEDED_JSON:
        yield Stated(_folder(folder / f"no-{key}", _without(config_json(_BASE), key), _BASE), None)
    for key in ("head_dim", "sliding_window"):
        config = QWEN3 if key == "head_dim" else MISTRAL
        yield Stated(_folder(folder / f"no-{key}", _without(config_json(config), key), config), None)
    new = new_config_json(_BASE)
    for key in ("rope_theta", "rope_type"):
        values = new | {"rope_parameters": _without(new["rope_parameters"], key)}
        yield Stated(_folder(folder / f"no-new-{key}", values, _BASE), None)
    for key in _NEEDED_GGUF:
        yield Stated(_gguf(folder / f"no-{key}.gguf", _BASE, without=key), None)
    for key in _NEEDED_APR:
        yield Stated(_apr(folder / f"no-{key}.apr", _without(weight_apr.apr_metadata(_BASE), key), _BASE), None)


def _without(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}


def _tensors(config: TransformerConfig) -> dict[str, torch.Tensor]:
    """As many as there are layers, or the number of layers would be refused; and what says that nothing is tied."""
    few = {name: torch.zeros(1) for name in list(config.tensor_shapes())[1 : config.num_hidden_layers + 1]}
    head = {} if config.tie_word_embeddings else {"lm_head.weight": torch.zeros(1)}
    return {"model.embed_tokens.weight": torch.zeros(config.vocab_size, 1), **few, **head}


def _folder(path: Path, values: Mapping[str, Any], config: TransformerConfig) -> Path:
    return write_folder(path, values, _tensors(config))


def _apr(path: Path, metadata: Mapping[str, Any], config: TransformerConfig) -> Path:
    return weight_apr.write_apr(path, metadata, weight_apr.apr_floats(_tensors(config)))


def _gguf(path: Path, config: TransformerConfig, without: str = "") -> Path:
    return weight_gguf.write_gguf(path, config, _tensors(config), without=without)


def _in_gguf(config: TransformerConfig) -> TransformerConfig | None:
    """As a GGUF file states it, whose numbers are float32; None where no key says which layers have a window."""
    if config.family != "mistral" and config.windows != (None,) * config.num_hidden_layers:
        return None
    eps, theta = torch.tensor([config.rms_norm_eps, config.rope_theta], dtype=torch.float32).tolist()
    family = "llama" if config.windows[0] is None and config.family == "mistral" else config.family
    return replace(config, family=family, rms_norm_eps=eps, rope_theta=theta)

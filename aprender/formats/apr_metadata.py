"""Metadata of .apr files <-> TransformerConfig and what else a checkpoint states.

The format's own keys are under the format's own names. What it has no key for is stored under Hugging Face's names:
tie_word_embeddings, sliding_window and layer_types, and rope_scaling.
"""

from __future__ import annotations

from collections.abc import Mapping

from aprender.errors import FormatError
from aprender.formats.fields import Fields
from aprender.formats.huggingface import config_from_values
from aprender.formats.usage import Usage
from aprender.transformer.config import TransformerConfig

ADJACENT_PAIRS, HALF_SPLIT = 0, 2  # rope_type
TOKENIZER_KEY = "tokenizer.huggingface.json"

# Both names of a key are read; the first is written.
_ALIASES = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
}

_KNOWN = {"architecture", "vocab_size", "hidden_size", "intermediate_size", "head_dim", "rms_norm_eps", "rope_theta"}
_KNOWN |= {"rope_type", "rope_scaling", "max_position_embeddings", "sliding_window", "layer_types", "quantization"}
_KNOWN |= {"use_sliding_window", "max_window_layers", "tie_word_embeddings", "chat_template", *_ALIASES}
_KNOWN |= {*_ALIASES.values(), TOKENIZER_KEY, *(f"tokenizer.{key}" for key in ("vocabulary", "merges"))}
_KNOWN |= {"tokenizer.bos_token_id", "tokenizer.eos_token_id"}


def is_known(key: str) -> bool:
    """Whether anything here reads the metadata's ``key``."""
    return key in _KNOWN


def config_from_metadata(where: str, metadata: Mapping[str, object], *, has_head: bool) -> TransformerConfig:
    """The configuration that an .apr file's metadata state.

    ``has_head`` says whether lm_head.weight is in the file: as in GGUF, that decides about tied embeddings where
    tie_word_embeddings is absent. head_dim is never derived: files exist that were written for readers which ignore
    it. Raises FormatError, naming every missing key, wrong type and unsupported feature at once.
    """
    values = dict(metadata)
    for ours, theirs in _ALIASES.items():
        if values.get(theirs) is None:
            values[theirs] = values.get(ours)
        elif values.get(ours) not in (None, values[theirs]):
            raise FormatError(f"{where}: {ours} and {theirs} differ: only one can be right")
    values["model_type"] = str(values.get("architecture")).lower() if values.get("architecture") else None
    values.setdefault("hidden_act", "silu")  # the format has no other
    if values.get("tie_word_embeddings") is None:
        values["tie_word_embeddings"] = not has_head
    if values.get("head_dim") is None:
        raise FormatError(f"{where}: missing head_dim; convert the model again with a program that states it")
    return config_from_values(where, values)


def is_interleaved(where: str, metadata: Mapping[str, object]) -> bool:
    """Whether RoPE rotates adjacent pairs of the rows as stored. Raises FormatError where rope_type doesn't say."""
    fields = Fields(where, metadata)
    kind = fields.integer("rope_type")
    if "rope_type" in fields and kind not in (ADJACENT_PAIRS, HALF_SPLIT):
        fields.refuse(f"rope_type is {kind}, only {ADJACENT_PAIRS} and {HALF_SPLIT} are known")
    fields.check()
    return kind == ADJACENT_PAIRS


def usage_from_metadata(where: str, metadata: Mapping[str, object]) -> Usage:
    """What an .apr file's metadata say of special tokens and prompts. Raises FormatError for values of a wrong type."""
    fields = Fields(where, metadata)
    eos = metadata.get("tokenizer.eos_token_id")
    usage = Usage(
        context_length=fields.integer("max_position_embeddings") if "max_position_embeddings" in fields else None,
        bos_id=fields.integer("tokenizer.bos_token_id") if "tokenizer.bos_token_id" in fields else None,
        eos_ids=() if eos is None else _ids(fields, eos),
        chat_template=fields.text("chat_template") if "chat_template" in fields else None,
    )
    fields.check()
    return usage


def _ids(fields: Fields, value: object) -> tuple[int, ...]:
    key = "tokenizer.eos_token_id"
    return tuple(fields.integers(key)) if isinstance(value, list) else (fields.integer(key),)

"""What a checkpoint says about its use, beside its mathematics: context length, special tokens, chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aprender.errors import FormatError
from aprender.formats.fields import Fields
from aprender.formats.files import read_file
from aprender.formats.json_text import read_json_object

GENERATION, TOKENIZER_CONFIG, TEMPLATE = "generation_config.json", "tokenizer_config.json", "chat_template.jinja"
OPTIONAL_FILES = (GENERATION, TOKENIZER_CONFIG, TEMPLATE)
_MAX_TEMPLATE = 1 << 20


@dataclass(frozen=True, slots=True)
class Usage:
    """None, or an empty tuple, where the checkpoint doesn't say. Nothing is computed from these but generation."""

    context_length: int | None
    bos_id: int | None
    eos_ids: tuple[int, ...]
    chat_template: str | None


def folder_usage(folder: Path) -> Usage:
    """Of a Hugging Face folder: generation_config.json counts before config.json, chat_template.jinja before the other.

    Raises FormatError where one of them is there but can't be read.
    """
    config = folder / "config.json"
    stated = read_json_object(config)
    if (folder / GENERATION).exists():
        stated |= {key: value for key, value in read_json_object(folder / GENERATION).items() if value is not None}
    fields = Fields(str(config), stated)
    eos = stated.get("eos_token_id")
    usage = Usage(
        context_length=_optional(fields, "max_position_embeddings"),
        bos_id=_optional(fields, "bos_token_id"),
        eos_ids=tuple(fields.integers("eos_token_id")) if isinstance(eos, list) else _at_most_one(fields),
        chat_template=_folder_template(folder),
    )
    fields.check()
    return usage


def gguf_usage(where: str, metadata: Mapping[str, object], family: str) -> Usage:
    """Of a GGUF file; end of turn counts as end of sequence, too. Raises FormatError for values of a wrong type."""
    fields = Fields(where, metadata)
    ends = (_optional(fields, f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot"))
    usage = Usage(
        context_length=_optional(fields, f"{family}.context_length"),
        bos_id=_optional(fields, "tokenizer.ggml.bos_token_id"),
        eos_ids=tuple(dict.fromkeys(id_ for id_ in ends if id_ is not None)),
        chat_template=fields.text("tokenizer.chat_template") if "tokenizer.chat_template" in fields else None,
    )
    fields.check()
    return usage


def _optional(fields: Fields, key: str) -> int | None:
    return fields.integer(key) if key in fields else None


def _at_most_one(fields: Fields) -> tuple[int, ...]:
    return (fields.integer("eos_token_id"),) if "eos_token_id" in fields else ()


def _folder_template(folder: Path) -> str | None:
    if (folder / TEMPLATE).exists():
        try:
            return read_file(folder / TEMPLATE, _MAX_TEMPLATE).decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{folder / TEMPLATE}: isn't UTF-8; fetch the file again") from error
    if not (folder / TOKENIZER_CONFIG).exists():
        return None
    template = read_json_object(folder / TOKENIZER_CONFIG).get("chat_template")
    if isinstance(template, list):  # several by name: the one for plain conversations
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None

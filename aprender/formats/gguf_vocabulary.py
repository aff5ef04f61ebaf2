"""A tokenizer.json as GGUF's lists, where GGUF can say the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, models

from aprender.errors import FormatError
from aprender.formats.gguf_tokenizer import CONTROL, NORMAL, PRE_TOKENIZERS, UNUSED, USER_DEFINED


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """``tokens`` by id, their GGUF ``types``, ``merges`` with one blank, and ``pre``, the name of how text is split."""

    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]


def vocabulary_of(tokenizer: Tokenizer, size: int) -> Vocabulary:
    """The lists that ``gguf_tokenizer`` makes a tokenizer with the same ids from; ids up to ``size`` are filled up.

    Raises FormatError, saying why, for a tokenizer that GGUF can't describe.
    """
    described = json.loads(tokenizer.to_str())
    model = described["model"]
    if model["type"] != "BPE" or model.get("ignore_merges") or model.get("byte_fallback") or model.get("unk_token"):
        raise FormatError("GGUF can hold the tokenizer only where it is a plain byte-level BPE")
    _refuse_added_text(described)
    pre = _pre_tokenizer(described)
    by_id: dict[int, str] = {id_: token for token, id_ in tokenizer.get_vocab(with_added_tokens=True).items()}
    types = dict.fromkeys(by_id, NORMAL)
    for token in described["added_tokens"]:
        if token["lstrip"] or token["rstrip"] or token["single_word"] or token["normalized"]:
            raise FormatError(f"GGUF can't say how the tokenizer's token {token['content']!r} takes its surroundings")
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    tokens = [by_id.get(id_, f"[PAD{id_}]") for id_ in range(max(size, max(by_id, default=-1) + 1))]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return Vocabulary(pre, tokens, [types.get(id_, UNUSED) for id_ in range(len(tokens))], merges)


def _refuse_added_text(described: dict[str, Any]) -> None:
    processor = described["post_processor"]
    if processor is not None and processor["type"] != "ByteLevel":  # byte-level ones move offsets only
        raise FormatError("GGUF can't say which tokens the tokenizer adds to a text")


def _pre_tokenizer(described: dict[str, Any]) -> str:
    """The name of the split among those that ``gguf_tokenizer`` knows."""
    for name, build in PRE_TOKENIZERS.items():
        known = Tokenizer(models.BPE())
        build(known)
        same = json.loads(known.to_str())
        parts = ("normalizer", "pre_tokenizer")
        if all(_without_offsets(described[part]) == _without_offsets(same[part]) for part in parts):
            return name
    raise FormatError(f"GGUF can hold the tokenizer only where it splits text as {' or '.join(PRE_TOKENIZERS)} do")


def _without_offsets(part: Any) -> Any:
    """``trim_offsets`` says where a token lies in the text, not which it is."""
    if isinstance(part, dict):
        return {key: _without_offsets(value) for key, value in part.items() if key != "trim_offsets"}
    return [_without_offsets(entry) for entry in part] if isinstance(part, list) else part

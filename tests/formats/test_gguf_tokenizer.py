"""Tokenizers rebuilt from GGUF metadata."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer

from aprender.errors import FormatError
from aprender.formats.gguf_tokenizer import tokenizer_from_metadata
from tests.formats.tiny_checkpoints import MERGES, QWEN2, TOKEN_TYPES, TOKENS, gguf_metadata


def build(**changes: Any) -> Tokenizer:
    values = gguf_metadata(QWEN2) | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    return tokenizer_from_metadata("m.gguf", values)


def tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    return tokenizer.encode(text).tokens


def refusal(**changes: Any) -> str:
    with pytest.raises(FormatError) as caught:
        build(**changes)
    assert str(caught.value).startswith("m.gguf: ")
    return str(caught.value)


@pytest.mark.parametrize("pre", ["qwen2", "smollm"])
def test_ids_are_positions_and_merges_apply(pre: str) -> None:
    """Merges are applied in order, and ids are positions in the file's list of tokens."""
    encoding = build(pre=pre).encode("hello")
    assert encoding.tokens == ["hello"]
    assert encoding.ids == [TOKENS.index("hello")]


@pytest.mark.parametrize("pre", ["qwen2", "smollm"])
@pytest.mark.parametrize("text", ["hello\tworld\r\n\n", "中文 🙂 \x00\x7f", "  12  x", "<|end|>a<tool>", "é"])
def test_decoding_undoes_encoding(pre: str, text: str) -> None:
    """Any text comes back byte for byte, control characters and special tokens included."""
    tokenizer = build(pre=pre)
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("pre", ["qwen2", "smollm"])
def test_special_tokens_in_text(pre: str) -> None:
    """Control and user-defined tokens are cut out of the text; only control tokens count as special."""
    tokenizer = build(pre=pre)
    assert tokens(tokenizer, "a<|end|>b<tool>") == ["a", "<|end|>", "b", "<tool>"]
    assert tokenizer.decode(tokenizer.encode("a<|end|>b<tool>").ids) == "ab<tool>"
    assert tokenizer.get_vocab_size() == len(TOKENS)


def test_digits_stand_alone() -> None:
    """Neither split lets the merges join two digits or, for smollm, a space and a digit."""
    assert tokens(build(pre="qwen2"), "12") == ["1", "2"]
    assert tokens(build(pre="smollm"), "12") == ["1", "2"]
    assert tokens(build(pre="smollm"), " 1") == ["Ġ", "1"]


def test_spaces_before_a_digit() -> None:
    """Smollm splits digits off first, so that both spaces before one stay together."""
    assert tokens(build(pre="smollm"), "  1") == ["ĠĠ", "1"]


def test_qwen2_composes_characters() -> None:
    """Qwen2 normalizes to NFC: e and a combining accent are encoded as é."""
    assert build(pre="qwen2").encode("e\u0301").ids == build(pre="qwen2").encode("\u00e9").ids
    assert build(pre="smollm").encode("e\u0301").ids != build(pre="smollm").encode("\u00e9").ids


def test_contractions_and_line_breaks() -> None:
    """Qwen2's split ignores case in contractions and keeps line breaks with the punctuation before them."""
    words = build(pre="qwen2").pre_tokenizer.pre_tokenize_str("IT'S so.\n\n  x")
    assert [word for word, _ in words] == ["IT", "'S", "Ġso", ".ĊĊ", "Ġ", "Ġx"]


@pytest.mark.parametrize("model", ["llama", "bert", None, ["gpt2"]])
def test_other_kinds_are_refused_by_name(model: Any) -> None:
    """SentencePiece and other tokenizers aren't rebuilt."""
    assert f"is of kind {model!r}, only gpt2 is supported" in refusal(model=model)


def test_other_pre_tokenizers_are_refused_by_name() -> None:
    """An unknown split would give other ids: it's refused, not replaced by a common one."""
    assert "tokenizer.ggml.pre is 'llama-bpe'; supported are gpt-2, qwen2, smollm" in refusal(pre="llama-bpe")


@pytest.mark.parametrize("key", ["add_bos_token", "add_eos_token", "add_space_prefix"])
def test_added_tokens_are_refused(key: str) -> None:
    """A tokenizer that adds to the text is refused; one that says it doesn't is not."""
    assert f"tokenizer.ggml.{key} is true" in refusal(**{key: True})
    assert tokens(build(**{key: False}), "hello") == ["hello"]


def test_all_missing_metadata_is_named() -> None:
    """Every absent list is named in one message."""
    message = refusal(pre=None, tokens=None, merges=None, token_type=None)
    for key in ("pre", "tokens", "merges", "token_type"):
        assert f"tokenizer.ggml.{key}" in message


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"tokens": [*TOKENS[:-1], TOKENS[0]]}, "holds a token twice"),
        ({"token_type": TOKEN_TYPES[:-1]}, "entries for"),
        ({"merges": [*MERGES, "h"]}, "isn't two tokens"),
        ({"merges": [*MERGES, "h e l"]}, "isn't two tokens"),
        ({"merges": [*MERGES, "z z"]}, "doesn't fit the tokens"),
        ({"tokens": [1, 2]}, "must be a list of strings"),
        ({"token_type": ["a"]}, "must be a list of whole numbers"),
        ({"merges": "h e"}, "must be a list of strings"),
    ],
)
def test_lists_that_do_not_fit_are_refused(changes: dict[str, Any], part: str) -> None:
    """Lists of wrong type, length or content are refused with the list's name."""
    assert part in refusal(**changes)

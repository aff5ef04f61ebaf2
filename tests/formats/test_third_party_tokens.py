"""Token ids are the third party's, on 5,000 texts, from tokenizer.json and from GGUF's lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aprender.formats import load_checkpoint
from falsifiers import weight_gguf
from falsifiers.weight_checkpoints import QWEN2, config_json, seeded, write_folder
from falsifiers.weight_tokenizer import gguf_lists, texts

transformers = pytest.importorskip("transformers")

TEXTS = texts(5000)


def equal_ids(path: Path, theirs: Any) -> int:
    tokenizer = load_checkpoint(path).tokenizer
    return sum(tokenizer.encode(text, add_special_tokens=False).ids == theirs(text) for text in TEXTS)


def test_from_tokenizer_json(tmp_path: Path) -> None:
    """A folder's ids are those of transformers' AutoTokenizer on the same folder."""
    folder = write_folder(tmp_path / "model", config_json(QWEN2), seeded(QWEN2))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert equal_ids(folder, lambda text: theirs.encode(text, add_special_tokens=False)) == len(TEXTS)


def test_from_gguf(tmp_path: Path) -> None:
    """A qwen2 GGUF's ids are those of transformers' own Qwen2Tokenizer over the same tokens and merges."""
    path = weight_gguf.write_gguf(tmp_path / "m.gguf", QWEN2, seeded(QWEN2))
    tokens, types, merges = gguf_lists()
    vocab = {token: index for index, token in enumerate(tokens)}
    theirs = transformers.Qwen2Tokenizer(vocab=vocab, merges=[tuple(merge.split(" ")) for merge in merges])
    theirs.add_tokens(
        [
            transformers.AddedToken(token, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind > 1
        ]
    )
    assert equal_ids(path, lambda text: theirs.encode(text, add_special_tokens=False)) == len(TEXTS)

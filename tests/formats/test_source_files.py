"""Which files a checkpoint consists of, and what is refused before anything heavy is imported."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aprender.errors import FormatError
from aprender.formats import load_checkpoint, sha256_of, source_files
from tests.formats.tiny_checkpoints import (
    LLAMA,
    QWEN2,
    gguf_metadata,
    gguf_tensors,
    random_tensors,
    write_folder,
    write_gguf,
)


def refusal(path: Path) -> str:
    """The message, which loading and listing share."""
    with pytest.raises(FormatError) as caught:
        source_files(path)
    with pytest.raises(FormatError) as again:
        load_checkpoint(path)
    assert str(caught.value) == str(again.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_heavy_is_imported() -> None:
    """Digests of a checkpoint's files need neither torch nor numpy nor tokenizers."""
    code = (
        "import sys, aprender.formats, aprender.formats.huggingface; "
        "sys.exit(str({'torch', 'numpy', 'tokenizers', 'safetensors', 'gguf'} & set(sys.modules)) != 'set()')"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_gives_its_three_files(tmp_path: Path) -> None:
    """Configuration, weights and tokenizer are listed, other files aren't."""
    folder = write_folder(tmp_path / "model", QWEN2, random_tensors(QWEN2))
    (folder / "README.md").write_text("unused")
    assert source_files(folder) == tuple(
        folder / name for name in ("config.json", "model.safetensors", "tokenizer.json")
    )


def test_a_gguf_file_is_known_by_its_magic(tmp_path: Path) -> None:
    """The first bytes decide, not the suffix."""
    path = tmp_path / "blob"
    write_gguf(path, "qwen2", gguf_metadata(QWEN2), gguf_tensors(random_tensors(QWEN2)))
    assert source_files(path) == (path,)
    assert load_checkpoint(path).config.family == "qwen2"


def test_digests_are_of_the_bytes(tmp_path: Path) -> None:
    """The checkpoint's sha256 maps each file's name to the digest of its bytes."""
    folder = write_folder(tmp_path / "model", LLAMA, random_tensors(LLAMA))
    expected = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert load_checkpoint(folder).sha256 == expected
    with pytest.raises(FormatError, match="no such file"):
        sha256_of(tmp_path / "absent")


def test_missing_path(tmp_path: Path) -> None:
    """A path that leads nowhere is said to."""
    assert "no such file or folder" in refusal(tmp_path / "absent")


def test_name_too_long(tmp_path: Path) -> None:
    """A path that the system refuses to look up is refused like a missing one."""
    assert "can't be read" in refusal(tmp_path / ("x" * 5000))


def test_neither_file_nor_folder(tmp_path: Path) -> None:
    """A pipe is refused, not waited on."""
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a folder" in refusal(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["model.gguf", "model.bin", "model"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    """An empty file is said to be empty, whatever its name."""
    (tmp_path / name).touch()
    assert "is empty" in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("model.gguf", b"GGML1234", "does not begin with the bytes GGUF"),
        ("model.safetensors", b"\x10\0\0\0\0\0\0\0{}", "give the folder"),
        ("notes.txt", b"some text", "is no known model file"),
        ("model.bin", b"other bytes", "looks like pickled weights"),
        ("x", b"G", "is no known model file"),
    ],
)
def test_wrong_magic(tmp_path: Path, name: str, content: bytes, part: str) -> None:
    """A file that begins with other bytes is refused with what to give instead."""
    (tmp_path / name).write_bytes(content)
    assert part in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "renamed.gguf", "model"])
@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_pickles_are_refused_unopened(tmp_path: Path, name: str, writer: str) -> None:
    """Pickled weights are refused by magic or by suffix, with the reason and the way out."""
    if writer == "torch":
        torch.save({"a": torch.ones(2)}, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps({"a": 1}))
    message = refusal(tmp_path / name)
    assert "can run any code" in message
    assert "convert it to safetensors" in message


def test_every_missing_file_of_a_folder_is_named(tmp_path: Path) -> None:
    """An empty folder lacks three files, and all three are named."""
    message = refusal(tmp_path)
    assert "has no config.json and no model.safetensors and no tokenizer.json" in message


@pytest.mark.parametrize(
    ("missing", "present", "part"),
    [
        ("config.json", "model.Q4_0.gguf", "give the file itself"),
        ("model.safetensors", "pytorch_model.bin", "pickled weights"),
        ("tokenizer.json", "tokenizer.model", "convert it to tokenizer.json"),
        ("tokenizer.json", "vocab.json", "has no tokenizer.json; a model folder holds"),
    ],
)
def test_a_missing_file_comes_with_what_to_do(tmp_path: Path, missing: str, present: str, part: str) -> None:
    """The hint fits what lies in the folder in the missing file's place."""
    folder = write_folder(tmp_path / "model", QWEN2, random_tensors(QWEN2))
    (folder / missing).unlink()
    (folder / present).write_bytes(b"x")
    message = refusal(folder)
    assert f"has no {missing}" in message
    assert part in message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_empty_file_of_a_folder(tmp_path: Path, name: str) -> None:
    """An interrupted download often leaves an empty file: it's named."""
    folder = write_folder(tmp_path / "model", QWEN2, random_tensors(QWEN2))
    (folder / name).write_bytes(b"")
    assert f"{folder / name}: is empty" in refusal(folder)

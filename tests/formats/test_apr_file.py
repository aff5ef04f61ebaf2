""".apr files: layout byte by byte, checksums, flags, dtypes of their own, and what they must say."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aprender.errors import FormatError
from aprender.formats import load_checkpoint
from aprender.formats.apr_header import read_header
from aprender.formats.apr_write import metadata_values, write_apr
from aprender.formats.usage import Usage
from falsifiers import weight_apr
from tests.formats.tiny_checkpoints import LLAMA, QWEN2, random_tensors, tiny_tokenizer

Edit = Callable[[bytearray], bytearray]
USAGE = Usage(context_length=99, bos_id=3, eos_ids=(4, 5), chat_template="{{ x }}")


def metadata(**changed: Any) -> dict[str, Any]:
    values = metadata_values(QWEN2, USAGE, tiny_tokenizer().to_str()) | changed
    return {key: value for key, value in values.items() if value is not ...}


def write(tmp_path: Path, edit: Edit = lambda content: content, *, sums: bool = True, **changed: Any) -> Path:
    """A sound file, edited, with both checksums set right afterwards unless ``sums`` is false."""
    path = weight_apr.write_apr(tmp_path / "m.apr", metadata(**changed), weight_apr.apr_floats(random_tensors(QWEN2)))
    content = edit(bytearray(path.read_bytes()))
    if sums:
        content[40:44] = struct.pack("<I", zlib.crc32(content[44:64], zlib.crc32(content[:40])))
        content[-4:] = struct.pack("<I", zlib.crc32(content[:-4]))
    path.write_bytes(content)
    return path


def put(at: int, form: str, value: int) -> Edit:
    def edit(content: bytearray) -> bytearray:
        content[at : at + struct.calcsize(form)] = struct.pack(form, value)
        return content

    return edit


def refusal(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip(tmp_path: Path) -> None:
    """Configuration, use, tokenizer and every bit of every dtype come back."""
    dtypes = (torch.bfloat16, torch.float32, torch.float16)
    tensors = {name: tensor.to(dtypes[index % 3]) for index, (name, tensor) in enumerate(random_tensors(QWEN2).items())}
    path = weight_apr.write_apr(tmp_path / "m.apr", metadata(), weight_apr.apr_floats(tensors))
    checkpoint = load_checkpoint(path)
    assert checkpoint.config == QWEN2
    assert checkpoint.usage == USAGE
    assert all(torch.equal(checkpoint.tensors[name], tensors[name]) for name in tensors)
    assert all(checkpoint.tensors[name].dtype == tensors[name].dtype for name in tensors)
    assert checkpoint.tokenizer.to_str() == tiny_tokenizer().to_str()


def test_the_writer_writes_the_layout(tmp_path: Path) -> None:
    """What is written is byte for byte what the layout by hand gives, checksums included."""
    tensors = random_tensors(LLAMA, torch.bfloat16)
    by_hand = weight_apr.write_apr(tmp_path / "hand.apr", {"a": "é"}, weight_apr.apr_floats(tensors))
    written = tmp_path / "written.apr"
    raw = {name: tensor.reshape(-1).view(torch.uint8).numpy().data for name, tensor in tensors.items()}
    table = {name: ("BF16", tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_apr(written, {"a": "é"}, table, lambda name: raw[name])
    header = read_header(written)
    assert header.metadata == {"a": "é"}
    assert [entry.name for entry in header.entries] == sorted(tensors)
    assert all(entry.start % 64 == 0 for entry in header.entries)
    by_hand_json, written_json = json.dumps({"a": "é"}).encode(), json.dumps({"a": "é"}, ensure_ascii=False).encode()
    same_text = by_hand.read_bytes().replace(by_hand_json, written_json.ljust(len(by_hand_json), b"\0"))
    assert written.read_bytes()[128:-4] == same_text[128:-4]


@pytest.mark.parametrize("head", [0, 1])
def test_rope_type_says_how_rows_are_ordered(tmp_path: Path, head: int) -> None:
    """Type 0 turns neighbouring rows: Q and K, biases too, are put into halves; type 2 has halves already."""
    tensors = random_tensors(QWEN2)
    name = ("model.layers.0.self_attn.q_proj.bias", "model.layers.1.self_attn.k_proj.weight")[head]
    halves = load_checkpoint(write(tmp_path)).tensors[name]
    assert torch.equal(halves, tensors[name])
    pairs = load_checkpoint(write(tmp_path, rope_type=0)).tensors[name]
    first_head = tensors[name][:10]
    assert torch.equal(pairs[:10], torch.cat([first_head[0::2], first_head[1::2]]))


def test_a_tied_head_may_be_an_empty_entry(tmp_path: Path) -> None:
    """Some writers leave an entry of no bytes in a tied head's place: the head is the embedding."""
    tensors = random_tensors(LLAMA)
    stored = weight_apr.apr_floats(tensors) | {"lm_head.weight": (0, (0,), b"")}
    path = weight_apr.write_apr(tmp_path / "m.apr", metadata_values(LLAMA, USAGE, tiny_tokenizer().to_str()), stored)
    checkpoint = load_checkpoint(path)
    assert checkpoint.head is checkpoint.tensors["model.embed_tokens.weight"]
    assert checkpoint.account.tensors_consumed == len(tensors) + 1


@pytest.mark.parametrize("has_head", [True, False])
def test_an_absent_tie_is_what_the_tensors_say(tmp_path: Path, has_head: bool) -> None:
    """As in GGUF, a file without tie_word_embeddings is tied when it has no lm_head.weight."""
    config = replace(QWEN2, tie_word_embeddings=not has_head)
    values = metadata_values(config, USAGE, tiny_tokenizer().to_str())
    del values["tie_word_embeddings"]
    path = weight_apr.write_apr(tmp_path / "m.apr", values, weight_apr.apr_floats(random_tensors(config)))
    assert load_checkpoint(path).config == config


@pytest.mark.parametrize("alias", [("num_layers", "num_hidden_layers"), ("num_kv_heads", "num_key_value_heads")])
def test_both_names_of_a_key_are_read(tmp_path: Path, alias: tuple[str, str]) -> None:
    """The format's name and Hugging Face's mean the same; both at once must agree."""
    ours, theirs = alias
    value = metadata()[ours]
    assert load_checkpoint(write(tmp_path, **{ours: ..., theirs: value})).config == QWEN2
    assert f"{ours} and {theirs} differ" in refusal(write(tmp_path, **{theirs: value + 1}))


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"head_dim": ...}, "missing head_dim"),
        ({"rope_type": ...}, "missing rope_type"),
        ({"rope_type": 1}, "rope_type is 1, only 0 and 2 are known"),
        ({"rope_theta": ..., "rms_norm_eps": ...}, "missing rms_norm_eps, rope_theta"),
        ({"architecture": ...}, "model_type is None"),
        ({"architecture": "mixtral"}, "mixture-of-experts"),
        ({"tokenizer.huggingface.json": ...}, "has None for a tokenizer"),
        ({"tokenizer.huggingface.json": "{}"}, "is no readable tokenizer"),
        ({"tokenizer.eos_token_id": "4"}, "must be a whole number"),
    ],
)
def test_what_a_file_must_say(tmp_path: Path, changed: dict[str, Any], part: str) -> None:
    """Nothing has a silent default."""
    assert part in refusal(write(tmp_path, **changed))


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (put(0, "<I", 0), "does not begin with the bytes APR"),
        (put(4, "<B", 1), "states .apr version 1.0"),
        (put(5, "<B", 1), "states .apr version 2.1"),
        (put(6, "<H", 1 << 10 | 1 << 0), "LZ4-compressed"),
        (put(6, "<H", 1 << 10 | 1 << 1), "Zstd-compressed"),
        (put(6, "<H", 1 << 10 | 1 << 2), "encrypted"),
        (put(6, "<H", 1 << 10 | 1 << 4), "one shard of several"),
        (put(6, "<H", 1 << 10 | 1 << 11), "column-major"),
        (put(6, "<H", 1 << 10 | 1 << 15), "not all of which are known"),
        (put(6, "<H", 0), "doesn't say that its tensors are row-major"),
        (put(8, "<I", 2**32 - 1), "its header states 4294967295 tensors"),
        (put(8, "<I", 1), "its index goes on after the last of 1 tensors"),
        (put(8, "<I", 400), "a name of 0 bytes"),
        (put(12, "<Q", 0), "its parts are said to begin at"),
        (put(12, "<Q", 2**63), "its parts are said to begin at"),
        (put(20, "<I", 2**32 - 1), "its parts are said to begin at"),
        (put(24, "<Q", 65), "its parts are said to begin at"),
        (put(32, "<Q", 2**64 - 64), "its parts are said to begin at"),
        (put(44, "<B", 1), "uses reserved bytes"),
    ],
)
def test_headers_that_can_not_be_right(tmp_path: Path, edit: Edit, part: str) -> None:
    """Magic, version, flags, counts and places are each checked, and the fault is named."""
    assert part in refusal(write(tmp_path, edit))


def test_both_checksums_are_verified(tmp_path: Path) -> None:
    """A flipped bit anywhere is found by one of them; a checksum of zero is no excuse."""
    size = write(tmp_path).stat().st_size
    for at in (7, 40, 50, 64, 200, size // 2, size - 70, size - 1):

        def flip(content: bytearray, at: int = at) -> bytearray:
            content[at] ^= 16
            return content

        assert "checksum" in refusal(write(tmp_path, flip, sums=False))
    assert "header's checksum is 00000000" in refusal(write(tmp_path, put(40, "<I", 0), sums=False))


def test_every_truncation_is_one_sentence(tmp_path: Path) -> None:
    """A file cut off anywhere is refused."""
    path = write(tmp_path)
    whole = path.read_bytes()
    for length in [*range(4, 70), *range(70, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert "truncated or corrupt" in refusal(path)


def test_an_index_out_of_order_is_refused(tmp_path: Path) -> None:
    """Entries are sorted by the bytes of their names, and no name stands twice."""
    path = write(tmp_path, lambda content: content.replace(b"model.norm", b"aodel.norm"))
    assert "its index isn't sorted by name" in refusal(path)


@pytest.mark.parametrize(("kind", "part"), [(77, "of the dtype 77, which isn't known"), (1, "dtype F16 has 128 bytes")])
def test_dtypes_are_held_against_sizes(tmp_path: Path, kind: int, part: str) -> None:
    """An unknown dtype isn't float32, and dims x dtype must be the stored size."""
    name = b"model.norm.weight"

    def edit(content: bytearray) -> bytearray:
        content[content.index(name) + len(name)] = kind
        return content

    assert part in refusal(write(tmp_path, edit))

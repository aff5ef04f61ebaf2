"""Headers of safetensors files: what the library accepts is accepted here, and nothing else; shards and their index."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open

from aprender.errors import FormatError
from aprender.formats import load_checkpoint, source_files
from aprender.formats.safetensors_header import INDEX, read_entries
from bench.mutations import mutated
from tests.formats.tiny_checkpoints import LLAMA, QWEN2, random_tensors, write_folder


def write(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        read_entries(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def entry(start: int = 0, end: int = 8, dtype: Any = "F32", shape: Any = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def by_the_library(path: Path) -> dict[str, tuple[str, list[int]]] | None:
    try:
        with safe_open(path, framework="pt") as file:
            views = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
            return {name: (view.get_dtype(), view.get_shape()) for name, view in views.items()}
    except SafetensorError:
        return None


def test_entries_are_the_librarys(tmp_path: Path) -> None:
    """Names, dtypes and shapes are those that the library reads."""
    path = write_folder(tmp_path / "model", QWEN2, random_tensors(QWEN2)) / "model.safetensors"
    assert {e.name: (e.dtype, list(e.shape)) for e in read_entries(path)} == by_the_library(path)


def test_what_the_library_refuses_is_refused(tmp_path: Path) -> None:
    """Over a thousand mutated files: whatever is read here, the library reads alike."""
    path = write_folder(tmp_path / "model", LLAMA, random_tensors(LLAMA)) / "model.safetensors"
    sound = path.read_bytes()
    draw = random.Random(5)  # noqa: S311 - mutations, not secrets
    read = 0
    for _ in range(1200):
        path.write_bytes(mutated(draw, sound, "safetensors"))
        try:
            entries = read_entries(path)
        except FormatError:
            continue
        read += 1
        assert {e.name: (e.dtype, list(e.shape)) for e in entries} == by_the_library(path)
    assert read > 10  # so the two were compared


@pytest.mark.parametrize(
    ("header", "data", "part"),
    [
        ({"a": entry(dtype="F77")}, bytes(8), "of the dtype 'F77', which isn't known"),
        ({"a": entry(dtype="Q4_K")}, bytes(8), "of the dtype 'Q4_K', which isn't known"),
        ({"a": entry(dtype=["F32"])}, bytes(8), "which isn't known"),
        ({"a": entry(shape=(-2,))}, bytes(8), "has the shape [-2]"),
        ({"a": entry(shape=(True, 2))}, bytes(8), "has the shape [True, 2]"),
        ({"a": entry(shape=(1,) * 9)}, bytes(8), "has the shape"),
        ({"a": entry(shape=(3,))}, bytes(8), "has 8 bytes, not 12"),
        ({"a": entry(end=2**63)}, bytes(8), "has the offsets"),
        ({"a": entry(8, 0)}, bytes(8), "has the offsets [8, 0]"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12), "the tensors a and b overlap"),
        ({"a": entry(0, 8)}, bytes(4), "said to lie at bytes"),
        ({"a": entry(0, 8)}, bytes(12), "has 12 bytes of data, 8 of them in tensors"),
        ({"a": entry(4, 12)}, bytes(12), "has 12 bytes of data, 8 of them in tensors"),
        ({"": entry()}, bytes(8), "a tensor has the name ''"),
        ({"a\nb": entry()}, bytes(8), "a tensor has the name 'a\\nb'"),
        ({"a": None}, b"", "is described by None"),
        ({"a": {**entry(), "extra": 1}}, bytes(8), "is described by"),
        ({"__metadata__": {"format": 1}}, b"", "__metadata__ is {'format': 1}"),
        (b'{"a": 1, "a": 2}', b"", "the key 'a' occurs twice"),
        (b" {}", b"", "isn't a JSON object"),
        (b"[]", b"", "isn't a JSON object"),
        (b'{"a":' + b"[" * 100_000, b"", "is not valid JSON"),
        (b"{" + b",".join(b'"%d":0' % i for i in range(3)), b"", "is not valid JSON"),
    ],
)
def test_headers_that_can_not_be_right(tmp_path: Path, header: object, data: bytes, part: str) -> None:
    """Dtypes, shapes, offsets, overlaps, gaps, names and JSON are each checked, and the fault is named."""
    assert part in refusal(write(tmp_path / "m.safetensors", header, data))


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_lengths_that_can_not_be_right(tmp_path: Path, length: int) -> None:
    """A header that is longer than the file, or empty, is refused before anything is read for it."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    assert "truncated or corrupt" in refusal(path)


def test_a_header_of_megabytes_is_not_parsed(tmp_path: Path) -> None:
    """No model has a header of more than 4 MiB; JSON of that size takes gigabytes."""
    assert "more than the 4194304 that are read" in refusal(write(tmp_path / "m.safetensors", b" " * (5 << 20)))


def test_shards_are_one_model(tmp_path: Path) -> None:
    """Tensors dealt out over three files come back whole; the index and the shards are its sources."""
    tensors = random_tensors(QWEN2, torch.bfloat16)
    folder = shard(tmp_path, tensors)
    loaded = load_checkpoint(folder)
    assert list(loaded.tensors) == list(QWEN2.tensor_shapes())
    assert all(torch.equal(loaded.tensors[name], tensors[name]) for name in tensors)
    names = [path.name for path in source_files(folder)]
    assert names == ["config.json", INDEX, *(f"m-{i}.safetensors" for i in range(3)), "tokenizer.json"]
    assert set(loaded.sha256) == set(names)


def shard(tmp_path: Path, tensors: dict[str, torch.Tensor], **changed: Any) -> Path:
    """A folder of three shards, ``changed`` entries of its weight_map given by name with __ for the dot."""
    from safetensors.torch import save_file

    folder = write_folder(tmp_path / "model", QWEN2, {})
    (folder / "model.safetensors").unlink()
    places = {name: f"m-{index % 3}.safetensors" for index, name in enumerate(tensors)}
    for file in set(places.values()):
        save_file({name: tensor for name, tensor in tensors.items() if places[name] == file}, folder / file)
    weight_map = {**places, **{key.replace("__", "."): value for key, value in changed.items()}}
    weight_map = {key: value for key, value in weight_map.items() if value is not None}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return folder


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"model__norm__weight": None}, "model.norm.weight of m-"),
        ({"model__norm__weight": "m-0.safetensors"}, "model.norm.weight is not in m-0.safetensors but in m-1"),
        ({"lm_head__bias": "m-0.safetensors"}, "lm_head.bias is not in m-0.safetensors"),
        ({"model__norm__weight": "m-9.safetensors"}, "names m-9.safetensors, not there"),
        ({"model__norm__weight": "../m-0.safetensors"}, "must give file names"),
        ({"model__norm__weight": "/etc/passwd"}, "must give file names"),
        ({"model__norm__weight": "m-0.bin"}, "must give file names"),
        ({"model__norm__weight": 3}, "must give file names"),
        ({"model__norm__weight": "m" * 300 + ".safetensors"}, "must give file names"),
    ],
)
def test_index_and_shards_must_agree(tmp_path: Path, changed: dict[str, Any], part: str) -> None:
    """Nothing is read that the index doesn't name, nothing outside of the folder, and nothing twice."""
    folder = shard(tmp_path, random_tensors(QWEN2), **changed)
    with pytest.raises(FormatError) as caught:
        load_checkpoint(folder)
    assert part in str(caught.value)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    """Two shards that hold the same tensor are refused, whichever the index names."""
    folder = shard(tmp_path, random_tensors(QWEN2))
    (folder / "m-0.safetensors").write_bytes((folder / "m-1.safetensors").read_bytes())
    with pytest.raises(FormatError, match=r"is in m-0\.safetensors and in m-1\.safetensors"):
        load_checkpoint(folder)


def test_the_single_file_comes_first(tmp_path: Path) -> None:
    """Where there is model.safetensors, an index beside it is not read, as in transformers."""
    folder = write_folder(tmp_path / "model", QWEN2, random_tensors(QWEN2))
    (folder / INDEX).write_text("not json")
    assert load_checkpoint(folder).config == QWEN2

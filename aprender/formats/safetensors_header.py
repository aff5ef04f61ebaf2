"""Headers of safetensors files, and the index of a model sharded over several.

Format: 8 bytes little-endian length n, n bytes of JSON, data. https://huggingface.co/docs/safetensors. The header is
read here and not by the library so that listing tensors imports no torch, and so that data can stay in a mapping of
our own; tests hold both readings against each other. Imports neither torch nor numpy.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterator
from pathlib import Path

from aprender.errors import FormatError
from aprender.formats.files import open_file
from aprender.formats.json_text import MAX_BYTES, parse_json_object, read_json_object
from aprender.formats.tensor_table import (
    APR_Q8,
    DTYPES,
    MAX_DIMENSIONS,
    MAX_TENSORS,
    TensorEntry,
    check_names,
    check_table,
    corrupt,
    stored_size,
)

_DTYPES = {name for name, (elements, _) in DTYPES.items() if elements == 1} - {APR_Q8}  # no blocks have a place here
_MAX_FILE_NAME = 255  # what file systems hold
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_entries(path: Path) -> list[TensorEntry]:
    """Every tensor of the safetensors file at ``path``, in the order of the header.

    Raises FormatError when the file isn't exactly a header and the data that it describes.
    """
    where = str(path)
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or not 2 <= length <= size - 8:
            raise corrupt(where, f"is no safetensors file: a header of {length} bytes in a file of {size}")
        if length > MAX_BYTES:
            raise corrupt(where, f"states a header of {length} bytes, more than the {MAX_BYTES} that are read")
        text = file.read(length)
    if not text.startswith(b"{"):  # the format says so; JSON would allow blanks
        raise corrupt(where, "is no safetensors file: its header isn't a JSON object")
    try:
        header = parse_json_object(where, text)
    except FormatError as error:
        raise corrupt(where, str(error).removeprefix(f"{where}: ").partition(";")[0]) from error
    _check_metadata(where, header.pop("__metadata__", None))
    if len(header) > MAX_TENSORS:
        raise corrupt(where, f"has {len(header)} tensors, more than the {MAX_TENSORS} that are read")
    check_names(where, header)  # first: messages name tensors
    entries = [_entry(path, name, record, 8 + length) for name, record in header.items()]
    check_table(where, entries, 8 + length, size)
    if (used := sum(entry.size for entry in entries)) != size - 8 - length:
        raise corrupt(where, f"has {size - 8 - length} bytes of data, {used} of them in tensors")
    return entries


def _check_metadata(where: str, metadata: object) -> None:
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    ):
        raise corrupt(where, f"its __metadata__ is {reprlib.repr(metadata)}, must be an object of strings")


def _entry(path: Path, name: str, record: object, data_start: int) -> TensorEntry:
    if not isinstance(record, dict) or set(record) != {"dtype", "shape", "data_offsets"}:
        raise corrupt(str(path), f"{name} is described by {reprlib.repr(record)}")
    dtype, shape, offsets = record["dtype"], record["shape"], record["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise FormatError(f"{path}: {name} is of the dtype {reprlib.repr(dtype)}, which isn't known")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise corrupt(str(path), f"{name} has the shape {reprlib.repr(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise corrupt(str(path), f"{name} has the offsets {reprlib.repr(offsets)}")
    try:
        expected = stored_size(dtype, shape)
    except ValueError as error:
        raise corrupt(str(path), f"{name} {error}") from error
    if offsets[1] - offsets[0] != expected:
        raise corrupt(
            str(path), f"{name} of shape {shape} and dtype {dtype} has {offsets[1] - offsets[0]} bytes, not {expected}"
        )
    return TensorEntry(name, dtype, tuple(shape), path, data_start + offsets[0], expected)


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 48 for item in value)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files of ``folder`` that hold weights: model.safetensors, or the index and the shards that it names.

    Raises FormatError where neither is there, or the index names files that aren't in the folder.
    """
    if (folder / SINGLE).exists() or not (folder / INDEX).exists():  # as transformers chooses
        return (folder / SINGLE,)
    shards = sorted(set(_weight_map(folder / INDEX).values()))
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise FormatError(f"{folder}: {INDEX} names {', '.join(missing[:5])}, not there; fetch the missing files")
    return (folder / INDEX, *(folder / name for name in shards))


def folder_entries(folder: Path) -> list[TensorEntry]:
    """Every tensor of a model folder, from its single file or from all its shards.

    Raises FormatError where a file is corrupt, or where index and shards don't say the same.
    """
    files = weight_files(folder)
    if len(files) == 1:
        return read_entries(files[0])
    where, weight_map = str(files[0]), _weight_map(files[0])
    entries = [entry for shard in files[1:] for entry in read_entries(shard)]
    if problems := list(_index_problems(weight_map, entries)):
        count = f"{len(problems)} problem{'s'[: len(problems) > 1]}"
        raise FormatError(f"{where}: {count}: {'; '.join(problems[:20])}; fetch index and shards again")
    return entries


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(map(_is_file_name, weight_map.values())):
        # a name with a separator could lead out of the folder
        raise corrupt(str(index), f"its weight_map is {reprlib.repr(weight_map)}, must give file names for tensors")
    return weight_map


def _is_file_name(name: object) -> bool:
    if not isinstance(name, str) or not name.endswith(".safetensors") or not name.isprintable():
        return False
    return Path(name).name == name and len(name.encode()) <= _MAX_FILE_NAME


def _index_problems(weight_map: dict[str, str], entries: list[TensorEntry]) -> Iterator[str]:
    places: dict[str, str] = {}
    for entry in entries:
        if entry.name in places:
            yield f"{entry.name} is in {places[entry.name]} and in {entry.path.name}"
        places[entry.name] = entry.path.name
    for name, shard in weight_map.items():
        if places.get(name) != shard:
            yield f"{name} is not in {shard}" + (f" but in {places[name]}" if name in places else "")
    yield from (f"{name} of {shard} is not in the index" for name, shard in places.items() if name not in weight_map)

"""Headers of GGUF files, versions 2 and 3: metadata and the table of tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The ``gguf`` package's own reader takes 6.6 s for the
metadata of a vocabulary of 151,936 (one numpy object per value) and counts through whatever length a corrupt file
states; this one takes 0.2 s and bounds everything. Tests hold both readings against each other. Imports neither torch
nor numpy.
"""

from __future__ import annotations

import os
import reprlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from aprender.errors import FormatError
from aprender.formats.files import open_file
from aprender.formats.tensor_table import MAX_TENSORS, TensorEntry, check_names, check_table, corrupt, stored_size

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_HEADER_LIMITS = (16 << 20, 64 << 20)  # nearly all headers fit into the first; none is larger than the second
_MAX_ENTRIES = 2_000_000  # in all arrays together: three for each of 262,144 tokens are 0.8 million
_MAX_KEYS = 10_000
_MAX_DIMENSIONS = 4  # the format's own bounds from here
_MAX_NAME = 64
_MAX_KEY = 65_535
_DEFAULT_ALIGNMENT = 32

_SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}  # value type -> struct format
_STRING, _ARRAY = 8, 9

# gguf.GGMLQuantizationType; the numbers between were dtypes of older versions, which no reader knows any more.
TYPES = {
    **dict(enumerate(("F32", "F16", "Q4_0", "Q4_1"))),
    **dict(enumerate(("Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K"), 6)),
    **dict(enumerate(("IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS"), 16)),
    **dict(enumerate(("I8", "I16", "I32", "I64", "F64", "IQ1_M", "BF16"), 24)),
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
    41: "Q1_0",
}


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file states: plain Python values by key, and its tensors with row-major shapes."""

    metadata: Mapping[str, object]
    entries: list[TensorEntry]


class _Cut(Exception):
    """The bytes at hand end before the header does."""


def read_header(path: Path) -> GgufHeader:
    """Metadata and tensors of the GGUF file at ``path``.

    Raises FormatError when the file is corrupt, of another version, or big-endian.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        for limit in _HEADER_LIMITS:
            try:
                return _parse(path, _Bytes(path, _first(file, limit)), size)
            except _Cut:
                if size <= limit:
                    break
    raise corrupt(str(path), f"its header doesn't end within {min(size, limit)} bytes")


def _first(file: BufferedReader, limit: int) -> bytes:
    file.seek(0)
    return file.read(limit)


class _Bytes:
    """A cursor over the beginning of the file. What a value states of its own length is bounded before it is used."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        self.content = content
        self.at = 0
        self.entries = 0

    def scalar(self, form: str) -> int | float | bool:
        (value,) = self.scalars(form, 1)
        return value

    def natural(self, form: str) -> int:
        return int(self.scalar(form))

    def scalars(self, form: str, count: int) -> tuple[int | float | bool, ...]:
        try:
            values = struct.unpack_from(f"<{count}{form}", self.content, self.at)
        except struct.error as error:
            raise _Cut from error
        self.at += struct.calcsize(f"<{count}{form}")
        return values

    def text(self, limit: int) -> str:
        length = self.natural("Q")
        if length > limit:
            raise corrupt(str(self.path), f"a string of {length} bytes is said to begin at byte {self.at}")
        return self.texts_of(length)

    def texts_of(self, length: int) -> str:
        raw = self.content[self.at : self.at + length]
        if len(raw) < length:
            raise _Cut
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise corrupt(str(self.path), f"the string at byte {self.at} isn't UTF-8") from error
        self.at += length
        return text

    def texts(self, count: int) -> list[str]:
        """Strings one after another: the loop that reads a vocabulary."""
        content, at, texts, length_at = self.content, self.at, [], struct.Struct("<Q").unpack_from
        try:
            for _ in range(count):
                end = at + 8 + length_at(content, at)[0]
                if end > len(content):
                    raise _Cut
                texts.append(content[at + 8 : end].decode())
                at = end
        except struct.error as error:
            raise _Cut from error
        except UnicodeDecodeError as error:
            raise corrupt(str(self.path), f"the string at byte {at} isn't UTF-8") from error
        self.at = at
        return texts

    def value(self) -> object:
        kind = self.natural("I")
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.text(_HEADER_LIMITS[-1])
        if kind == _ARRAY:
            return self._array()
        raise corrupt(str(self.path), f"a value of the unknown type {kind} is said to be at byte {self.at}")

    def _array(self) -> list[object]:
        kind, count = self.natural("I"), self.natural("Q")
        self.entries += count
        if self.entries > _MAX_ENTRIES:
            raise corrupt(str(self.path), f"an array of {count} entries is said to be at byte {self.at}")
        if kind == _STRING:
            return list(self.texts(count))
        if kind not in _SCALARS:  # arrays of arrays are allowed by the format; no key that is read has one
            raise corrupt(str(self.path), f"an array of the unknown type {kind} is said to be at byte {self.at}")
        return list(self.scalars(_SCALARS[kind], count))


def _parse(path: Path, header: _Bytes, size: int) -> GgufHeader:
    where = str(path)
    if header.content[:4] != MAGIC:
        raise FormatError(f"{where}: does not begin with the bytes GGUF, so it is no GGUF file; fetch it again")
    header.at = 4
    version = header.natural("I")
    if version not in _VERSIONS:
        raise FormatError(
            f"{where}: states GGUF version {version}; versions 2 and 3, little-endian, can be read; convert it again"
        )
    tensor_count, key_count = header.natural("Q"), header.natural("Q")
    if tensor_count > MAX_TENSORS or key_count > _MAX_KEYS:
        raise corrupt(where, f"states {tensor_count} tensors and {key_count} keys, more than any model has")
    metadata: dict[str, object] = {}
    for _ in range(key_count):
        key = header.text(_MAX_KEY)
        if key in metadata:
            raise corrupt(where, f"the key {reprlib.repr(key)} occurs twice")
        metadata[key] = header.value()
    records = [_record(path, header) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 8 or alignment & (alignment - 1):
        raise corrupt(where, f"general.alignment is {reprlib.repr(alignment)}, must be a power of two from 8 on")
    begin = -(-header.at // alignment) * alignment
    entries = [_entry(path, record, begin, alignment) for record in records]
    check_names(where, (entry.name for entry in entries))
    check_table(where, entries, begin, max(size, begin))
    return GgufHeader(metadata, entries)


def _record(path: Path, header: _Bytes) -> tuple[str, tuple[int, ...], str, int]:
    name = header.text(_MAX_NAME)
    dimensions = header.natural("I")
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise corrupt(str(path), f"{reprlib.repr(name)} has {dimensions} dimensions")
    shape = tuple(int(size) for size in reversed(header.scalars("Q", dimensions)))  # the file has the fastest first
    kind, offset = header.natural("I"), header.natural("Q")
    if kind not in TYPES:
        raise FormatError(f"{path}: {reprlib.repr(name)} is of the type {kind}, which isn't known")
    return name, shape, TYPES[kind], offset


def _entry(path: Path, record: tuple[str, tuple[int, ...], str, int], begin: int, alignment: int) -> TensorEntry:
    name, shape, dtype, offset = record
    if offset % alignment:
        raise corrupt(str(path), f"{reprlib.repr(name)} is said to begin at {offset}, no multiple of {alignment}")
    try:
        size = stored_size(dtype, shape)
    except ValueError as error:
        raise corrupt(str(path), f"{reprlib.repr(name)} {error}") from error
    return TensorEntry(name, dtype, shape, path, begin + offset, size)

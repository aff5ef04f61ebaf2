"""Headers of .apr files, version 2: 64-byte header, JSON metadata, sorted index of tensors, and two checksums.

All numbers are little-endian. docs/weights.md has the layout. Imports neither torch nor numpy.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from itertools import pairwise
from pathlib import Path

from aprender.errors import FormatError
from aprender.formats import gguf_header
from aprender.formats.files import open_file, unreadable
from aprender.formats.json_text import parse_json_object
from aprender.formats.tensor_table import (
    APR_Q4,
    APR_Q8,
    MAX_DIMENSIONS,
    MAX_TENSORS,
    TensorEntry,
    check_names,
    check_table,
    corrupt,
    stored_size,
)

MAGIC = b"APR\0"
VERSION = (2, 0)
ALIGNMENT = 64
MAX_NAME = 256
FOOTER_SIZE = 4

# magic, version, flags, tensors, metadata offset and size, index offset, data offset, header checksum, reserved
HEADER = struct.Struct("<4s2BHIQIQQI20s")
_CHECKSUM_AT = slice(40, 44)
_MAX_METADATA = 32 << 20  # a vocabulary with its merges is a few MiB

ROW_MAJOR = 1 << 10
_REFUSED_FLAGS = {
    0: "its data are LZ4-compressed; write it again uncompressed",
    1: "its data are Zstd-compressed; write it again uncompressed",
    2: "it is encrypted; decrypt it first",
    4: "it is one shard of several; merge them first",
    11: "its tensors are column-major; write it again row-major",
}
_KNOWN_FLAGS = (1 << 12) - 1

# ggml's ids, but for two of the format's own: 8 is 32 values to an f16 scale, 9 one f32 scale to a whole tensor.
_AS_IN_GGML = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
TYPES = {number: name for number, name in gguf_header.TYPES.items() if name in _AS_IN_GGML} | {8: APR_Q4, 9: APR_Q8}


@dataclass(frozen=True, slots=True)
class AprHeader:
    """What an .apr file states: flags, metadata and tensors."""

    flags: int
    metadata: Mapping[str, object]
    entries: list[TensorEntry]


def read_header(path: Path) -> AprHeader:
    """Flags, metadata and tensors of the .apr file at ``path``; the header's checksum is verified, the footer's not.

    Raises FormatError when the file is corrupt, of another version, or needs what isn't supported.
    """
    where = str(path)
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        raw = file.read(HEADER.size)
        flags, places = _checked_header(where, raw, size)
        tensors, metadata_at, metadata_size, index_at, data_at = places
        metadata = parse_json_object(where, _read(where, file, metadata_at, metadata_size))
        index = _read(where, file, index_at, data_at - index_at)
    entries = _parse_index(path, index, tensors, data_at)
    check_names(where, (entry.name for entry in entries))
    check_table(where, entries, data_at, size - FOOTER_SIZE)
    return AprHeader(flags, metadata, entries)


def verify_footer(path: Path) -> None:
    """Read the whole file and hold it against the checksum at its end. Raises FormatError when they differ."""
    checksum = 0
    try:
        with open_file(path) as file:
            left = os.fstat(file.fileno()).st_size - FOOTER_SIZE
            while left > 0 and (piece := file.read(min(left, 1 << 20))):
                checksum = zlib.crc32(piece, checksum)
                left -= len(piece)
            footer = file.read(FOOTER_SIZE)
    except OSError as error:
        raise unreadable(path, error) from error
    if footer != checksum.to_bytes(4, "little"):
        raise corrupt(str(path), f"the checksum at its end is {footer[::-1].hex()}, its bytes have {checksum:08x}")


def header_checksum(header: bytes) -> int:
    """CRC-32 of a 64-byte header without the four bytes that hold it."""
    return zlib.crc32(header[_CHECKSUM_AT.stop :], zlib.crc32(header[: _CHECKSUM_AT.start]))


def _checked_header(where: str, raw: bytes, size: int) -> tuple[int, tuple[int, int, int, int, int]]:
    """Flags; number of tensors, offset and size of the metadata, offsets of index and data."""
    if len(raw) < HEADER.size or size < HEADER.size + FOOTER_SIZE:
        raise corrupt(where, f"has only {size} bytes")
    magic, major, minor, flags, tensors, *places, checksum, reserved = HEADER.unpack(raw)
    if magic != MAGIC:
        raise FormatError(f"{where}: does not begin with the bytes APR, so it is no .apr file; fetch it again")
    if (major, minor) != VERSION:
        raise FormatError(f"{where}: states .apr version {major}.{minor}; version 2.0 can be read; convert it again")
    if checksum != (expected := header_checksum(raw)):
        raise corrupt(where, f"its header's checksum is {checksum:08x}, its bytes have {expected:08x}")
    _check_flags(where, flags)
    if any(reserved) or tensors > MAX_TENSORS:
        raise corrupt(where, f"its header states {tensors} tensors, or uses reserved bytes")
    metadata_at, metadata_size, index_at, data_at = places
    in_order = HEADER.size <= metadata_at <= metadata_at + metadata_size <= index_at <= data_at <= size - FOOTER_SIZE
    if not in_order or any(place % ALIGNMENT for place in (metadata_at, index_at, data_at)):
        raise corrupt(where, f"its parts are said to begin at {metadata_at}, {index_at} and {data_at} of {size} bytes")
    return flags, (tensors, metadata_at, metadata_size, index_at, data_at)


def _check_flags(where: str, flags: int) -> None:
    for bit, reason in _REFUSED_FLAGS.items():
        if flags >> bit & 1:
            raise FormatError(f"{where}: can't be read: {reason}")
    if flags & ~_KNOWN_FLAGS:
        raise FormatError(f"{where}: has the flags {flags:#06x}, not all of which are known; a newer program wrote it")
    if not flags & ROW_MAJOR:
        raise FormatError(f"{where}: doesn't say that its tensors are row-major, as every .apr file must")


def _read(where: str, file: BufferedReader, start: int, length: int) -> bytes:
    if length > _MAX_METADATA:
        raise corrupt(where, f"its metadata or index have {length} bytes, more than the {_MAX_METADATA} that are read")
    file.seek(start)
    return file.read(length)


def _parse_index(path: Path, index: bytes, tensors: int, data_at: int) -> list[TensorEntry]:
    where, at, entries = str(path), 0, []
    names: list[bytes] = []
    for _ in range(tensors):
        try:
            name, dtype, shape, at = _record(where, index, at)
            offset, size = struct.unpack_from("<QQ", index, at)
        except struct.error as error:
            raise corrupt(where, f"its index ends before the last of {tensors} tensors") from error
        at += 16
        entries.append(_entry(path, name.decode("utf-8", "replace"), dtype, shape, data_at + offset, size))
        names.append(name)
    if any(index[at:]):
        raise corrupt(where, f"its index goes on after the last of {tensors} tensors")
    if not all(first < second for first, second in pairwise(names)):
        raise corrupt(where, "its index isn't sorted by name")
    return entries


def _record(where: str, index: bytes, at: int) -> tuple[bytes, int, tuple[int, ...], int]:
    (length,) = struct.unpack_from("<H", index, at)
    name, at = index[at + 2 : at + 2 + length], at + 2 + length
    dtype, dimensions = struct.unpack_from("<BB", index, at)
    if not 1 <= length <= MAX_NAME or dimensions > MAX_DIMENSIONS:
        raise corrupt(where, f"a tensor has a name of {length} bytes and {dimensions} dimensions")
    shape = struct.unpack_from(f"<{dimensions}Q", index, at + 2)
    return name, dtype, shape, at + 2 + 8 * dimensions


def _entry(path: Path, name: str, kind: int, shape: Sequence[int], start: int, size: int) -> TensorEntry:
    if kind not in TYPES:
        raise FormatError(f"{path}: {name!r} is of the dtype {kind}, which isn't known")
    if start % ALIGNMENT:
        raise corrupt(str(path), f"{name!r} is said to begin at byte {start}, no multiple of {ALIGNMENT}")
    try:
        expected = stored_size(TYPES[kind], shape)
    except ValueError as error:
        raise corrupt(str(path), f"{name!r} {error}") from error
    if size != expected:
        raise corrupt(
            str(path), f"{name!r} of shape {list(shape)} and dtype {TYPES[kind]} has {size} bytes, not {expected}"
        )
    return TensorEntry(name, TYPES[kind], tuple(shape), path, start, size)

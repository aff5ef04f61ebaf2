"""Headers of GGUF files: the same metadata and tensors as the gguf package reads, within bounds."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from aprender.errors import FormatError
from aprender.formats.gguf_header import TYPES, GgufHeader, read_header
from aprender.formats.tensor_table import DTYPES
from tests.formats.tiny_checkpoints import QWEN2, gguf_metadata, gguf_tensors, random_tensors, write_gguf


def sound(tmp_path: Path) -> Path:
    metadata = gguf_metadata(QWEN2) | {
        "x.flag": True,
        "x.numbers": [1.5, 2.5],
        "x.negative": [-1, 2],
        "x.flags": [True],
    }
    return write_gguf(tmp_path / "m.gguf", "qwen2", metadata, gguf_tensors(random_tensors(QWEN2)))


def refusal(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def file_of(tmp_path: Path, keys: list[bytes], records: list[bytes], **counts: int) -> Path:
    path = tmp_path / "m.gguf"
    head = b"GGUF" + struct.pack(
        "<IQQ", 3, counts.get("said_tensors", len(records)), counts.get("said_keys", len(keys))
    )
    body = head + b"".join((*keys, *records))
    path.write_bytes(body + bytes(-len(body) % 32) + bytes(64))
    return path


def record(name: bytes = b"a", sizes: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def key(kind: int, value: bytes, name: bytes = b"k") -> bytes:
    return string(name) + struct.pack("<I", kind) + value


def test_the_types_are_the_packages() -> None:
    """Every type that the package knows is known here, under the same number and with the same size of a block."""
    for kind in gguf.GGMLQuantizationType:
        assert TYPES[int(kind)] == kind.name
        assert DTYPES[kind.name] == gguf.GGML_QUANT_SIZES[kind]
    assert len(TYPES) == len(gguf.GGMLQuantizationType)


def test_metadata_and_tensors_are_the_packages(tmp_path: Path) -> None:
    """Values of every kind, and names, shapes, types and places of all tensors, are what the package reads."""
    path = sound(tmp_path)
    header, theirs = read_header(path), gguf.GGUFReader(path)
    expected = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert header.metadata == expected
    assert [(e.name, e.dtype, e.shape, e.start, e.size) for e in header.entries] == [
        (t.name, t.tensor_type.name, tuple(reversed(t.shape.tolist())), t.data_offset, t.n_bytes)
        for t in theirs.tensors
    ]


def test_scalars_of_every_type(tmp_path: Path) -> None:
    """All twelve scalar types and arrays of them are read with their sign and width."""
    values: dict[int, tuple[str, Any]] = {
        0: ("B", 200),
        1: ("b", -3),
        2: ("H", 60_000),
        3: ("h", -300),
        4: ("I", 2**32 - 1),
        5: ("i", -(2**31)),
        6: ("f", 0.5),
        7: ("?", True),
        10: ("Q", 2**64 - 1),
        11: ("q", -(2**63)),
        12: ("d", 1e300),
    }
    keys = [key(kind, struct.pack(f"<{form}", value), b"s%d" % kind) for kind, (form, value) in values.items()]
    keys += [
        key(9, struct.pack(f"<IQ2{form}", kind, 2, value, value), b"a%d" % kind)
        for kind, (form, value) in values.items()
    ]
    header: GgufHeader = read_header(file_of(tmp_path, keys, []))
    for kind, (_, value) in values.items():
        assert header.metadata[f"s{kind}"] == value
        assert header.metadata[f"a{kind}"] == [value, value]


@pytest.mark.parametrize(
    ("keys", "records", "counts", "part"),
    [
        ([], [], {"said_tensors": 2**63}, "more than any model has"),
        ([], [], {"said_keys": 2**63}, "more than any model has"),
        ([key(8, string(b"v" * 99))], [], {"said_keys": 9}, "truncated or corrupt"),
        ([key(13, b"")], [], {}, "a value of the unknown type 13"),
        ([key(9, struct.pack("<IQ", 0, 2**40))], [], {}, "an array of 1099511627776 entries"),
        ([key(9, struct.pack("<IQ", 8, 2**21 + 1))], [], {}, "an array of 2097153 entries"),
        (
            [key(9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 0, 1) + b"a")],
            [],
            {},
            "an array of the unknown type 9",
        ),
        ([key(8, struct.pack("<Q", 2**62))], [], {}, "a string of 4611686018427387904 bytes"),
        ([key(8, string(b"\xff"))], [], {}, "isn't UTF-8"),
        ([key(9, struct.pack("<IQ", 8, 1) + string(b"\xff"))], [], {}, "isn't UTF-8"),
        ([key(0, b"a"), key(0, b"b")], [], {}, "the key 'k' occurs twice"),
        ([key(4, struct.pack("<I", 24), b"general.alignment")], [], {}, "general.alignment is 24"),
        ([key(4, struct.pack("<I", 0), b"general.alignment")], [], {}, "general.alignment is 0"),
        ([key(8, string(b"32"), b"general.alignment")], [], {}, "general.alignment is '32'"),
        ([], [record(sizes=())], {}, "has 0 dimensions"),
        ([], [record(sizes=(1,) * 5)], {}, "has 5 dimensions"),
        ([], [record(kind=4)], {}, "is of the type 4, which isn't known"),
        ([], [record(kind=12)], {}, "has rows of 4, no multiple of Q4_K's 256"),
        ([], [record(offset=8)], {}, "no multiple of 32"),
        ([], [record(offset=64)], {}, "said to lie at bytes"),
        ([], [record(sizes=(2**63, 2**63))], {}, "said to lie at bytes"),
        ([], [record(), record(b"b")], {}, "the tensors a and b overlap"),
        ([], [record(), record()], {}, "two tensors have the name a"),
        ([], [record(b"")], {}, "a tensor has the name ''"),
        ([], [record(b"\n")], {}, "a tensor has the name '\\n'"),
        ([], [record(b"a" * 65)], {}, "a string of 65 bytes"),
    ],
)
def test_headers_that_can_not_be_right(
    tmp_path: Path, keys: list[bytes], records: list[bytes], counts: dict[str, int], part: str
) -> None:
    """Counts, types, lengths, texts, alignment, dimensions and places are each checked, and the fault is named."""
    assert part in refusal(file_of(tmp_path, keys, records, **counts))


def test_an_alignment_of_its_own_is_heeded(tmp_path: Path) -> None:
    """general.alignment moves the beginning of the data and what offsets must be multiples of."""
    keys = [key(4, struct.pack("<I", 8), b"general.alignment")]
    path = file_of(tmp_path, keys, [record(sizes=(2,)), record(b"b", (2,), offset=8)])
    first, second = read_header(path).entries
    assert (first.start % 8, second.start - first.start) == (0, 8)


def test_a_large_vocabulary_is_read_at_once(tmp_path: Path) -> None:
    """300,000 strings take well under a second; the package's reader takes 6 s for them."""
    texts = b"".join(string(b"token%d" % i) for i in range(300_000))
    path = file_of(tmp_path, [key(9, struct.pack("<IQ", 8, 300_000) + texts)], [])
    tokens = read_header(path).metadata["k"]
    assert isinstance(tokens, list)
    assert tokens[299_999] == "token299999"
    assert np.unique(tokens).size == 300_000

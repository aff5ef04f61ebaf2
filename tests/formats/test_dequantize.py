"""Quantized blocks become the float32 that the gguf package makes of them, bit for bit."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize as reference

from aprender.errors import FormatError
from aprender.formats import dequantize
from aprender.formats.dequantize import dequantizer
from aprender.formats.stored import TensorFiles
from aprender.formats.tensor_table import DTYPES, TensorEntry

BY_THE_PACKAGE = [kind.name for kind in gguf.GGMLQuantizationType if dequantizer(kind.name) is not None]


def blocks_of(dtype: str, count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, DTYPES[dtype][1]), np.uint8)


def test_every_quantized_type_of_the_package_is_read() -> None:
    """Whatever the package dequantizes is dequantized here; what it can't, isn't."""
    assert set(BY_THE_PACKAGE) >= set(dequantize._FUNCTIONS) - {"APR_Q4"}
    assert len(BY_THE_PACKAGE) >= 22
    for dtype in ("F64", "I8", "I64", "Q8_1", "Q8_K", "U8"):
        assert dequantizer(dtype) is None


@pytest.mark.parametrize("dtype", BY_THE_PACKAGE)
def test_every_bit_is_the_packages(dtype: str) -> None:
    """Random blocks, infinite and NaN scales among them, give the same bits, in one go and in pieces."""
    function = dequantizer(dtype)
    assert function is not None
    blocks = blocks_of(dtype, 700)
    with np.errstate(all="ignore"):
        expected = reference(blocks, gguf.GGMLQuantizationType[dtype])
        out = np.empty((700, DTYPES[dtype][0]), np.float32)
        for start in range(0, 700, 321):
            function(blocks[start : start + 321], out[start : start + 321])
    assert np.array_equal(out.view(np.uint32), expected.reshape(out.shape).view(np.uint32))


def test_tensors_larger_than_a_piece(tmp_path: Path) -> None:
    """A tensor that is read in several pieces has no seam, and its last piece may be short."""
    blocks = np.random.default_rng(4).integers(0, 256, (9000, 34), np.uint8)  # 288,000 values
    blocks[:, 1] = 0x3C  # no scale is large
    path = tmp_path / "blocks"
    path.write_bytes(b"#" + blocks.tobytes())
    entry = TensorEntry("a", "Q8_0", (900, 320), path, 1, blocks.nbytes)
    with TensorFiles() as files:
        files.open([entry])
        tensor = files.read(entry)
    expected = reference(blocks, gguf.GGMLQuantizationType.Q8_0).reshape(900, 320)
    assert np.array_equal(tensor.numpy().view(np.uint32), expected.view(np.uint32))


def test_aprs_own_four_bits() -> None:
    """Unlike ggml's Q4_0, neighbouring values share a byte: the low nibble comes first, and 8 is zero."""
    function = dequantizer("APR_Q4")
    assert function is not None
    block = np.frombuffer(np.float16(0.5).tobytes() + bytes([0x98] + [0x88] * 14 + [0xF0]), np.uint8)[None]
    out = np.empty((1, 32), np.float32)
    function(block, out)
    assert out[0, :2].tolist() == [0.0, 0.5]
    assert out[0, -2:].tolist() == [-4.0, 3.5]
    assert not out[0, 2:-2].any()


def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    """A file cut off between header and data is an error, not zeros: mapped or read."""
    path = tmp_path / "data"
    path.write_bytes(bytes(100))
    empty = tmp_path / "empty"
    empty.touch()
    with TensorFiles() as files, pytest.raises(FormatError, match="became shorter"):
        files.open([TensorEntry("a", "F32", (1,), empty, 0, 4)])
    for dtype, shape, size in (("F32", (32,), 128), ("Q8_0", (128,), 136)):
        entry = TensorEntry("a", dtype, shape, path, 0, size)
        with TensorFiles() as files:
            files.open([entry])
            with pytest.raises(FormatError, match="became shorter"):
                files.read(entry)

"""Tensors from their place in a file into memory, bit for bit: mapped where possible, dequantized where needed."""

from __future__ import annotations

import mmap
import os
from io import BufferedReader
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from aprender.errors import FormatError
from aprender.formats.dequantize import Dequantizer, dequantizer
from aprender.formats.files import open_file, unreadable
from aprender.formats.tensor_table import APR_Q8, DTYPES, FLOATS, TensorEntry, corrupt

_TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PIECE = 1 << 17  # elements dequantized at once: what that takes stays in the second-level cache


class TensorFiles:
    """The files of one model, opened once each. Tensors read from it stay valid after ``close``."""

    def __init__(self) -> None:
        self._files: dict[Path, BufferedReader] = {}
        self._mapped: dict[Path, mmap.mmap] = {}

    def __enter__(self) -> TensorFiles:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def open(self, entries: list[TensorEntry]) -> None:
        """Open every file that ``entries`` lie in. Raises FormatError where one can't be read."""
        for path in {entry.path for entry in entries}:
            self._files[path] = open_file(path)
            try:
                # private: whoever writes into a tensor gets a page of his own, and the file stays as it is
                self._mapped[path] = mmap.mmap(
                    self._files[path].fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
                )
            except OSError as error:
                raise unreadable(path, error) from error
            except ValueError as error:  # nothing to map
                raise corrupt(str(path), "became shorter while it was read") from error

    def read(self, entry: TensorEntry) -> torch.Tensor:
        """The tensor, contiguous on the CPU: F32, F16 and BF16 as they are stored, quantized ones as float32.

        Its memory is the mapped file where the data are aligned. Raises FormatError, beginning with a verb, for a
        dtype that has no such reading.
        """
        if entry.dtype in _TORCH:
            return self._mapped_tensor(entry)
        function = dequantizer(entry.dtype)
        if entry.dtype == APR_Q8:
            return torch.from_numpy(self._scaled_bytes(entry))
        if function is None:
            raise FormatError(
                f"is stored as {entry.dtype}, which can't be read: {', '.join(FLOATS)} and ggml's quantized types can"
            )
        return torch.from_numpy(self._dequantized(entry, function))

    def _mapped_tensor(self, entry: TensorEntry) -> torch.Tensor:
        dtype = _TORCH[entry.dtype]
        if not entry.size:
            return torch.empty(entry.shape, dtype=dtype)
        mapped = self._mapped[entry.path]
        if len(mapped) < entry.start + entry.size:
            raise corrupt(str(entry.path), "became shorter while it was read")
        raw = torch.frombuffer(mapped, dtype=torch.uint8, count=entry.size, offset=entry.start)
        if entry.start % dtype.itemsize:
            raw = raw.clone()
        return raw.view(dtype).view(entry.shape)

    def _dequantized(self, entry: TensorEntry, function: Dequantizer) -> npt.NDArray[np.float32]:
        elements, size = DTYPES[entry.dtype]
        blocks = entry.size // size
        out_NE = np.empty((blocks, elements), np.float32)
        pieces = max(1, _PIECE // elements)
        buffer = np.empty((min(pieces, blocks), size), np.uint8)
        # a scale that is infinite or NaN is reported by the accounting, with the tensor's name
        with np.errstate(all="ignore"):
            for first in range(0, blocks, pieces):
                part = buffer[: blocks - first]
                self._read_into(entry, part, first * size)
                function(part, out_NE[first : first + pieces])
        count = int(np.prod(entry.shape, dtype=np.int64))
        return out_NE.reshape(-1)[:count].reshape(entry.shape)  # .apr's own blocks may be padded

    def _scaled_bytes(self, entry: TensorEntry) -> npt.NDArray[np.float32]:
        """One float32 scale, then an int8 to a value (.apr's dtype 9)."""
        raw = np.empty(entry.size, np.uint8)
        self._read_into(entry, raw, 0)
        with np.errstate(all="ignore"):
            values: npt.NDArray[np.float32] = raw[4:].view(np.int8) * raw[:4].view("<f4")[0]
        return values.reshape(entry.shape)

    def _read_into(self, entry: TensorEntry, buffer: npt.NDArray[np.uint8], offset: int) -> None:
        """Fill ``buffer``; positional reads, so that threads can share the file and no page of it stays resident."""
        view = buffer.data.cast("B")
        at = entry.start + offset
        while view:
            try:
                count = os.preadv(self._files[entry.path].fileno(), [view], at)
            except OSError as error:
                raise unreadable(entry.path, error) from error
            if not count:
                raise corrupt(str(entry.path), "became shorter while it was read")
            view, at = view[count:], at + count

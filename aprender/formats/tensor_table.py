"""The table of tensors in a model file: names, dtypes, shapes and places, checked before any data is read.

Imports neither torch nor numpy: listing a file's tensors costs its header alone.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from aprender.errors import FormatError

MAX_TENSORS = 100_000  # the largest dense models have 3,000
MAX_DIMENSIONS = 8

# Elements and bytes of one block. The quantized ones are ggml's (gguf.constants.GGML_QUANT_SIZES, compared in tests).
DTYPES: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), (1, 8)),
    **dict.fromkeys(("F32", "I32", "U32"), (1, 4)),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), (1, 2)),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), (1, 1)),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q8_1": (32, 40),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "Q8_K": (256, 292),
    "IQ2_XXS": (256, 66),
    "IQ2_XS": (256, 74),
    "IQ3_XXS": (256, 98),
    "IQ1_S": (256, 50),
    "IQ4_NL": (32, 18),
    "IQ3_S": (256, 110),
    "IQ2_S": (256, 82),
    "IQ4_XS": (256, 136),
    "IQ1_M": (256, 56),
    "TQ1_0": (256, 54),
    "TQ2_0": (256, 66),
    "MXFP4": (32, 17),
    "NVFP4": (64, 36),
    "Q1_0": (128, 18),
}
# .apr's own: 32 values to a float16 scale, of the flattened tensor; and one float32 scale, then a byte to a value.
APR_Q4, APR_Q8 = "APR_Q4", "APR_Q8"
DTYPES |= {APR_Q4: (32, 18), APR_Q8: (1, 1)}
FLOATS = ("F32", "F16", "BF16")  # what weights are kept as; everything else is dequantized or refused


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor still in its file: ``size`` bytes from byte ``start``; ``shape`` is row-major."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int
    size: int


def stored_size(dtype: str, shape: Sequence[int]) -> int:
    """How many bytes a tensor takes. Raises ValueError, saying why, where its rows are no whole number of blocks."""
    count = math.prod(shape)
    elements, size = DTYPES[dtype]
    if dtype == APR_Q4:
        return -(-count // elements) * size  # the last block is padded
    if dtype == APR_Q8:
        return 4 + count
    if elements > 1 and (not shape or shape[-1] % elements):
        raise ValueError(f"has rows of {shape[-1] if shape else 1}, no multiple of {dtype}'s {elements}")
    return count // elements * size


def check_table(where: str, entries: Sequence[TensorEntry], begin: int, end: int) -> None:
    """Raise FormatError unless each entry lies within bytes ``begin`` to ``end``, apart from all others.

    Two tensors that share bytes mean a corrupt place: the values would look plausible and be wrong.
    """
    placed = sorted(entries, key=lambda entry: (entry.start, entry.size))
    for entry in placed:
        if entry.start < begin or entry.start + entry.size > end:
            raise corrupt(
                where,
                f"{entry.name} is said to lie at bytes {entry.start} to {entry.start + entry.size}, "
                f"but the data are at {begin} to {end}",
            )
    for first, second in pairwise(entry for entry in placed if entry.size):
        if first.start + first.size > second.start:
            raise corrupt(where, f"the tensors {first.name} and {second.name} overlap")


def check_names(where: str, names: Iterable[str]) -> None:
    """Raise FormatError for an empty name, one that no terminal can show, or one that stands twice."""
    seen: set[str] = set()
    for name in names:
        if not name or not name.isprintable():
            raise corrupt(where, f"a tensor has the name {name[:80]!r}")
        if name in seen:
            raise corrupt(where, f"two tensors have the name {name}")
        seen.add(name)


def corrupt(where: str, what: str) -> FormatError:
    """The one sentence for a file that can't be what it says it is."""
    return FormatError(f"{where}: {what}; the file is truncated or corrupt, fetch it again")


_HINTS = 40  # looking for near misses takes a while


def shape_problems(expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, tuple[int, ...]]) -> list[str]:
    """One sentence part for each name that is missing, unexpected or of another shape than expected.

    Shapes are compared as shapes. A near miss of a name within the same layer is named.
    """
    missing = [name for name in expected if name not in stored]
    unclaimed: dict[tuple[str, ...], list[str]] = {}
    for name in missing:
        unclaimed.setdefault(_numbers(name), []).append(name)
    problems = [f"missing {name}" for name in missing]
    for index, name in enumerate(name for name in stored if name not in expected):
        near = index < _HINTS and difflib.get_close_matches(name, unclaimed.get(_numbers(name), []), n=1)
        problems.append(f"unexpected {name}" + (f" (did you mean {near[0]}?)" if near else ""))
    for name, shape in expected.items():
        if name in stored and stored[name] != shape:
            problems.append(f"{name} has shape {list(stored[name])}, must be {list(shape)}")
    return problems


def _numbers(name: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", name))

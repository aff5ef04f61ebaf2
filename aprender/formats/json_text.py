"""JSON objects from files that may be anything: bounded in size and depth, and no key twice."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path

from aprender.errors import FormatError
from aprender.formats.files import read_file

# Headers, indexes and configurations of the largest models are below 1 MiB. What Python makes of a byte of JSON
# takes up to 40 bytes of memory.
MAX_BYTES = 4 << 20
_MAX_COMMAS = 1_250_000  # bounds the number of values, which is what takes memory and time


def read_json_object(path: Path, limit: int = MAX_BYTES) -> dict[str, object]:
    """The JSON object in the file at ``path``. Raises FormatError for anything else, a repeated key included."""
    return parse_json_object(str(path), read_file(path, limit))


def parse_json_object(where: str, text: bytes) -> dict[str, object]:
    """The JSON object that ``text`` is. Raises FormatError for anything else, a repeated key included."""
    if text.count(b",") > _MAX_COMMAS:
        raise FormatError(f"{where}: its JSON has over {_MAX_COMMAS} values, more than are read; fetch the file again")
    try:
        values = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, a repeated key, or nested without end
        raise FormatError(f"{where}: is not valid JSON ({error}); fetch the file again") from error
    if not isinstance(values, dict):
        raise FormatError(f"{where}: holds no JSON object but {reprlib.repr(values)}; fetch the file again")
    return values


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {reprlib.repr(twice)} occurs twice")
    return values

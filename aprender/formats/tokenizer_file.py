"""Tokenizers in Hugging Face's own form: tokenizer.json, as a file or as text in another file's metadata."""

from __future__ import annotations

import reprlib
from pathlib import Path

from tokenizers import Tokenizer

from aprender.errors import FormatError
from aprender.formats.files import read_file

_MAX_BYTES = 32 << 20  # those of the supported families have up to 17 MiB


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in the tokenizer.json at ``path``. Raises FormatError when it is corrupt."""
    try:
        text = read_file(path, _MAX_BYTES).decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is no readable tokenizer (not UTF-8); fetch the file again") from error
    return tokenizer_from_json(str(path), text)


def tokenizer_from_json(where: str, text: object) -> Tokenizer:
    """The tokenizer that ``text`` describes. Raises FormatError when it is none; ``where`` begins the message."""
    if not isinstance(text, str):
        raise FormatError(f"{where}: has {reprlib.repr(text)} for a tokenizer; add one in tokenizer.json's form")
    try:
        return Tokenizer.from_str(text)
    except BaseException as error:
        # The library raises plain Exception for what it can't parse, and its panics aren't even that.
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        raise FormatError(
            f"{where}: is no readable tokenizer ({' '.join(str(error).split())}); fetch the file again"
        ) from error

"""Digests of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from aprender.formats.files import open_file, unreadable


def sha256_of(path: Path) -> str:
    """SHA-256 of the file's bytes as 64 lower-case hex digits, read in pieces.

    Raises FormatError when the file can't be read.
    """
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error

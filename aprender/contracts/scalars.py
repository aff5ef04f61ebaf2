"""From a column inside of a text to the column in the file that the text stands in."""

from __future__ import annotations

import re

from aprender.contracts.document import Document, KeyPath
from aprender.contracts.findings import Position
from aprender.contracts.syntax import lines_of

_PROPERTIES = re.compile(r"(?:[&!]\S*[ \t]+)*")  # an anchor or a tag before the scalar


def position_within(document: Document, path: KeyPath, text: str, column: int) -> Position | None:
    """Where character ``column`` (from 1) of the ``text`` at ``path`` stands; None where it is not written as it reads.

    It is written as it reads where it is plain or simply quoted on one line: no escapes, no folding, no alias.
    """
    at = document.position(path)
    lines = lines_of(document.text)
    if at.line > len(lines):
        return None
    line = lines[at.line - 1]
    properties = _PROPERTIES.match(line, at.column - 1)
    start = properties.end() if properties else at.column - 1
    if line[start : start + 1] in ("'", '"'):
        quote, start = line[start], start + 1
        if not line.startswith(text + quote, start):
            return None
    elif not line.startswith(text, start):
        return None
    return Position(at.line, start + column)

"""Colour for terminals: put in by the reports, taken out by the command line where it is unwanted."""

from __future__ import annotations

import re

_CODES = {"red": 31, "green": 32, "yellow": 33, "magenta": 35, "cyan": 36}
_SEQUENCE = re.compile(r"\x1b\[[0-9;]*m")


def coloured(text: str, colour: str, *, bold: bool = False) -> str:
    """``text`` in ``colour`` (ECMA-48, select graphic rendition)."""
    weight = "\x1b[1m" if bold else ""
    return f"\x1b[{_CODES[colour]}m{weight}{text}\x1b[0m"


def plain(text: str) -> str:
    """``text`` without colour."""
    return _SEQUENCE.sub("", text)

"""The words of a formula in plain text."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from aprender.reports.latex_symbols import DIGRAPHS, SUBSCRIPTS, SUPERSCRIPTS

_TOKEN = re.compile(
    rf"""(?P<blank>\s+)
    |(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)
    |(?P<accented>[^\W\d_][\u0300-\u036f])
    |(?P<name>[A-Za-z](?:[A-Za-z0-9](?![\u0300-\u036f]))*(?:_[A-Za-z0-9]+)*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
    |(?P<superscript>[{re.escape("".join(SUPERSCRIPTS))}]+)
    |(?P<subscript>[{re.escape("".join(SUBSCRIPTS))}]+)
    |(?P<digraph>{"|".join(map(re.escape, DIGRAPHS))})
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_ACCENTED = frozenset(map(chr, range(0xC0, 0x250)))  # letters with a mark: only these are taken apart, "≠" is not
_CLOSING = {"(": ")]", "[": ")]", "{": "}"}  # an interval may be open at one end only


class Token(NamedTuple):
    """``after_blank``: whether white space stands before it."""

    kind: str
    text: str
    after_blank: bool


END = Token("end", "", True)


def tokens_of(text: str) -> list[Token]:
    """All of ``text``."""
    composed = unicodedata.normalize("NFC", text)
    apart = "".join(unicodedata.normalize("NFD", char) if char in _ACCENTED else char for char in composed)
    found: list[Token] = []
    blank = False
    for match in _TOKEN.finditer(apart):
        kind = str(match.lastgroup)
        if kind != "blank":
            found.append(Token(kind, match.group(), blank))
        blank = kind == "blank"
    return found


def closing(tokens: list[Token], opening: int) -> int | None:
    """Where the bracket closes that opens at ``opening``."""
    expected: list[str] = []
    for at in range(opening, len(tokens)):
        text = tokens[at].text
        if text in _CLOSING:
            expected.append(_CLOSING[text])
        elif text in (")", "]", "}"):
            if not expected or text not in expected.pop():
                return None
            if not expected:
                return at
    return None

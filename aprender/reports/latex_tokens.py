"""The words of a formula in plain text."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from aprender.reports.latex_symbols import DIGRAPHS, SUBSCRIPTS, SUPERSCRIPTS

LONGEST = 500  # characters: what is longer is no formula
_REFUSED = re.compile(  # programs, LaTeX, strings, comments, hyphenated words; and what is read in two ways
    r"""["`\\#$?—]|<-(?!>)|--|\+\+|//|<<|>>|<>|~=|=~|::|\.\.=|===|!==|=<|:-|\|-\||(?<!&)&(?!&)|0x
    |[A-Za-z][A-Za-z0-9]+-[A-Za-z]|\.\s+\S|\s['\u2019]""",
    re.VERBOSE,
)
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
_POWER = re.compile(r"\s*\*\*\s*")
_ACCENTED = frozenset(map(chr, range(0xC0, 0x250)))  # letters with a mark: only these are taken apart, "≠" is not
_CLOSING = {"(": ")]", "[": ")]", "{": "}"}  # an interval may be open at one end only


class Token(NamedTuple):
    """``after_blank``: whether white space stands before it."""

    kind: str
    text: str
    after_blank: bool


END = Token("end", "", True)


def tokens_of(text: str) -> list[Token]:
    """All of ``text``; nothing where it is surely no formula."""
    if len(text) > LONGEST or _REFUSED.search(text):
        return []
    composed = unicodedata.normalize("NFC", _POWER.sub("^", text))
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


class Reader:
    """Goes through tokens from left to right."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0

    def peek(self, ahead: int = 0) -> Token:
        """The token that comes next, or one after it; ``END`` behind the last."""
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else END

    def next(self) -> Token:
        """The token that comes next, which is read by this."""
        token = self.peek()
        self.at += 1
        return token

    def touches(self, text: str) -> bool:
        """Whether ``text`` comes next, without white space before it."""
        token = self.peek()
        return token.text == text and not token.after_blank

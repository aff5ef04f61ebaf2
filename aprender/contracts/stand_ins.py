"""What libyaml is given where it reads text in another way than YAML 1.2, and what was meant put back.

It counts NEL, LS and PS as line breaks, and refuses a character that is escaped as two surrogates, as JSON has them.
Characters that stand nowhere in the text stand in for both, one for one: lines and columns stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from yaml.cyaml import CParser  # type: ignore[attr-defined]

from aprender.contracts.syntax import LINE_BREAKS_OF_YAML_1_1

# Two escapes for one character, as JSON has them: \ud83d\ude00. An escaped backslash before them makes them text.
SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_TWO_ESCAPES = re.compile(r"(?:\\u[0-9a-f]{4}){2}")


class StandIns:
    """libyaml's events of a text that is given to it with stand-ins, each with its own text again."""

    def __init__(self, text: str) -> None:
        self.meant: dict[int, str] = {}  # by the code that stands in for it
        self.escaped: dict[str, str] = {}
        self._next: Callable[[], Any] = CParser(self._replaced(text)).get_event

    def get_event(self) -> Any:
        """The next event, None after the last."""
        event = self._next()
        if getattr(event, "value", None):
            event.value = self._text_of(event)
        return event

    def _replaced(self, text: str) -> str:
        marks = [mark for mark in LINE_BREAKS_OF_YAML_1_1 if mark in text]
        pairs = {found[2] for found in SURROGATES.finditer(text)}
        used = set(map(ord, set(text))) | {int(code, 16) for code in _ESCAPE.findall(text)}
        unused = (code for code in range(0xE000, 0xF8FF) if code not in used)
        replaced = {ord(mark): next(unused) for mark in marks}
        self.meant = {code: chr(mark) for mark, code in replaced.items()}
        filler = next(unused)
        for pair, code in zip(sorted(pairs), unused, strict=False):  # more of them than there are codes stay refused
            self.escaped[pair] = f"\\u{code:04x}\\u{filler:04x}"
            self.meant[code], self.meant[filler] = _character(pair), ""
        text = SURROGATES.sub(lambda found: found[1] + self.escaped.get(found[2], found[2]), text)
        return text.translate(replaced)

    def _text_of(self, event: Any) -> str:
        """The text of a scalar as it stands in the file; outside of double quotes an escape is plain text."""
        value: str = event.value.translate(self.meant)
        if self.escaped and event.style != '"' and "\\u" in value:
            texts = {stand_in: pair for pair, stand_in in self.escaped.items()}
            value = _TWO_ESCAPES.sub(lambda found: texts.get(found[0], found[0]), value)
        return value


def _character(pair: str) -> str:
    """The character that two escaped surrogates stand for."""
    high, low = (int(code, 16) for code in _ESCAPE.findall(pair))
    return chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00)

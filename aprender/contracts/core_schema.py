"""What a plain scalar is by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema)."""

from __future__ import annotations

import math
import re

NOT_ALWAYS_TEXT = frozenset("-+.0123456789~nNtTfF")  # how one starts that may be more than text
_INT = re.compile(r"[-+]?[0-9]+\Z")
_BASED_INT = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NON_FINITE = {f"{sign}.{word}": math.inf for sign in ("", "+", "-") for word in ("inf", "Inf", "INF")} | dict.fromkeys(
    (".nan", ".NaN", ".NAN"), math.nan
)
_WORDS = dict.fromkeys(("", "~", "null", "Null", "NULL")) | {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


def plain_scalar(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0].isalpha():
        return text
    if (text.isdecimal() and text.isascii()) or _INT.match(text):
        return int(text[:20]) if len(text) > 20 else int(text)  # beyond 2**53 either way, and int() has a limit
    if _BASED_INT.match(text):
        return int(text[:20], 0)
    if _FLOAT.match(text):
        return float(text)
    return _NON_FINITE.get(text, text)

"""A finding: one thing wrong with a contract, and exactly where."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a text file; line and column count from 1, columns in code points."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation of one rule. Sorts by file, then position."""

    file: str
    line: int
    column: int
    rule: str
    severity: Severity
    message: str

    def to_json(self) -> dict[str, str | int]:
        """All fields as plain data."""
        return asdict(self)


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` with a leading blank where one of ``valid`` is near ``word``, else an empty string."""
    near = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""

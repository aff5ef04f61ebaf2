"""A finding: one thing wrong with a contract, and exactly where."""

# No postponed annotations here: NamedTuple would compile each from its text, which costs as much as a small contract.

from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

_NEAR = 0.6  # of two names: twice the characters in matching blocks, over all characters
_COMPARED = 100  # with more names than these only those are compared that begin alike: few mistype a first letter

Severity = Literal["error", "warning"]

MAX_FINDINGS = 1000  # per file; more helps nobody, and a hostile file must fill neither memory nor minutes


class Position(NamedTuple):
    """A place in a text file; line and column count from 1, columns in code points."""

    line: int
    column: int


class Finding(NamedTuple):
    """One violation of one rule; ``source`` is the text of its line. Sorts by file, then position."""

    file: str
    line: int
    column: int
    rule: str
    severity: Severity
    message: str
    source: str = ""

    def to_json(self) -> dict[str, str | int]:
        """All fields as plain data."""
        return self._asdict()


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """`` Did you mean 'x'?``, a blank before it, where one of ``valid`` is near ``word`` in any case; else nothing."""
    near = _nearest(word, tuple(valid))
    return f" Did you mean '{near}'?" if near else ""


class Hints:
    """``did_you_mean`` within a budget of names that are looked at: a file full of wrong names ends in time, too."""

    __slots__ = ("left",)

    def __init__(self, names: int = 20_000) -> None:
        self.left = names

    def did_you_mean(self, word: str, valid: Collection[str]) -> str:
        """As the function of this name, while the budget lasts; then an empty string."""
        self.left -= len(valid)
        return did_you_mean(word, valid) if self.left >= 0 else ""


@lru_cache(1000)  # the same key is wrong in many files
def _nearest(word: str, valid: tuple[str, ...]) -> str | None:
    """As ``difflib.get_close_matches(word, valid, n=1)``, which looks longer at names that can't be the nearest."""
    from difflib import SequenceMatcher  # only where something is wrong: start-up is part of the interface

    names = {name.lower(): name for name in reversed(valid)}
    word = word.lower()
    likeness, nearest = _NEAR, ""
    matcher = SequenceMatcher(b=word)
    for name in names:
        if len(names) > _COMPARED and name[:1] != word[:1]:
            continue
        characters = len(name) + len(word)
        if characters and 2.0 * min(len(name), len(word)) / characters < likeness:
            continue
        matcher.set_seq1(name)
        if matcher.quick_ratio() >= likeness:
            likeness, nearest = max((likeness, nearest), (matcher.ratio(), name))
    return names.get(nearest)

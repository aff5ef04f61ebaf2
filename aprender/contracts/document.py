"""One YAML document as plain data that knows where everything stands."""

from __future__ import annotations

from typing import Any

from aprender.contracts.findings import Finding, Hints, Position

KeyPath = tuple[str | int, ...]


class Document:
    """Plain data, with the position of every value and every key by its path.

    ``places`` holds, for each container that was read (by its identity), where its entries stand: a list of marks for
    a list, (mark of the key, mark of the value) by key for a mapping. Paths are walked only when a position is asked
    for: most contracts have no findings.
    """

    __slots__ = ("containers", "data", "file", "hints", "lists", "open_block", "places", "roots", "text")

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.open_block: str | tuple[()] | None = None  # the top-level key in which a syntax error ended reading
        self.lists: dict[tuple[str, ...], Any] = {}  # what rules found in ``data``: see ``rules.common.items``
        self.hints = Hints()
        self.containers: list[Any] = []  # all that were read, kept alive: a freed one's identity would be taken again
        self.roots: list[Any] = []
        self.places: dict[int, Any] = {id(self.roots): []}
        self.data: Any = None

    def position(self, path: KeyPath) -> Position:
        """Where the value at ``path`` starts, or its nearest enclosing value where the path does not exist."""
        return self._walk(path)[1]

    def key_position(self, path: KeyPath) -> Position:
        """Where the key that ``path`` ends with stands; the value's position where it has no key."""
        return self._walk(path)[0]

    def entry_position(self, holder: Any, path: KeyPath) -> Position:
        """As ``position``, for a ``path`` whose last step leads out of ``holder``: no walk where that was read."""
        places = self.places.get(id(holder))
        if places is None:
            return self.position(path)
        mark = places[path[-1]][1] if isinstance(holder, dict) else places[path[-1]]
        return Position(mark.line + 1, mark.column + 1)

    def finding(self, path: KeyPath, rule: str, message: str, *, warning: bool = False, key: bool = False) -> Finding:
        """A finding at the value (with ``key=True``: at the key) that ``path`` leads to."""
        at = self.key_position(path) if key else self.position(path)
        return Finding(self.file, at.line, at.column, rule, "warning" if warning else "error", message)

    def sound(self, data: Any) -> Document:
        """The same document and places with other ``data``: what is left when values of the wrong shape are removed."""
        copy = Document(self.file, self.text)
        copy.open_block, copy.roots, copy.places, copy.data = self.open_block, self.roots, self.places, data
        copy.containers, copy.hints = self.containers, self.hints
        return copy

    @property
    def incomplete(self) -> bool:
        """Whether a syntax error ended reading early: what is absent may stand behind it."""
        return self.open_block is not None

    def _walk(self, path: KeyPath) -> tuple[Position, Position]:
        """The positions of the key and of the value that ``path`` leads to, as far as it leads."""
        value: Any = self.roots
        key_mark = mark = None
        for step in (0, *path):
            places = self.places.get(id(value))
            known = step in value if isinstance(value, dict) else isinstance(step, int) and step < len(places or ())
            if places is None or not known:
                break
            key_mark, mark = places[step] if isinstance(value, dict) else (places[step], places[step])
            value = value[step]
        if mark is None or key_mark is None:
            return Position(1, 1), Position(1, 1)
        return Position(key_mark.line + 1, key_mark.column + 1), Position(mark.line + 1, mark.column + 1)

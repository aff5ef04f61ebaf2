"""Edits of YAML text by position: a key renamed, a scalar replaced, an entry added; all else stays as it was typed.

``Edits`` keeps two accounts of every change, what it does to the text and what it does to the data. They must agree:
what reads differently from what was meant (an alias that stands in two places of which one was to change, say) is
noticed before anything is written.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any, NamedTuple

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from aprender.contracts.core_schema import plain_scalar
from aprender.contracts.document import Document, KeyPath
from aprender.contracts.findings import Position
from aprender.contracts.reader import read_text
from aprender.contracts.stand_ins import SURROGATES
from aprender.contracts.syntax import LINE_BREAKS_OF_YAML_1_1

_PROPERTIES = re.compile(r"(?:[&!]\S*\s+)*")  # anchor and tag: they stand before the scalar and belong to its node
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*\Z")
_LINE_BREAK = re.compile(r"\r\n|\r|\n")


class CannotEdit(Exception):
    """The text has a form that can't be edited by position; the message says which."""

    def __init__(self, path: KeyPath, message: str) -> None:
        super().__init__(message)
        self.path = path


class Replacement(NamedTuple):
    """The characters from ``start`` to ``end`` make place for ``text``."""

    start: int
    end: int
    text: str


class Edits:
    """Changes to one document, collected by path and applied together."""

    def __init__(self, document: Document) -> None:
        self.document, self.text = document, document.text
        found = _LINE_BREAK.search(self.text)
        self.newline = found[0] if found else "\n"
        self.root = _composed(self.text)
        self.entries: dict[int, dict[str, tuple[Node, Node]]] = {}
        self.replacements: dict[Replacement, None] = {}
        self.keys: dict[KeyPath, str] = {}
        self.values: dict[KeyPath, Any] = {}
        self.added: dict[KeyPath, dict[str, Any]] = {}

    def rename(self, path: KeyPath, new: str) -> None:
        """Give the key that ``path`` ends with another name, in the quotes that it has."""
        node = self._entry(path)[0]
        start = self._start(node)
        quote = node.style or ""
        if quote in ("|", ">"):
            raise CannotEdit(path, "the key is a block scalar; write it on one line")
        if new.endswith(str(path[-1])):  # a prefix: the key itself stays as it was typed
            at = start + len(quote)
            self._replace(at, at, new.removesuffix(str(path[-1])))
        else:
            self._replace(start, node.end_mark.index, f"{quote}{new}{quote}")
        self.keys[path] = new

    def replace(self, path: KeyPath, value: Any, text: str) -> None:
        """Put ``text``, which reads as ``value``, where a scalar on one line stands."""
        key, node = self._entry(path)
        start, end = self._start(node), node.end_mark.index
        if start == end and key is not None:  # nothing stands there; libyaml's mark may be that of what comes next
            start = end = self.text.find(":", key.end_mark.index) + 1
            text = f" {text}"
        if not isinstance(node, ScalarNode) or node.style in ("|", ">") or re.search(r"[\r\n]", self.text[start:end]):
            raise CannotEdit(path, "the value is not on one line; write it so")
        self._replace(start, end, text)
        self.values[path] = value

    def add(self, path: KeyPath, key: str, value: Any) -> None:
        """Put ``key: value`` before the first entry of the mapping at ``path``."""
        node = self._entry(path)[1] if path else self.root
        if not isinstance(node, MappingNode) or not node.value:
            raise CannotEdit(path, "there is no entry before which a key could be added")
        first = node.value[0][0].start_mark
        separator = ", " if node.flow_style else f"{self.newline}{' ' * first.column}"
        self._replace(first.index, first.index, f"{key}: {written(value)}{separator}")
        self.added.setdefault(path, {})[key] = value

    def split(self, path: KeyPath, name: str) -> None:
        """Turn the entry ``{name: story}`` into ``{class: name, story: story}``."""
        parent = self._entry(path)[1]
        key = self._entry((*path, name))[0]
        separator = ", " if parent.flow_style else f"{self.newline}{' ' * key.start_mark.column}"
        start = self._start(key)
        self._replace(start, key.end_mark.index, f"class: {name}{separator}story")
        self.values[path] = {"class": name, "story": self.value(path)[name]}

    def unlist(self, path: KeyPath, name: str) -> None:
        """Turn a list of mappings that begin with the key ``name`` into one mapping by their names."""
        parent, node = self._entry(path)
        deeper = " " if node.start_mark.column == parent.start_mark.column else ""  # a list may stand as far left
        for item in node.value:
            key, value = item.value[0]
            dash = self.text.rfind("-", 0, key.start_mark.index)
            between = self.text[dash + 1 : key.start_mark.index]
            if node.flow_style or key.value != name or between.strip(" ") or not isinstance(value, ScalarNode):
                message = f"to become a mapping by name, each entry of this list must begin with '- {name}: ...'"
                raise CannotEdit(path, message)
            self._replace(dash, value.end_mark.index, f"{deeper}{written(value.value)}:")
        entries = {item[name]: {key: entry for key, entry in item.items() if key != name} for item in self.value(path)}
        self.values[path] = entries

    def value(self, path: KeyPath) -> Any:
        """The value at ``path`` before the changes."""
        value = self.document.data
        for step in path:
            value = value[step]
        return value

    def raw(self, path: KeyPath) -> str:
        """A scalar as it was typed, quotes included."""
        node = self._entry(path)[1]
        return self.text[self._start(node) : node.end_mark.index]

    def applied(self) -> str:
        """The text with all changes made."""
        parts, at = [], 0
        for start, end, text in self._in_order():
            parts += [self.text[at:start], text]
            at = end
        return "".join([*parts, self.text[at:]])

    def expected(self) -> Any:
        """The data that the changed text must read as."""
        return self._rebuilt(self.document.data, ())

    def origins(self, places: Iterable[Position]) -> list[Position]:
        """Where the characters at ``places`` of the changed text came from."""
        after = _line_starts(self.applied())
        before = _line_starts(self.text)
        offsets = [self._origin(after[min(line, len(after)) - 1] + column - 1) for line, column in places]
        lines = [bisect_right(before, offset) for offset in offsets]
        return [Position(line, offset - before[line - 1] + 1) for line, offset in zip(lines, offsets, strict=True)]

    def _origin(self, offset: int) -> int:
        shift = 0
        for start, end, text in self._in_order():
            if offset < start + shift:
                break
            if offset < start + shift + len(text):
                return start
            shift += len(text) - (end - start)
        return offset - shift

    def _in_order(self) -> list[Replacement]:
        return sorted(self.replacements, key=lambda one: (one.start, one.end))

    def _replace(self, start: int, end: int, text: str) -> None:
        self.replacements[Replacement(start, end, text)] = None

    def _start(self, node: Node) -> int:
        index: int = node.start_mark.index
        found = _PROPERTIES.match(self.text, index, node.end_mark.index)
        return found.end() if found else index

    def _entry(self, path: KeyPath) -> tuple[Any, Any]:
        """The nodes of the key and of the value at ``path``."""
        key: Any = None
        node: Any = self.root
        for step in path:
            if isinstance(node, SequenceNode) and isinstance(step, int):
                key, node = None, node.value[step]
                continue
            entry = self._entries(node).get(str(step)) if isinstance(node, MappingNode) else None
            if entry is None:
                raise CannotEdit(path, "the key is not written out in plain text")
            key, node = entry
        return key, node

    def _entries(self, node: MappingNode) -> dict[str, tuple[Node, Node]]:
        """The entries of a mapping by key, those that it merges among them: its own keys win, then earlier sources."""
        if id(node) not in self.entries:
            found: dict[str, tuple[Node, Node]] = {}
            for name, merged in node.value:
                if name.value == "<<":
                    sources = merged.value if isinstance(merged, SequenceNode) else [merged]
                    for source in filter(lambda source: isinstance(source, MappingNode), sources):
                        found = {**self._entries(source), **found}
            self.entries[id(node)] = {**found, **{key.value: (key, value) for key, value in node.value}}
        return self.entries[id(node)]

    def _rebuilt(self, value: Any, path: KeyPath) -> Any:
        if path in self.values:
            return self.values[path]
        if isinstance(value, list):
            return [self._rebuilt(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        kept = {self.keys.get((*path, key), key): self._rebuilt(entry, (*path, key)) for key, entry in value.items()}
        return {**self.added.get(path, {}), **kept}


def written(value: Any) -> str:
    """A scalar as YAML: plain where that reads as the same text, else in double quotes."""
    if isinstance(value, str) and _PLAIN.match(value) and plain_scalar(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _line_starts(text: str) -> list[int]:
    return [0, *(found.end() for found in _LINE_BREAK.finditer(text))]


def read_again(text: str, file: str) -> Document | None:
    """The changed text as a document; None where it can't be read any more."""
    document, findings = read_text(text, file)
    return None if any(finding.severity == "error" for finding in findings) else document


def _composed(text: str) -> Any:
    """The nodes of ``text``. It was read before, so it is one document of bounded depth."""
    stand_ins = {ord(mark): "_" for mark in LINE_BREAKS_OF_YAML_1_1}  # libyaml would count them as line breaks
    text = SURROGATES.sub(r"\1\\u005f\\u005f", text.translate(stand_ins))  # which it does not read, either
    try:
        node = yaml.compose(text, Loader=yaml.CBaseLoader)
    except yaml.YAMLError as error:
        what = getattr(error, "problem", None) or error
        raise CannotEdit((), f"the file can't be edited by position: {what}") from None
    return node

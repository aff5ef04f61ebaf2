"""YAML text to plain data in which every value keeps its line and column.

PyYAML's C parser supplies events; building from events, not from composed nodes, keeps nesting and alias
expansion bounded and tells ``"1"`` from ``1`` and from ``!!str 1``. Scalars follow the YAML 1.2 core schema
(https://yaml.org/spec/1.2.2/#103-core-schema): ``1e-5`` is a number, ``on`` and ``1:30`` are strings, ``010`` is ten.
Nothing but dict, list, str, int, float, bool and None is ever constructed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from aprender.contracts.findings import Finding, Position

KeyPath = tuple[str | int, ...]

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 64
MAX_VALUES = 200_000  # aliases count each time they are expanded: an alias bomb ends here

_STR_TAG, _SEQ_TAG, _MAP_TAG = (f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map"))
_INT = re.compile(r"[-+]?[0-9]+\Z")
_BASED_INT = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NON_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_WORDS = dict.fromkeys(("", "~", "null", "Null", "NULL")) | {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass
class Document:
    """One YAML document as plain data, with the position of every value and every key by its path."""

    file: str
    data: Any
    values: dict[KeyPath, Position] = field(default_factory=dict)
    keys: dict[KeyPath, Position] = field(default_factory=dict)

    def position(self, path: KeyPath) -> Position:
        """Where the value at ``path`` starts, or its nearest enclosing value where the path does not exist."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Position(1, 1))

    def finding(self, path: KeyPath, rule: str, message: str, *, warning: bool = False, key: bool = False) -> Finding:
        """A finding at the value (with ``key=True``: at the key) that ``path`` leads to."""
        at = self.keys[path] if key and path in self.keys else self.position(path)
        return Finding(self.file, at.line, at.column, rule, "warning" if warning else "error", message)


class _Stop(Exception):
    """Reading can't go on; the finding says why."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding


def read_file(path: Path) -> tuple[Document | None, list[Finding]]:
    """Read the contract at ``path``; unreadable files are findings, not exceptions."""
    if path.exists() and not path.is_file() and not path.is_dir():
        return None, [Finding(str(path), 1, 1, "YAML-002", "error", "not a regular file; a contract is one")]
    try:
        raw = path.read_bytes()
    except OSError as error:
        return None, [Finding(str(path), 1, 1, "YAML-002", "error", f"can't read the file: {error.strerror}")]
    if len(raw) > MAX_BYTES:
        message = f"the file has {len(raw):,} bytes; a contract has at most {MAX_BYTES:,}"
        return None, [Finding(str(path), 1, 1, "YAML-004", "error", message)]
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        at = (before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
        message = f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
        return None, [Finding(str(path), *at, "YAML-002", "error", message)]
    return read_text(text, str(path))


def read_text(text: str, file: str) -> tuple[Document | None, list[Finding]]:
    """Read YAML ``text``. Returns the document (None where it can't be read) and the findings, never raises."""
    builder = _Builder(file, text)
    try:
        document = builder.document()
    except _Stop as stop:
        return None, [*builder.findings, stop.finding]
    return document, builder.findings


class _Builder:
    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.findings: list[Finding] = []
        self.document_so_far = Document(file, None)
        self.anchors: dict[str, list[Any]] = {}
        self.open_recordings: list[list[Any]] = []
        self.values_built = 0
        self.events = self._events(text)

    def _events(self, text: str) -> Any:
        try:
            yield from yaml.parse(text, Loader=yaml.CSafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            context = f" {error.context}" if error.context else ""
            raise _Stop(self._finding(line, column, "YAML-001", f"not valid YAML:{context} {error.problem}")) from None
        except yaml.reader.ReaderError as error:
            before = text[: error.position] if isinstance(error.position, int) else ""
            line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
            message = f"not valid YAML: character U+{error.character:04X} is not allowed; remove or escape it"
            raise _Stop(self._finding(line, column, "YAML-001", message)) from None

    def _finding(self, line: int, column: int, rule: str, message: str) -> Finding:
        return Finding(self.file, line, column, rule, "error", message)

    def _at(self, event: Any, rule: str, message: str) -> Finding:
        at = _position(event)
        return self._finding(at.line, at.column, rule, message)

    def document(self) -> Document:
        """Consume the whole stream: exactly one document."""
        next(self.events)  # stream start
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            raise _Stop(self._finding(1, 1, "YAML-001", "the file is empty; a contract is a mapping"))
        self.document_so_far.data = self._value(next(self.events), ())
        next(self.events)  # document end
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise _Stop(self._at(event, "YAML-001", "a second document starts here; one file holds one contract"))
        return self.document_so_far

    def _value(self, event: Any, path: KeyPath) -> Any:
        self.values_built += 1
        if self.values_built > MAX_VALUES:
            raise _Stop(self._at(event, "YAML-004", f"more than {MAX_VALUES:,} values, aliases expanded"))
        if len(path) > MAX_DEPTH:
            raise _Stop(self._at(event, "YAML-004", f"nested more than {MAX_DEPTH} levels deep"))
        self.document_so_far.values.setdefault(path, _position(event))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if not isinstance(event, yaml.ScalarEvent) and event.tag not in (None, "!", _SEQ_TAG, _MAP_TAG):
            self._refuse_tag(event)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(path)
        else:
            value = self._mapping(event, path)
        if event.anchor:
            self.anchors[event.anchor] = value
        return value

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self.anchors:
            message = f"alias *{event.anchor} has no finished anchor &{event.anchor} before it"
            raise _Stop(self._at(event, "YAML-001", message))
        value = self.anchors[event.anchor]
        self.values_built += _size(value, MAX_VALUES)
        if self.values_built > MAX_VALUES:
            raise _Stop(self._at(event, "YAML-004", f"more than {MAX_VALUES:,} values, aliases expanded"))
        return value

    def _refuse_tag(self, event: Any) -> None:
        self.findings.append(self._at(event, "YAML-003", f"tag {event.tag} is not allowed: plain data only"))

    def _sequence(self, path: KeyPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items))))
        return items

    def _mapping(self, start: Any, path: KeyPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise _Stop(self._at(event, "YAML-003", "a key must be plain text, not a list, mapping or alias"))
            key = event.value
            if event.tag not in (None, "!", _STR_TAG):
                self._refuse_tag(event)
            if key == "<<" and event.implicit[0]:
                self.findings.append(self._at(event, "YAML-003", "merge keys (<<) are not read; write the keys out"))
            key_path = (*path, key)
            if key in mapping:
                first = self.document_so_far.keys[key_path]
                message = f"key '{key}' stands twice in this mapping, first at {first.line}:{first.column}; keep one"
                self.findings.append(self._at(event, "SCHEMA-020", message))
                self._value(next(self.events), (*path, key, "(duplicate)"))
                continue
            self.document_so_far.keys[key_path] = _position(event)
            mapping[key] = self._value(next(self.events), key_path)
        return mapping

    def _scalar(self, event: Any) -> Any:
        if event.tag not in (None, _STR_TAG, "!"):
            self._refuse_tag(event)
            return event.value
        if event.tag is not None or not event.implicit[0]:
            return event.value
        value = plain_scalar(event.value)
        if isinstance(value, int) and abs(value) > 2**53:
            self.findings.append(
                self._at(event, "YAML-005", "a whole number beyond 2**53 is not exact; quote it if text")
            )
            return event.value
        if isinstance(value, float) and not math.isfinite(value):
            message = f"{event.value} is not a finite number; if text is meant, quote it"
            self.findings.append(self._at(event, "YAML-005", message))
        return value


def _position(event: Any) -> Position:
    return Position(event.start_mark.line + 1, event.start_mark.column + 1)


def plain_scalar(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar by the YAML 1.2 core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        return int(text[:20]) if len(text) > 20 else int(text)  # beyond 2**53 either way, and int() has a limit
    if _BASED_INT.match(text):
        return int(text[:20], 0)
    if _FLOAT.match(text) or _NON_FINITE.match(text):
        return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").replace(".nan", "nan")
                     .replace(".NaN", "nan").replace(".NAN", "nan"))  # fmt: skip
    return text


def _size(value: Any, limit: int) -> int:
    """How many values ``value`` holds, itself included, counted up to ``limit``."""
    count, pending = 0, [value]
    while pending and count <= limit:
        count += 1
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return count

"""YAML text to plain data in which every value keeps its line and column.

PyYAML's C parser supplies events. Building from events, not from composed nodes, is as fast, keeps nesting and alias
expansion bounded (composing recurses in C and overflows the stack), tells ``"1"`` from ``1``, and leaves the part
before a syntax error readable. Scalars follow the YAML 1.2 core schema: ``1e-5`` is a number, ``on`` and ``1:30`` are
strings, ``010`` is ten. Nothing but dict, list, str, int, float, bool and None is ever constructed.
"""

from __future__ import annotations

import math
from codecs import BOM_UTF8
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import yaml
from yaml.cyaml import CParser  # type: ignore[attr-defined]
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)
from yaml.reader import ReaderError

from aprender.contracts.core_schema import NOT_ALWAYS_TEXT, plain_scalar
from aprender.contracts.document import Document
from aprender.contracts.files import MAX_BYTES
from aprender.contracts.findings import Finding
from aprender.contracts.syntax import LINE_BREAKS_OF_YAML_1_1, lines_of, syntax_finding, undecodable

if TYPE_CHECKING:
    from aprender.contracts.before_error import Open

MAX_DEPTH = 64
MAX_VALUES = 120_000  # aliases count each time they are expanded: an alias bomb ends here

_STR_TAG, _SEQ_TAG, _MAP_TAG = (f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map"))


class _Stop(Exception):
    """Reading can't go on; the finding says why. ``whole``: nothing was read, whatever stands before the place."""

    def __init__(self, finding: Finding, *, whole: bool = False) -> None:
        self.finding = finding
        self.whole = whole


def read_bytes(raw: bytes, file: str) -> tuple[Document | None, list[Finding]]:
    """Read the contract in ``raw``; what can't be decoded is a finding, not an exception."""
    if len(raw) > MAX_BYTES:
        message = f"the file has more than {MAX_BYTES:,} bytes; no contract needs so many"
        return None, [Finding(file, 1, 1, "YAML-004", "error", message)]
    raw = raw.removeprefix(BOM_UTF8)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return _read_before(raw.decode("utf-8", "replace"), undecodable(raw, error, file))
    return _read(text, raw, file)


def read_text(text: str, file: str) -> tuple[Document | None, list[Finding]]:
    """Read YAML ``text``. Returns the document (None where it can't be read) and the findings, never raises.

    A syntax error leaves what stands before it: that document has an ``open_block`` and lacks the entry that the error
    is in.
    """
    return _read(text, text.encode(), file)


def _read(text: str, raw: bytes, file: str) -> tuple[Document | None, list[Finding]]:
    builder = _Builder(text, raw, file)
    try:
        builder.read()
    except _Stop as stop:
        if stop.whole:  # libyaml looks at the characters of all it buffers before it parses any
            return _read_before(text, stop.finding)
        from aprender.contracts.before_error import before_error

        return before_error(builder.document, builder.path), [*builder.findings, stop.finding]
    return builder.document, builder.findings


def _read_before(text: str, finding: Finding) -> tuple[Document | None, list[Finding]]:
    """What stands in the lines before the one with a character that ``finding`` says can't be read."""
    from aprender.contracts.before_error import before_error, before_line

    before = "".join(f"{line}\n" for line in lines_of(text)[: finding.line - 1])
    builder = _Builder(before, before.encode(), finding.file)
    try:
        builder.read()
    except _Stop:  # the rest of the document is missing: that is no other fault
        document = before_error(builder.document, builder.path)
    else:
        document = before_line(builder.document)
    if document is not None:
        document.text = text
    return document, [*builder.findings, finding]


def _events_of(text: str, raw: bytes) -> Callable[[], Any]:
    """What gives the next of libyaml's events of ``text``, encoded as ``raw``, and None after the last."""
    escapes = "\\" in text and "\\u" in text  # one character is found forty times faster than two
    if not escapes and not any(mark in text for mark in LINE_BREAKS_OF_YAML_1_1):
        event: Callable[[], Any] = CParser(raw).get_event
        return event
    from aprender.contracts.stand_ins import StandIns  # few contracts need them

    return StandIns(text).get_event


class _Builder:
    """Builds the document by descending into it, one call for each container that is open: their depth is bounded."""

    def __init__(self, text: str, raw: bytes, file: str) -> None:
        self.text, self.raw, self.file = text, raw, file
        self.findings: list[Finding] = []
        self.document = Document(file, text)
        self.path: list[Open] = []
        self.anchors: dict[str, Any] = {}
        self.merging: set[int] = set()
        self.values_left = MAX_VALUES

    def read(self) -> None:
        """Read the whole stream: exactly one document."""
        self.get_event = _events_of(self.text, self.raw)
        try:
            self._stream(self.document.roots)
        except yaml.YAMLError as error:
            whole = isinstance(error, ReaderError)
            raise _Stop(syntax_finding(error, self.text, self.file), whole=whole) from None
        self.document.data = self.document.roots[0]

    def _stream(self, roots: list[Any]) -> None:
        self.get_event()  # the stream starts
        if self.get_event().__class__ is StreamEndEvent:
            message = "the file is empty; a contract is a mapping"
            raise _Stop(Finding(self.file, 1, 1, "YAML-001", "error", message))
        self._list(roots, self.document.places[id(roots)], DocumentEndEvent)
        event = self.get_event()
        if event.__class__ is DocumentStartEvent:
            raise _Stop(self._at(event, "YAML-001", "a second document starts here; one file holds one contract"))

    def _list(self, items: list[Any], places: list[Any], end: type = SequenceEndEvent) -> None:
        while (event := self.get_event()).__class__ is not end:
            self.values_left -= 1
            if self.values_left < 0:
                self._refuse_more(event)
            items.append(self._value(event))
            places.append(event.start_mark)

    def _mapping(self, mapping: dict[str, Any], places: dict[str, Any]) -> None:
        """Most keys and values are text and nothing else, which is told here: a call for each would take too long."""
        get_event = self.get_event
        while (event := get_event()).__class__ is ScalarEvent:
            key = event.value
            if key in mapping or key == "<<" or event.tag is not None:
                key = self._key(event, mapping, places)
            of_value = get_event()
            self.values_left -= 1
            if self.values_left < 0:
                self._refuse_more(of_value)
            if not (
                of_value.__class__ is ScalarEvent
                and of_value.tag is None
                and of_value.anchor is None
                and (value := of_value.value)
                and (value[0] not in NOT_ALWAYS_TEXT or of_value.style)
            ):
                value = self._value(of_value, key, event.start_mark)
            if key is not None:
                mapping[key], places[key] = value, (event.start_mark, of_value.start_mark)
        if event.__class__ is not MappingEndEvent:
            self._refuse_key(event)
        if self.merging and id(mapping) in self.merging:
            self._merge(mapping, places)

    def _value(self, event: Any, key: Any = None, key_mark: Any = None) -> Any:
        """What ``event`` stands for; where it opens a container, with all that is in it."""
        if event.__class__ is ScalarEvent:
            return self._scalar(event)
        if event.__class__ is AliasEvent:
            return self._alias(event)
        self._look_at_container(event)
        value: Any
        places: Any
        fill: Callable[[Any, Any], None]
        if event.__class__ is MappingStartEvent:
            value, places, fill = {}, {}, self._mapping
        else:
            value, places, fill = [], [], self._list
        self.document.places[id(value)] = places
        self.document.containers.append(value)
        self.path.append((key, (key_mark, event.start_mark), value))
        fill(value, places)
        self.path.pop()
        if event.anchor is not None:
            self.anchors[event.anchor] = value
        return value

    def _look_at_container(self, event: Any) -> None:
        if len(self.path) >= MAX_DEPTH:
            raise _Stop(self._at(event, "YAML-004", f"nested more than {MAX_DEPTH} levels deep"))
        if event.tag is not None and event.tag not in ("!", _SEQ_TAG, _MAP_TAG):
            self._refuse_tag(event)

    def _scalar(self, event: Any) -> Any:
        value, tag = event.value, event.tag
        if tag is None and event.implicit[0]:
            if not value or value[0] in NOT_ALWAYS_TEXT:
                value = self._number_or_word(event, value)
        elif tag is not None and tag not in (_STR_TAG, "!"):
            self._refuse_tag(event)
        if event.anchor is not None:
            self.anchors[event.anchor] = value
        return value

    def _number_or_word(self, event: Any, text: str) -> Any:
        value = plain_scalar(text)
        if isinstance(value, int) and abs(value) > 2**53:
            message = "a whole number beyond 2**53 is not exact; quote it if text"
            self.findings.append(self._at(event, "YAML-005", message))
            return text
        if isinstance(value, float) and not math.isfinite(value):
            message = f"{text} is not a finite number; if text is meant, quote it"
            self.findings.append(self._at(event, "YAML-005", message))
            return text
        return value

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self.anchors:
            message = f"alias *{event.anchor} has no finished anchor &{event.anchor} before it"
            raise _Stop(self._at(event, "YAML-001", message))
        value = self.anchors[event.anchor]
        self.values_left -= _size(value, MAX_VALUES) - 1
        if self.values_left < 0:
            self._refuse_more(event)
        return value

    def _key(self, event: Any, mapping: dict[str, Any], places: dict[str, Any]) -> Any:
        """The key that ``event`` is, after saying what is wrong with it; None where the mapping has it already."""
        key = event.value
        if event.tag not in (None, "!", _STR_TAG):
            self._refuse_tag(event)
        if key == "<<" and event.implicit[0]:
            message = "a merge key (<<) hides what is stated here; it is read, but write the keys out"
            self.findings.append(self._at(event, "YAML-006", message)._replace(severity="warning"))
            self.merging.add(id(mapping))
        if key in mapping:
            first = places[key][0]
            where = f"first at {first.line + 1}:{first.column + 1}"
            message = f"key '{key}' stands twice in this mapping, {where}; keep one"
            self.findings.append(self._at(event, "SCHEMA-020", message))
            return None
        return key

    def _merge(self, mapping: dict[str, Any], places: dict[str, Any]) -> None:
        """Resolve ``<<`` (https://yaml.org/type/merge.html): the mapping's own keys win, then earlier sources."""
        merged, (key_mark, _) = mapping.pop("<<"), places.pop("<<")
        for source in merged if isinstance(merged, list) else [merged]:
            if not isinstance(source, dict):
                message = "a merge key (<<) takes a mapping or a list of mappings"
                place = (key_mark.line + 1, key_mark.column + 1)
                self.findings.append(Finding(self.file, *place, "YAML-003", "error", message))
                continue
            self.values_left -= len(source)
            for key in source.keys() - mapping.keys():
                mapping[key] = source[key]
                places[key] = self.document.places[id(source)][key]

    def _refuse_key(self, event: Any) -> NoReturn:
        if event.__class__ is AliasEvent:
            self._alias(event)  # which may have something worse to say of it
        else:
            self._look_at_container(event)
        raise _Stop(self._at(event, "YAML-003", "a key must be plain text, not a list, mapping or alias"))

    def _refuse_more(self, event: Any) -> NoReturn:
        raise _Stop(self._at(event, "YAML-004", f"more than {MAX_VALUES:,} values, aliases expanded"))

    def _refuse_tag(self, event: Any) -> None:
        self.findings.append(self._at(event, "YAML-003", f"tag {event.tag} is not allowed: plain data only"))

    def _at(self, event: Any, rule: str, message: str) -> Finding:
        mark = event.start_mark
        return Finding(self.file, mark.line + 1, mark.column + 1, rule, "error", message)


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

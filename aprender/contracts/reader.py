"""YAML text to plain data in which every value keeps its line and column.

PyYAML's C parser supplies events. Building from events, not from composed nodes, is as fast, keeps nesting and alias
expansion bounded (composing recurses in C and overflows the stack), tells ``"1"`` from ``1``, and leaves the part
before a syntax error readable. Scalars follow the YAML 1.2 core schema
(https://yaml.org/spec/1.2.2/#103-core-schema): ``1e-5`` is a number, ``on`` and ``1:30`` are strings, ``010`` is ten.
Nothing but dict, list, str, int, float, bool and None is ever constructed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

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
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)
from yaml.reader import ReaderError

from aprender.contracts.document import Document
from aprender.contracts.files import MAX_BYTES
from aprender.contracts.findings import Finding
from aprender.contracts.syntax import LINE_BREAKS_OF_YAML_1_1, SURROGATES, lines_of, syntax_finding, undecodable

MAX_DEPTH = 64
MAX_VALUES = 120_000  # aliases count each time they are expanded: an alias bomb ends here

_STR_TAG, _SEQ_TAG, _MAP_TAG = (f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map"))
_NOT_ALWAYS_TEXT = frozenset("-+.0123456789~nNtTfF")  # how a plain scalar starts that may be more than text
_INT = re.compile(r"[-+]?[0-9]+\Z")
_BASED_INT = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NON_FINITE = {f"{sign}.{word}": math.inf for sign in ("", "+", "-") for word in ("inf", "Inf", "INF")} | dict.fromkeys(
    (".nan", ".NaN", ".NAN"), math.nan
)
_WORDS = dict.fromkeys(("", "~", "null", "Null", "NULL")) | {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_TWO_ESCAPES = re.compile(r"(?:\\u[0-9a-f]{4}){2}")
_DROPPED: Any = object()  # stands for the key of a value that is read and not kept


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
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _read_before(raw.decode("utf-8", "replace"), undecodable(raw, error, file))
    return read_text(text, file)


def read_text(text: str, file: str) -> tuple[Document | None, list[Finding]]:
    """Read YAML ``text``. Returns the document (None where it can't be read) and the findings, never raises.

    A syntax error leaves what stands before it: that document has an ``open_block`` and lacks the entry that the error
    is in.
    """
    builder = _Builder(file, text)
    try:
        builder.read()
    except _Stop as stop:
        if stop.whole:  # libyaml looks at the characters of all it buffers before it parses any
            return _read_before(text, stop.finding)
        return builder.what_was_read(), [*builder.findings, stop.finding]
    return builder.document, builder.findings


def _read_before(text: str, finding: Finding) -> tuple[Document | None, list[Finding]]:
    """What stands in the lines before the one with a character that ``finding`` says can't be read."""
    builder = _Builder(finding.file, "".join(f"{line}\n" for line in lines_of(text)[: finding.line - 1]))
    try:
        builder.read()
    except _Stop:  # the rest of the document is missing: that is no other fault
        document = builder.what_was_read()
    else:
        document = builder.what_was_read_of_a_part()
    if document is not None:
        document.text = text
    return document, [*builder.findings, finding]


class _Builder:
    """Consumes events one by one; ``stack`` holds the containers that are still open."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text
        self.findings: list[Finding] = []
        self.document = Document(file, text)
        self.container: Any = self.document.roots
        self.places: Any = self.document.places[id(self.document.roots)]
        self.key: Any = None
        self.key_mark: Any = None
        self.stack: list[tuple[Any, Any, Any, Any, str | None]] = []
        self.anchors: dict[str, Any] = {}
        self.merging: set[int] = set()
        self.values_built = 0
        self.restored: dict[int, str] = {}
        self.escaped: dict[str, str] = {}

    def read(self) -> None:
        """Consume the whole stream: exactly one document."""
        parser = CParser(self._for_libyaml())
        handlers = {
            ScalarEvent: self._scalar,
            MappingStartEvent: self._mapping,
            SequenceStartEvent: self._sequence,
            MappingEndEvent: self._end,
            SequenceEndEvent: self._end,
            AliasEvent: self._alias,
            StreamStartEvent: self._nothing,
            DocumentStartEvent: self._document_start,
            DocumentEndEvent: self._nothing,
            StreamEndEvent: self._stream_end,
        }
        try:
            self._consume(parser.get_event, handlers)
        except yaml.YAMLError as error:
            whole = isinstance(error, ReaderError)
            raise _Stop(syntax_finding(error, self.text, self.file), whole=whole) from None
        self.document.data = self.document.roots[0]

    def _consume(self, get_event: Callable[[], Any], handlers: Mapping[type, Callable[[Any], None]]) -> None:
        """Hand every event to its handler; what most are, plain text for a mapping's key or value, is done here.

        Those are four of five events, and a call for each would take a tenth of the time that reading takes.
        """
        container, places, plain = self.container, self.places, not self.restored
        in_mapping = False
        while (event := get_event()) is not None:
            if event.__class__ is ScalarEvent and event.tag is None and plain:
                value = event.value
                if in_mapping and (key := self.key) is None:
                    if value not in container and value != "<<":
                        self.key, self.key_mark = value, event.start_mark
                        continue
                elif (
                    event.anchor is None
                    and value
                    and value[0] not in _NOT_ALWAYS_TEXT
                    and self.values_built < MAX_VALUES
                ):
                    if not in_mapping:
                        container.append(value)
                        places.append(event.start_mark)
                        self.values_built += 1
                        continue
                    if key is not _DROPPED:
                        container[key], places[key] = value, (self.key_mark, event.start_mark)
                        self.key = None
                        self.values_built += 1
                        continue
            handlers[event.__class__](event)
            container, places = self.container, self.places
            in_mapping = container.__class__ is dict

    def what_was_read(self) -> Document | None:
        """The document before a syntax error, without the entry of a block that was open there; None if nothing is."""
        if not self.document.roots or not isinstance(self.document.roots[0], dict):
            return None
        self.document.data = self.document.roots[0]
        path: list[Any] = []
        for container, _, key, _, _ in self.stack[1:]:
            path.append(len(container) - 1 if key is None else key)
        self.document.open_block = path[0] if path else ()
        if len(path) > 1 and _DROPPED not in path[:2]:
            del self.document.data[path[0]][path[1]]
        elif self.container and not isinstance(self.container[last := self._last_step()], dict | list):
            del self.container[last]  # the scalar next to the error may be more, or less, than was meant
        return self.document

    def what_was_read_of_a_part(self) -> Document | None:
        """The document of the first lines of a file, without the last entry, which may go on after them."""
        data = self.document.data
        if not isinstance(data, dict) or not data:
            return None
        self.container, self.document.open_block = data, next(reversed(data))
        last = data[self.document.open_block]
        if isinstance(last, dict | list) and last:
            self.container = last
        del self.container[self._last_step()]
        return self.document

    def _last_step(self) -> Any:
        return len(self.container) - 1 if isinstance(self.container, list) else next(reversed(self.container))

    def _for_libyaml(self) -> str:
        """The text with what libyaml reads in another way than YAML 1.2 replaced, character for character.

        It counts NEL, LS and PS as line breaks, and refuses a character that is escaped as two surrogates.
        """
        marks = [mark for mark in LINE_BREAKS_OF_YAML_1_1 if mark in self.text]
        pairs = {found[2] for found in SURROGATES.finditer(self.text)} if "\\u" in self.text else set()
        if not marks and not pairs:
            return self.text
        used = set(map(ord, set(self.text))) | {int(code, 16) for code in _ESCAPE.findall(self.text)}
        unused = (code for code in range(0xE000, 0xF8FF) if code not in used)
        replaced = {ord(mark): next(unused) for mark in marks}
        self.restored = {code: chr(mark) for mark, code in replaced.items()}
        filler = next(unused)
        for pair, code in zip(sorted(pairs), unused, strict=False):  # more of them than there are codes stay refused
            self.escaped[pair] = f"\\u{code:04x}\\u{filler:04x}"
            self.restored[code], self.restored[filler] = _character(pair), ""
        text = SURROGATES.sub(lambda found: found[1] + self.escaped.get(found[2], found[2]), self.text)
        return text.translate(replaced)

    def _restored(self, event: Any) -> str:
        """The text of a scalar as it stands in the file; outside of double quotes an escape is plain text."""
        value: str = event.value.translate(self.restored)
        if self.escaped and event.style != '"' and "\\u" in value:
            texts = {stand_in: pair for pair, stand_in in self.escaped.items()}
            value = _TWO_ESCAPES.sub(lambda found: texts.get(found[0], found[0]), value)
        return value

    def _at(self, event: Any, rule: str, message: str) -> Finding:
        mark = event.start_mark
        return Finding(self.file, mark.line + 1, mark.column + 1, rule, "error", message)

    def _nothing(self, event: Any) -> None:
        pass

    def _document_start(self, event: Any) -> None:
        if self.document.roots:
            raise _Stop(self._at(event, "YAML-001", "a second document starts here; one file holds one contract"))

    def _stream_end(self, event: Any) -> None:
        if not self.document.roots:
            message = "the file is empty; a contract is a mapping"
            raise _Stop(Finding(self.file, 1, 1, "YAML-001", "error", message))

    def _attach(self, event: Any, value: Any) -> None:
        """Put a finished or just opened ``value`` where it belongs."""
        self.values_built += 1
        if self.values_built > MAX_VALUES:
            raise _Stop(self._at(event, "YAML-004", f"more than {MAX_VALUES:,} values, aliases expanded"))
        if self.container.__class__ is list:
            self.container.append(value)
            self.places.append(event.start_mark)
        else:
            if self.key is None:
                raise _Stop(self._at(event, "YAML-003", "a key must be plain text, not a list, mapping or alias"))
            if self.key is not _DROPPED:
                self.container[self.key] = value
                self.places[self.key] = (self.key_mark, event.start_mark)
            self.key = None

    def _open(self, event: Any, value: Any, places: Any) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise _Stop(self._at(event, "YAML-004", f"nested more than {MAX_DEPTH} levels deep"))
        if event.tag is not None and event.tag not in ("!", _SEQ_TAG, _MAP_TAG):
            self._refuse_tag(event)
        key = self.key
        self._attach(event, value)
        self.document.places[id(value)] = places
        self.document.containers.append(value)
        self.stack.append((self.container, self.places, key, value, event.anchor))
        self.container, self.places = value, places

    def _mapping(self, event: Any) -> None:
        self._open(event, {}, {})

    def _sequence(self, event: Any) -> None:
        self._open(event, [], [])

    def _end(self, event: Any) -> None:
        finished = self.container
        self.container, self.places, _, _, anchor = self.stack.pop()
        if self.merging and id(finished) in self.merging:
            self._merge(finished)
        if anchor is not None:
            self.anchors[anchor] = finished

    def _alias(self, event: Any) -> None:
        if event.anchor not in self.anchors:
            message = f"alias *{event.anchor} has no finished anchor &{event.anchor} before it"
            raise _Stop(self._at(event, "YAML-001", message))
        value = self.anchors[event.anchor]
        self.values_built += _size(value, MAX_VALUES) - 1
        self._attach(event, value)

    def _scalar(self, event: Any) -> None:
        if self.key is None and self.container.__class__ is dict:
            self._mapping_key(event)
            return
        value = event.value
        if self.restored:
            value = self._restored(event)
        tag = event.tag
        if tag is None and event.implicit[0]:
            if not value or value[0] in _NOT_ALWAYS_TEXT:
                value = self._number_or_word(event, value)
        elif tag is not None and tag not in (_STR_TAG, "!"):
            self._refuse_tag(event)
        self._attach(event, value)
        if event.anchor is not None:
            self.anchors[event.anchor] = value

    def _mapping_key(self, event: Any) -> None:
        key = self._restored(event) if self.restored else event.value
        if event.tag not in (None, "!", _STR_TAG):
            self._refuse_tag(event)
        if key == "<<" and event.implicit[0]:
            message = "a merge key (<<) hides what is stated here; it is read, but write the keys out"
            self.findings.append(self._at(event, "YAML-006", message)._replace(severity="warning"))
            self.merging.add(id(self.container))
        if key in self.container:
            first = self.places[key][0]
            where = f"first at {first.line + 1}:{first.column + 1}"
            message = f"key '{key}' stands twice in this mapping, {where}; keep one"
            self.findings.append(self._at(event, "SCHEMA-020", message))
            key = _DROPPED
        self.key, self.key_mark = key, event.start_mark

    def _merge(self, mapping: dict[str, Any]) -> None:
        """Resolve ``<<`` (https://yaml.org/type/merge.html): the mapping's own keys win, then earlier sources."""
        places = self.document.places[id(mapping)]
        merged, (key_mark, _) = mapping.pop("<<"), places.pop("<<")
        for source in merged if isinstance(merged, list) else [merged]:
            if not isinstance(source, dict):
                message = "a merge key (<<) takes a mapping or a list of mappings"
                place = (key_mark.line + 1, key_mark.column + 1)
                self.findings.append(Finding(self.file, *place, "YAML-003", "error", message))
                continue
            self.values_built += len(source)
            for key in source.keys() - mapping.keys():
                mapping[key] = source[key]
                places[key] = self.document.places[id(source)][key]

    def _refuse_tag(self, event: Any) -> None:
        self.findings.append(self._at(event, "YAML-003", f"tag {event.tag} is not allowed: plain data only"))

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


def _character(pair: str) -> str:
    """The character that two escaped surrogates stand for."""
    high, low = (int(code, 16) for code in _ESCAPE.findall(pair))
    return chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00)


def plain_scalar(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar by the YAML 1.2 core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0].isalpha():
        return text
    if _INT.match(text):
        return int(text[:20]) if len(text) > 20 else int(text)  # beyond 2**53 either way, and int() has a limit
    if _BASED_INT.match(text):
        return int(text[:20], 0)
    if _FLOAT.match(text):
        return float(text)
    return _NON_FINITE.get(text, text)


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

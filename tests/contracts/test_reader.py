"""Reading YAML: YAML 1.2 values, exact positions, and bounded work on hostile files."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aprender.contracts.core_schema import plain_scalar
from aprender.contracts.findings import Position
from aprender.contracts.reader import read_bytes, read_text


def problem(text: str) -> str:
    """The only finding of ``text``, as line:column: rule message."""
    _, findings = read_text(text, "x.yaml")
    (finding,) = findings
    return f"{finding.line}:{finding.column}: {finding.rule} {finding.message}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("010", 10), ("0x1F", 31), ("0o17", 15), ("-3", -3), ("+4", 4), (".5", 0.5), ("1.", 1.0),
        ("1:30", "1:30"), ("on", "on"), ("yes", "yes"), ("off", "off"), ("2026-11-22", "2026-11-22"), ("1_000", "1_000"),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("nullish", "nullish"), ("e5", "e5"),
    ],
)  # fmt: skip
def test_plain_scalars_follow_the_yaml_1_2_core_schema(text: str, value: Any) -> None:
    """``1e-5`` is a number, ``on`` and ``1:30`` are strings, ``010`` is ten."""
    assert plain_scalar(text) == value
    assert type(plain_scalar(text)) is type(value)


def test_quoted_scalars_are_always_text() -> None:
    """Quotes, and an explicit !!str, keep a number from being one."""
    document, findings = read_text("a: '1'\nb: \"true\"\nc: !!str 2\nd: |\n  3\n", "x.yaml")
    assert not findings
    assert document is not None
    assert document.data == {"a": "1", "b": "true", "c": "2", "d": "3\n"}


def test_every_value_and_key_has_its_position() -> None:
    """Lines and columns count from 1; keys and values are told apart."""
    document, _ = read_text("a:\n  - x\n  - {b: 2}\n", "x.yaml")
    assert document is not None
    assert document.position(("a", 1, "b")) == Position(3, 9)
    assert document.key_position(("a", 1, "b")) == Position(3, 6)
    assert document.position(("a", 0)) == Position(2, 5)


def test_a_duplicate_key_names_both_places() -> None:
    """PyYAML would keep the last one without a word."""
    message = "3:1: SCHEMA-020 key 'a' stands twice in this mapping, first at 1:1; keep one"
    assert problem("a: 1\nb: 2\na: 3\n") == message


NOT_VALID = "YAML-001 not valid YAML: "
COLON = "a ':' and a blank stand in an unquoted value, or the line is indented too far; quote it or move the line"
NO_LEVEL = "this line fits no level of the block that it should belong to; check indentation, quotes and brackets"
NO_COLON = "this line was read as a key, but no ':' follows; is a ':', a quote or indentation missing?"
TAB = "a tab indents this line; YAML takes only spaces"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1, 2\nb: 3\n", f"2:2: {NOT_VALID}the list opened at 1:4 is not closed: ',' or ']' is missing before this"),
        ("a: {b: 1\nc: 2\n", f"2:2: {NOT_VALID}the mapping opened at 1:4 is not closed: ',' or '}}' is missing before this"),
        ("a: {x: 1}}\n", f"1:10: {NOT_VALID}this '}}' closes nothing that is open; quote the value if text is meant"),
        ("a: ]\n", f"1:4: {NOT_VALID}this ']' closes nothing that is open; quote the value if text is meant"),
        ("a:\n\tb: 1\n", f"2:1: {NOT_VALID}{TAB}"),
        ("a: b\n\tc: d\n", f"2:1: {NOT_VALID}{TAB}"),
        ("a: 'x\nb: 2\n", f"1:4: {NOT_VALID}the quote that opens here is never closed"),
        ('a: 1\nb: "x\nc: 2\n', f"2:4: {NOT_VALID}the quote that opens here is never closed"),
        ('a: "b" c\n', f"1:8: {NOT_VALID}nothing may follow the value that ends before this; quote the whole value"),
        ("a: key: value\n", f"1:7: {NOT_VALID}{COLON}"),
        ("a:\n    b: 1\n  c: 2\n", f"3:3: {NOT_VALID}{NO_LEVEL}"),
        ("a:\n  - b\n c: 1\n", f"3:2: {NOT_VALID}{NO_LEVEL}"),
        ("a: b\nc\nd: 1\n", f"2:1: {NOT_VALID}{NO_COLON}"),
        ("x: 1\n<<<<<<< HEAD\ny: 1\n", f"2:1: {NOT_VALID}{NO_COLON}"),
        ("a: @x\n", f"1:4: {NOT_VALID}'@' can't start a value here; quote the value"),
        ("a: - b\n", f"1:4: {NOT_VALID}a '- ' stands where no list can start; put the list on its own lines below the key"),
        ('a: "\\q"\n', f"1:5: {NOT_VALID}no such escape in double quotes; use single quotes, or '\\\\' for a backslash"),
        ("\ufeffa: 1\r\nb: c: d\r\n", f"2:5: {NOT_VALID}{COLON}"),
        ("a\u2028b: 1\x85\nc: d: e\n", f"2:5: {NOT_VALID}{COLON}"),
        ("k: \U0001f600\nl: \U0001f600: x: y\n", f"2:5: {NOT_VALID}{COLON}"),
        ("a: \x07\n", f"1:4: {NOT_VALID}character U+0007 is not allowed; remove or escape it"),
        ("\U0001f600: \x07\n", f"1:4: {NOT_VALID}character U+0007 is not allowed; remove or escape it"),
        ("", "1:1: YAML-001 the file is empty; a contract is a mapping"),
        ("a: 1\n---\nb: 2\n", "2:1: YAML-001 a second document starts here; one file holds one contract"),
        ("a: !!python/object:os.system x\n", "1:4: YAML-003 tag tag:yaml.org,2002:python/object:os.system is not allowed: plain data only"),
        ("a: *nowhere\n", "1:4: YAML-001 alias *nowhere has no finished anchor &nowhere before it"),
        ("a: &a [*a]\n", "1:8: YAML-001 alias *a has no finished anchor &a before it"),
        ("? [a]\n: 1\n", "1:3: YAML-003 a key must be plain text, not a list, mapping or alias"),
        ("a: !!python/object/apply:os.system [ls]\n", "1:4: YAML-003 tag tag:yaml.org,2002:python/object/apply:os.system is not allowed: plain data only"),
        ("!!python/name:os.system a: 1\n", "1:1: YAML-003 tag tag:yaml.org,2002:python/name:os.system is not allowed: plain data only"),
        ("a: !!set {b: 1}\n", "1:4: YAML-003 tag tag:yaml.org,2002:set is not allowed: plain data only"),
        ("a: {<<: {b: 1}}\n", "1:5: YAML-006 a merge key (<<) hides what is stated here; it is read, but write the keys out"),
        ("a: 9007199254740993\n", "1:4: YAML-005 a whole number beyond 2**53 is not exact; quote it if text"),
        (f"a: {'9' * 5000}\n", "1:4: YAML-005 a whole number beyond 2**53 is not exact; quote it if text"),
        (f"a: 0x{'f' * 5000}\n", "1:4: YAML-005 a whole number beyond 2**53 is not exact; quote it if text"),
        ("a: .nan\n", "1:4: YAML-005 .nan is not a finite number; if text is meant, quote it"),
        ("a: -.inf\n", "1:4: YAML-005 -.inf is not a finite number; if text is meant, quote it"),
        ("a: 1e999\n", "1:4: YAML-005 1e999 is not a finite number; if text is meant, quote it"),
    ],
)  # fmt: skip
def test_unreadable_yaml_is_one_finding_at_the_right_place(text: str, expected: str) -> None:
    """The sentence says what is wrong, and the place is where a person must look."""
    assert problem(text) == expected


def test_a_merge_key_is_resolved_and_own_keys_win() -> None:
    """Positions of merged keys lead to where they were written."""
    document, findings = read_text("base: &b {x: 1, y: 2}\na:\n  <<: *b\n  y: 3\n", "x.yaml")
    assert document is not None
    assert document.data["a"] == {"x": 1, "y": 3}
    assert document.key_position(("a", "x")) == Position(1, 11)
    assert [(f.rule, f.severity, f.line) for f in findings] == [("YAML-006", "warning", 3)]


def test_a_merge_of_what_is_no_mapping_is_an_error() -> None:
    """There is nothing to merge."""
    assert "3:3: YAML-003 a merge key (<<) takes a mapping or a list of mappings" in [
        f"{f.line}:{f.column}: {f.rule} {f.message}" for f in read_text("base: &b 1\na:\n  <<: *b\n", "x.yaml")[1]
    ]


def test_what_stands_before_a_syntax_error_is_read() -> None:
    """The entry that the error is in is left out: it may be more, or less, than was meant."""
    document, _ = read_text("a: 1\nb:\n  - {c: 2}\n  - {c: 3\nd: 4\n", "x.yaml")
    assert document is not None
    assert document.data == {"a": 1, "b": [{"c": 2}]}
    assert document.incomplete
    assert document.open_block == "b"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_bytes_that_are_not_utf_8_are_placed(mark: bytes) -> None:
    """A Latin-1 file is refused with the line of the first wrong byte."""
    document, (finding,) = read_bytes(mark + b"a: 1\nb: caf\xe9\n", "latin.yaml")
    assert (finding.line, finding.column, finding.rule) == (2, 7, "YAML-002")
    assert finding.message == "byte 0xe9 is not UTF-8; save the file as UTF-8"
    assert document is not None
    assert document.text.startswith("a: 1")


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_raise(text: str) -> None:
    """Whatever the text: a document, or a finding that says why not."""
    document, findings = read_text(text, "x.yaml")
    assert document is not None or findings


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (r'"\ud83d\ude00"', "\U0001f600"),
        (r'"a \uD83D\uDE00\ud83d\ude01 b"', "a \U0001f600\U0001f601 b"),
        (r'"\\\ud83d\ude00"', "\\\U0001f600"),
        (r'"\\ud83d\\ude00"', r"\ud83d\ude00"),
        (r"'\ud83d\ude00'", r"\ud83d\ude00"),
        (r"\ud83d\ude00 \ue000", r"\ud83d\ude00 \ue000"),
        (r'"\ud83d\ude00\ue000\ue001"', "\U0001f600\ue000\ue001"),
    ],
)
def test_a_character_may_be_two_escapes_as_in_json(written: str, value: str) -> None:
    """Only in double quotes; what comes after it keeps its column."""
    document, findings = read_text(f'{{"a": {written}, "b": 1}}', "c.yaml")
    assert document is not None, findings
    assert (document.data, findings) == ({"a": value, "b": 1}, [])
    assert document.position(("b",)) == (1, len(written) + 14)
    document, findings = read_text(f"{{{written}: 1}}", "c.yaml")
    assert document is not None
    assert document.data == {value: 1}


@pytest.mark.parametrize("written", [r'"\ud83d"', r'"\ude00\ud83d"', r'"\ud83d x\ude00"'])
def test_half_a_character_is_none(written: str) -> None:
    """A surrogate alone is no Unicode character."""
    assert [finding.rule for finding in read_text(f"a: {written}", "c.yaml")[1]] == ["YAML-001"]


def test_more_characters_as_escapes_than_stand_ins_end_in_time() -> None:
    """A hostile file is refused, or read, but never takes long or raises."""
    pairs = "".join(f"\\ud8{high:02x}\\ud{low:03x}" for high in range(64) for low in range(0xC00, 0xC80))
    started = time.process_time()
    _, findings = read_text(f'a: "{pairs}"', "c.yaml")
    assert [finding.rule for finding in findings] == ["YAML-001"]
    assert time.process_time() - started < 2

"""Reading YAML: YAML 1.2 values, exact positions, and bounded work on hostile files."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aprender.contracts.findings import Position
from aprender.contracts.reader import plain_scalar, read_bytes, read_text


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1, 2\nb: 3\n", "2:2: YAML-001 not valid YAML: while parsing a flow sequence did not find expected ',' or ']'"),
        ("a:\n\tb: 1\n", "2:1: YAML-001 not valid YAML: while scanning for the next token found character that cannot start any token"),
        ("", "1:1: YAML-001 the file is empty; a contract is a mapping"),
        ("a: 1\n---\nb: 2\n", "2:1: YAML-001 a second document starts here; one file holds one contract"),
        ("a: !!python/object:os.system x\n", "1:4: YAML-003 tag tag:yaml.org,2002:python/object:os.system is not allowed: plain data only"),
        ("a: *nowhere\n", "1:4: YAML-001 alias *nowhere has no finished anchor &nowhere before it"),
        ("a: &a [*a]\n", "1:8: YAML-001 alias *a has no finished anchor &a before it"),
        ("? [a]\n: 1\n", "1:3: YAML-003 a key must be plain text, not a list, mapping or alias"),
        ("a: !!python/object/apply:os.system [ls]\n", "1:4: YAML-003 tag tag:yaml.org,2002:python/object/apply:os.system is not allowed: plain data only"),
        ("!!python/name:os.system a: 1\n", "1:1: YAML-003 tag tag:yaml.org,2002:python/name:os.system is not allowed: plain data only"),
        ("a: !!set {b: 1}\n", "1:4: YAML-003 tag tag:yaml.org,2002:set is not allowed: plain data only"),
        ("a: {<<: {b: 1}}\n", "1:5: YAML-003 merge keys (<<) are not read; write the keys out"),
        ("a: 9007199254740993\n", "1:4: YAML-005 a whole number beyond 2**53 is not exact; quote it if text"),
        (f"a: {'9' * 5000}\n", "1:4: YAML-005 a whole number beyond 2**53 is not exact; quote it if text"),
        (f"a: 0x{'f' * 5000}\n", "1:4: YAML-005 a whole number beyond 2**53 is not exact; quote it if text"),
        ("a: .nan\n", "1:4: YAML-005 .nan is not a finite number; if text is meant, quote it"),
        ("a: -.inf\n", "1:4: YAML-005 -.inf is not a finite number; if text is meant, quote it"),
        ("a: 1e999\n", "1:4: YAML-005 1e999 is not a finite number; if text is meant, quote it"),
        ("a: \x07\n", "1:4: YAML-001 not valid YAML: character U+0007 is not allowed; remove or escape it"),
    ],
)  # fmt: skip
def test_unreadable_yaml_is_one_finding_at_the_right_place(text: str, expected: str) -> None:
    """The sentence says what is wrong, and the place is where a person must look."""
    assert problem(text) == expected


def test_bytes_that_are_not_utf_8_are_placed() -> None:
    """A Latin-1 file is refused with the line of the first wrong byte."""
    (finding,) = read_bytes(b"a: 1\nb: caf\xe9\n", "latin.yaml")[1]
    assert (finding.line, finding.column, finding.rule) == (2, 7, "YAML-002")
    assert "UTF-8" in finding.message


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a: " + "[" * 5000 + "]" * 5000, "YAML-004"),
        ("a: " + "{b: " * 5000 + "}" * 5000, "YAML-004"),
        ("a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)), "YAML-004"),
        ("\n".join(f"k{i}: {i}" for i in range(250_000)), "YAML-004"),
    ],
    ids=["deep list", "deep mapping", "alias bomb", "many keys"],
)  # fmt: skip
def test_hostile_files_end_in_a_finding_in_bounded_time(text: str, rule: str) -> None:
    """Depth, alias expansion and size are bounded before they cost anything."""
    started = time.perf_counter()
    _, findings = read_text(text, "bomb.yaml")
    assert [finding.rule for finding in findings] == [rule]
    assert time.perf_counter() - started < 10


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_raise(text: str) -> None:
    """Whatever the text: a document, or a finding that says why not."""
    document, findings = read_text(text, "x.yaml")
    assert document is not None or findings

"""The caret stands below the character that a finding is about, whatever stands before it."""

from __future__ import annotations

import unicodedata

import pytest

from aprender.reports.excerpt import WIDTH, excerpt, shown


def cells(text: str) -> int:
    """How many columns a terminal gives to ``text``, counted independently of the code under test."""
    return sum((0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1) for c in text)


@pytest.mark.parametrize(
    ("source", "place", "line"),
    [
        ("key: value", "v", "key: value"),
        ("\tkey: value", "v", "    key: value"),
        ("a\tb: value", "v", "a    b: value"),
        ("名前: value", "v", "名前: value"),
        ("x: 💥 value", "v", "x: 💥 value"),
        ("e\u0301: value", "v", "e\u0301: value"),
        ("x: \x1b[31mvalue", "v", "x: \\x1b[31mvalue"),
        ("x: \u202evalue", "v", "x: \\u202evalue"),
        ("x:\u00a0value", "v", "x:\\xa0value"),
    ],
)
def test_the_caret_stands_below_the_place(source: str, place: str, line: str) -> None:
    """Tabs, wide, combining, astral and escaped characters before it; columns count code points."""
    shown_line, caret = excerpt(source, 7, source.index(place) + 1)
    assert shown_line == f"  7 | {line}"
    assert caret.startswith("    | ")
    assert cells(shown_line[: shown_line.index(place, 6)]) == len(caret) - 1


@pytest.mark.parametrize("column", [1, 2, 47, 50, 97, 98, 150, 199, 300, 301])
def test_a_long_line_is_a_window_around_the_place(column: int) -> None:
    """What is left out is marked, the caret still stands below its character."""
    source = "".join(chr(ord("a") + index % 26) for index in range(300))
    line, caret = excerpt(source, 1, column)
    text = line.removeprefix("  1 | ")
    assert len(text) <= WIDTH + 6
    assert text.startswith("...") == (column > WIDTH / 2 + 1)
    assert text.endswith("...") == (column < 240)
    below = line[len(caret) - 1 : len(caret)]
    assert below == (source[column - 1] if column <= 300 else "")
    assert len(text.strip(".")) >= WIDTH - 1


def test_the_end_of_a_line_is_a_place_and_what_lies_behind_is_none() -> None:
    """A missing colon is reported behind the last character; a line that was cut can't show its far end."""
    assert excerpt("key", 12, 4) == ["  12 | key", "     |    ^"]
    assert excerpt("key", 12, 5) == []
    assert excerpt("   ", 12, 1) == []
    assert excerpt("", 1, 1) == []


@pytest.mark.parametrize("code", [0x00, 0x07, 0x0A, 0x1B, 0x7F, 0x9B, 0x200B, 0x202E, 0x2028, 0xDC80, 0xFEFF, 0xE0001])
def test_what_drives_a_terminal_or_is_invisible_is_escaped(code: int) -> None:
    """Control sequences, line breaks, direction marks, lone surrogates: all become ASCII."""
    text = shown(f"a{chr(code)}b")
    assert text.isascii()
    assert text.isprintable()
    assert text.startswith("a\\")
    assert text.endswith("b")


def test_text_that_shows_itself_stays() -> None:
    """Letters of any script, and emoji."""
    assert shown("naïve 中文 💥 ключ") == "naïve 中文 💥 ключ"

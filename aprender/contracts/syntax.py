"""What is wrong with YAML that can't be parsed: the right place, and a sentence that a person understands."""

from __future__ import annotations

from typing import Any

from aprender.contracts.findings import Finding

LINE_BREAKS_OF_YAML_1_1 = "\x85\u2028\u2029"

# libyaml's words for a problem, and ours; {character} is what stands at the place.
_SENTENCES = (
    ("found character that cannot start any token", "{character} can't start a value here; quote the value"),
    ("found a tab character that violates indentation", "a tab indents this line; YAML takes only spaces"),
    ("found a tab character where an indentation space is expected", "a tab indents this line; YAML takes only spaces"),
    (
        "mapping values are not allowed in this context",
        "a ':' and a blank stand in an unquoted value, or the line is indented too far; quote it or move the line",
    ),
    (
        "block sequence entries are not allowed in this context",
        "a '- ' stands where no list can start; put the list on its own lines below the key",
    ),
    (
        "could not find expected ':'",
        "this line was read as a key, but no ':' follows; is a ':', a quote or indentation missing?",
    ),
    (
        "did not find expected key",
        "this line fits no level of the block that it should belong to; check indentation, quotes and brackets",
    ),
    (
        "did not find expected '-' indicator",
        "this line fits no level of the list that it should belong to; check its indentation",
    ),
    (
        "did not find expected ',' or ']'",
        "the list opened at {context} is not closed: ',' or ']' is missing before this",
    ),
    (
        "did not find expected ',' or '}'",
        "the mapping opened at {context} is not closed: ',' or '}}' is missing before this",
    ),
    ("found unknown escape character", "no such escape in double quotes; use single quotes, or '\\\\' for a backslash"),
    ("found undefined tag handle", "'!' starts a tag; quote the value if text is meant"),
    (
        "did not find expected alphabetic or numeric character",
        "'&' and '*' start an anchor or alias; quote the value if text is meant",
    ),
    ("did not find expected hexdecimal number", "an escape in double quotes lacks its hexadecimal digits"),
    ("found invalid Unicode character escape code", "this escape is no Unicode character"),
    ("did not find expected comment or line break", "only a comment may follow here; put the text on the next line"),
    ("found extra document", "a second document starts here; one file holds one contract"),
    (
        "did not find expected <document start>",
        "something stands after the end of the document; one file holds one contract",
    ),
    (
        "found unexpected document indicator",
        "'---' or '...' stands inside of a quoted value; is the quote above closed?",
    ),
    ("did not find expected node content", "a value is missing before this"),
    ("did not find the expected '>'", "the tag that starts with '!<' has no '>'"),
    ("did not find expected whitespace or line break", "a blank is missing after the tag or anchor"),
)


def syntax_finding(error: Any, text: str, file: str) -> Finding:
    """The finding for a ``yaml.YAMLError`` raised by PyYAML's C parser on ``text``."""
    if hasattr(error, "character"):  # a ReaderError: its position counts bytes
        position = len(text.encode()[: error.position].decode(errors="ignore")) if error.position > 0 else 0
        code = f"U+{error.character:04X}" if isinstance(error.character, int) else repr(error.character)
        return _finding(file, *_place(text, position), f"character {code} is not allowed; remove or escape it")
    mark, context = error.problem_mark or error.context_mark, error.context_mark
    if mark is None:
        return _finding(file, 1, 1, str(error))
    problem = error.problem or "unreadable"
    if problem == "found unexpected end of stream" and context is not None:
        return _finding(file, context.line + 1, context.column + 1, "the quote that opens here is never closed")
    if problem == "could not find expected ':'" and context is not None:
        mark = context  # where the key starts, not where the parser gave up
    line = _line(text, mark.line)
    before, character = line[: mark.column], line[mark.column] if mark.column < len(line) else "the end of the line"
    if character == "\t" or (problem.startswith("found character") and "\t" in before):
        message = "a tab indents this line; YAML takes only spaces"
    elif character in "]}" and problem in ("did not find expected key", "did not find expected node content"):
        message = f"this '{character}' closes nothing that is open; quote the value if text is meant"
    elif problem == "did not find expected key" and before.strip():
        message = "nothing may follow the value that ends before this; quote the whole value"
    else:
        place = f"{context.line + 1}:{context.column + 1}" if context is not None else "an earlier line"
        sentence = next((ours for theirs, ours in _SENTENCES if theirs in problem), None)
        message = sentence.format(character=repr(character), context=place) if sentence else problem
    return _finding(file, mark.line + 1, mark.column + 1, message)


def undecodable(raw: bytes, error: UnicodeDecodeError, file: str) -> Finding:
    """YAML-002 at the first byte that is not UTF-8."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Finding(file, 1, 1, "YAML-002", "error", "the file is UTF-16; save it as UTF-8")
    before = raw[: error.start].decode("utf-8", "replace")
    message = f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
    return Finding(file, *_place(before, len(before)), "YAML-002", "error", message)


def _finding(file: str, line: int, column: int, message: str) -> Finding:
    return Finding(file, line, column, "YAML-001", "error", f"not valid YAML: {message}")


def lines_of(text: str, most: int = -1) -> list[str]:
    """The lines of ``text`` as YAML 1.2 and editors break them, without their line breaks.

    With ``most`` only so many are split off; what is left comes after them.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.split("\n", most)


def _line(text: str, index: int) -> str:
    lines = lines_of(text)
    return lines[index] if index < len(lines) else ""


def _place(text: str, position: int) -> tuple[int, int]:
    before = lines_of(text[:position])
    return len(before), len(before[-1]) + 1

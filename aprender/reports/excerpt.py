"""A line of a contract as a terminal may show it, with a caret below the place that a finding is about."""

from __future__ import annotations

WIDTH = 96  # cells of the source line that are shown at most
BEFORE = 48  # cells of them that stand before the caret where the line is longer
TAB = 4
CUT = "..."


def shown(text: str) -> str:
    """``text`` with all that is invisible or drives a terminal escaped: a contract may be a stranger's."""
    return text if text.isprintable() else "".join(map(_shown, text))


def excerpt(source: str, line: int, column: int) -> list[str]:
    """The source line with its number, and the caret; nothing where the place lies behind what is known of the line."""
    if not source.strip() or column > len(source) + 1:
        return []
    start = max(0, column - 1 - WIDTH)  # what is further away isn't shown: a hostile line may be very long
    place, near = column - 1 - start, source[start : column - 1 + WIDTH]
    cells = [_cell(character) for character in near]
    widths = [_width(cell) for cell in cells]
    first, last = _window(widths, place)
    before, after = CUT if start + first else "", CUT if start + last < len(source) else ""
    text = before + "".join(cells[first:last]) + after
    caret = " " * (len(before) + sum(widths[first:place])) + "^"
    number = str(line)
    return [f"  {number} | {text.rstrip()}", f"  {' ' * len(number)} | {caret}"]


def _window(widths: list[int], place: int) -> tuple[int, int]:
    """The part of the line that is shown: all of it, or what fits around ``place``."""
    if sum(widths) <= WIDTH:
        return 0, len(widths)
    first = last = place
    while first > 0 and sum(widths[first - 1 : place]) <= BEFORE:
        first -= 1
    while last < len(widths) and sum(widths[first : last + 1]) <= WIDTH:
        last += 1
    while first > 0 and sum(widths[first - 1 : last]) <= WIDTH:  # little stands behind the place: show more before it
        first -= 1
    return first, last


def _cell(character: str) -> str:
    """What stands for one character of the line."""
    return " " * TAB if character == "\t" else shown(character)


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _width(cell: str) -> int:
    """How many columns of a terminal ``cell`` takes."""
    if cell.isascii():
        return len(cell)
    import unicodedata  # most lines are ASCII

    if unicodedata.combining(cell):
        return 0
    return 2 if unicodedata.east_asian_width(cell) in "WF" else 1

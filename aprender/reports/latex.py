"""Any text as LaTeX that compiles and shows the same characters: ASCII only, nothing in it is a command."""

from __future__ import annotations

import re
import unicodedata

from aprender.reports.excerpt import shown
from aprender.reports.latex_symbols import (
    ACCENTS,
    CLOSING,
    OPENING,
    OPERANDS,
    OPERATORS,
    PREFIXES,
    SUBSCRIPTS,
    SUPERSCRIPTS,
)

_SPECIAL = {char: f"\\{char}" for char in "{}$&#%_"} | {
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\`{}",
    "\u2013": "-{}-", "\u2014": "-{}-{}-", "‖": r"\ensuremath{\|}", "√": r"\ensuremath{\surd}",
    "°": r"\ensuremath{^{\circ}}", "\u00a0": "~",
}  # fmt: skip
_CLUSTER = re.compile(r"[^\u0300-\u036f][\u0300-\u036f]*|[\u0300-\u036f]+")
_LIGATURES = re.compile("(?<=-)(?=-)|(?<=')(?=')")  # LaTeX would make one character of two
_START = r"\mbox{}"  # blanks at the start of a line are dropped
_SYMBOLS = OPERANDS | PREFIXES | OPERATORS | OPENING | CLOSING


def latex_text(text: str) -> str:
    r"""One line of ``text``; characters that LaTeX has no command for are shown as ``\u1234``."""
    translated = "".join(map(_cluster, _CLUSTER.findall(unicodedata.normalize("NFC", text))))
    return _LIGATURES.sub("{}", translated)


def latex_verbatim(text: str) -> str:
    """``text`` in a typewriter font, its lines and blanks as they are; lines break at single blanks only."""
    lines = (_typewritten(line.rstrip()) for line in text.expandtabs(4).split("\n"))
    return "\\newline\n".join(lines)


def _typewritten(line: str) -> str:
    kept = latex_text(line).replace("  ", "~ ").replace("  ", "~ ")
    indented = kept.startswith(("~", " "))
    return f"\\texttt{{{_START if indented else ''}{kept}}}"


def _cluster(cluster: str) -> str:
    """A character with its combining marks."""
    base, *marks = [*(cluster if cluster in _SYMBOLS else unicodedata.normalize("NFD", cluster))]
    if len(marks) == 1 and marks[0] in ACCENTS:
        in_text, in_math = ACCENTS[marks[0]]
        if base.isascii() and base.isalpha():
            return f"\\{in_text}{{{base}}}"
        if base in OPERANDS:
            return f"\\ensuremath{{\\{in_math}{{{OPERANDS[base]}}}}}"
    return "".join(map(_character, cluster))


def _character(char: str) -> str:
    if (special := _SPECIAL.get(char)) is not None:
        return special
    if char.isascii() and char.isprintable():
        return char
    if char in _SYMBOLS:
        return f"\\ensuremath{{{_SYMBOLS[char]}}}"
    for table, command in ((SUPERSCRIPTS, "^"), (SUBSCRIPTS, "_")):
        if char in table:
            return f"\\ensuremath{{{command}{{{table[char]}}}}}"
    return "".join(_SPECIAL.get(escaped, escaped) for escaped in _escaped(char))


def _escaped(char: str) -> str:
    return shown(char) if not char.isprintable() else f"\\u{ord(char):04x}"

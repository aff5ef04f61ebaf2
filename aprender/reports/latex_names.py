"""Names in formulas: functions stand upright, words are words and no products of letters, ``x_i`` has a subscript."""

from __future__ import annotations

from aprender.reports.latex_symbols import BIG, FUNCTIONS, LETTERS, LOGARITHMS

_INDICES = frozenset("ijklmn")
Named = tuple[str, str, str]  # LaTeX, kind, subscript


def function_call(text: str, *, called: bool, limited: bool) -> Named | None:
    """A known function, any name right before a bracket (``called``), a sum with limits; None for a variable."""
    base, _, sub = text.partition("_")
    short = len(sub) <= 1
    if text in LOGARITHMS:
        return r"\log", "function", LOGARITHMS[text]
    if base in BIG and len(sub) <= 2 and (sub or limited):
        return BIG[base], "big", letters(sub) if sub else ""
    if base in FUNCTIONS and short and "." not in text:
        return FUNCTIONS[base], "function", sub
    if called and len(base) > 1 and base not in LETTERS:
        return f"\\operatorname{{{_escaped(text)}}}", "function", ""
    return None


def variable(text: str) -> Named:
    """A letter, a word, or an identifier of several words."""
    base, *subs = [text] if "." in text else text.split("_")
    letter = LETTERS.get(base, base if len(base) == 1 else "")
    if not subs:
        return (letter, "letter", "") if letter else (f"\\mathit{{{_escaped(text)}}}", "word", "")
    if len(subs) == 1 and letter:
        return letter, "letter", letters(subs[0])
    if len(subs) == 1 and (len(subs[0]) == 1 or set(subs[0]) <= _INDICES):
        return f"\\mathit{{{base}}}", "identifier", letters(subs[0])
    return f"\\mathit{{{_escaped(text)}}}", "identifier", ""


def letters(text: str) -> str:
    """A subscript or superscript: one or two letters are indices, more are a word."""
    return LETTERS.get(text) or (text if len(text) <= 2 else f"\\mathrm{{{text}}}")


def _escaped(text: str) -> str:
    return text.replace("_", r"\_")

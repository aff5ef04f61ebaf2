"""A formula of plain text as LaTeX mathematics, where it can be read in one way only.

The translation keeps the order of what is written and guesses at nothing: ``/`` stays a slash, brackets stay where they
are. What could be prose, code, or mean two things is refused, and shown verbatim by whoever asked.
"""

from __future__ import annotations

from typing import NamedTuple

from aprender.reports.latex_names import function_call, letters, variable
from aprender.reports.latex_symbols import (
    ACCENTS,
    BIG_LETTERS,
    CLOSING,
    CONNECTIVES,
    DELIMITED,
    DIGRAPHS,
    OPENING,
    OPERANDS,
    OPERATORS,
    PREFIXES,
    QUANTIFIERS,
    SINGLES,
    SUBSCRIPTS,
    SUPERSCRIPTS,
)
from aprender.reports.latex_tokens import END, Reader, Token, closing, tokens_of

PRIME = "\u2032"
DEEPEST = 12  # groups in groups
# What may not stand beside what: two words in a row are prose. A word has two letters or more.
_WORDS = ("word", "identifier")
_PROSE = frozenset(
    [(before, kind) for before in _WORDS for kind in ("word", "identifier", "letter", "number", "function", "big")]
    + [("letter", kind) for kind in ("word", "identifier", "number")]
    + [("number", "number"), ("number", "word"), ("close", "word")]
)
_NO_OPERAND_FOLLOWS = frozenset(("", ")", "]", "}", ",", ";", "_", "^"))
_SCRIPTABLE = ("letter", "word", "identifier", "number", "function", "big", "close", "bar")


class Untranslatable(Exception):
    """The text can't be read as one formula with confidence."""


class _Piece(NamedTuple):
    """LaTeX, what kind of thing it is, and the subscript that is part of its name."""

    latex: str
    kind: str
    sub: str = ""


def latex_formula(text: str) -> str | None:
    """The formula in math mode, without the dollars; None where ``text`` is anything but surely one formula."""
    try:
        return _Formula(tokens_of(text), 0).latex()
    except Untranslatable:
        return None


class _Formula(Reader):
    """Reads tokens from left to right; the kind of what was read last decides what may follow."""

    def __init__(self, tokens: list[Token], depth: int) -> None:
        if depth > DEEPEST or not tokens:
            raise Untranslatable
        super().__init__(tokens)
        self.depth = depth
        self.is_mathematics = depth > 0  # words and commas alone are prose

    def latex(self) -> str:
        parts: list[str] = []
        before = ""
        while self.at < len(self.tokens):
            first = self.peek()
            piece = self._piece(before)
            if (before, piece.kind) in _PROSE or (before in _WORDS and piece.kind == "open" and first.after_blank):
                raise Untranslatable
            scripted = self._scripts(piece) if piece.kind in _SCRIPTABLE else ""
            self.is_mathematics |= bool(scripted or piece.sub) or piece.kind in ("operator", "function", "big")
            parts.append(f"{piece.latex}{scripted}")
            before = piece.kind
        if len(parts) > 1 and not self.is_mathematics:
            raise Untranslatable
        return " ".join(parts)

    def _group(self) -> str:
        """What stands in the brackets that open next."""
        end = closing(self.tokens, self.at)
        if end is None:
            raise Untranslatable
        inside = self.tokens[self.at + 1 : end]
        self.at = end + 1
        return _Formula(inside, self.depth + 1).latex()

    def _piece(self, before: str) -> _Piece:
        token = self.next()
        match token.kind:
            case "name":
                return self._words(token) if token.text in CONNECTIVES else self._name(token.text)
            case "number":
                mantissa, e, exponent = token.text.replace("E", "e").partition("e")
                return _Piece(f"{mantissa}\\mathrm{{e}}{{{exponent}}}" if e else mantissa, "number")
            case "accented":
                return _Piece(_accented(token.text), "letter")
            case "digraph":
                return _Piece(DIGRAPHS[token.text], "bar" if token.text in ("||", "‖") else "operator")
            case "other":
                return self._symbol(token, before)
        raise Untranslatable

    def _name(self, text: str) -> _Piece:
        if text == "mod":
            return _Piece(r"\bmod", "operator")
        if text in QUANTIFIERS:
            return _Piece(QUANTIFIERS[text], "big")
        called = self.touches("(")
        if text == "sqrt" and called:
            return _Piece(f"\\sqrt{{{self._group()}}}", "close")
        if text in DELIMITED and called:
            left, right = DELIMITED[text]
            self.is_mathematics = True
            return _Piece(f"{left} {self._group()} {right}", "close")
        limited = self.peek().text == "_"
        return _Piece(*(function_call(text, called=called, limited=limited) or variable(text)))

    def _words(self, first: Token) -> _Piece:
        """Connectives in a row; ``in`` before a set is membership."""
        words = [first.text]
        while self.peek().kind == "name" and self.peek().text in CONNECTIVES:
            words.append(self.next().text)
        if words == ["in"] and (self.peek().text in ("[", "{", "(") or self.peek().text in OPERANDS):
            return _Piece(r"\in", "operator")
        return _Piece(f"\\text{{ {' '.join(words)} }}", "words")

    def _symbol(self, token: Token, before: str) -> _Piece:
        char = token.text
        if char in BIG_LETTERS and (self.peek().kind == "subscript" or self.touches("_")):
            return _Piece(BIG_LETTERS[char], "big")
        for table, kind in ((OPERANDS, "letter"), (PREFIXES, "big"), (OPERATORS, "operator"), (OPENING, "open")):
            if char in table:
                return _Piece(table[char], kind)
        if char in CLOSING:
            return _Piece(CLOSING[char], "close")
        if char in SINGLES:
            return _Piece(SINGLES[char], "comma" if char in ",:;" else "operator")
        if char == "{":
            self.at -= 1
            self.is_mathematics = True
            return _Piece(f"\\{{ {self._group()} \\}}", "close")
        if char == "√":
            return self._root()
        return self._ambiguous(token, before)

    def _ambiguous(self, token: Token, before: str) -> _Piece:
        """Characters that mean something only where they stand."""
        has_operand, blank_after = before in _SCRIPTABLE, self.peek().after_blank
        match token.text:
            case "|":
                return _Piece(r"\mid" if token.after_blank and blank_after else "|", "bar")
            case "*" if has_operand and self.peek().text not in _NO_OPERAND_FOLLOWS:
                return _Piece(r"\cdot", "operator")
            case "@" if has_operand:
                return _Piece(r"\mathbin{@}" if token.after_blank else "@", "operator")
            case "%" if before == "number" and not token.after_blank:
                return _Piece(r"\%", "close")
            case "%" if has_operand and token.after_blank and blank_after:
                return _Piece(r"\bmod", "operator")
            case "." if self.peek() is END and not token.after_blank:
                return _Piece(".", "comma")
        raise Untranslatable

    def _root(self) -> _Piece:
        """``√(...)``, or the root of one operand: in ``√2π`` nobody knows where it ends."""
        if self.touches("("):
            return _Piece(f"\\sqrt{{{self._group()}}}", "close")
        piece = self._piece("")
        if piece.kind not in ("letter", "identifier", "word", "number"):
            raise Untranslatable
        inside = f"{piece.latex}{self._scripts(piece)}"
        following = self.peek()
        if not following.after_blank and (following.kind in ("name", "number") or following.text in (*OPERANDS, "(")):
            raise Untranslatable
        return _Piece(f"\\sqrt{{{inside}}}", "close")

    def _scripts(self, piece: _Piece) -> str:
        """Subscript and superscript, at most one of each: LaTeX has no more, and nobody knows what more would mean."""
        sub, sup = piece.sub, ""
        while not self.peek().after_blank:
            token = self.peek()
            if token.kind == "subscript" or token.text == "_":
                if sub:
                    raise Untranslatable
                sub = self._script(SUBSCRIPTS, parentheses=False)
            elif token.kind == "superscript" or token.text in ("^", "'", PRIME) or self._is_star():
                if sup:
                    raise Untranslatable
                sup = self._script(SUPERSCRIPTS, parentheses=True)
            else:
                break
        return (f"_{{{sub}}}" if sub else "") + (f"^{{{sup}}}" if sup else "")

    def _is_star(self) -> bool:
        """``x*`` with nothing to multiply by, ``x*_t``."""
        return self.touches("*") and self.peek(1).text in _NO_OPERAND_FOLLOWS

    def _script(self, table: dict[str, str], *, parentheses: bool) -> str:
        token = self.next()
        if token.kind in ("subscript", "superscript"):
            return "".join(table[char] for char in token.text)
        if token.text in ("'", PRIME):
            return r"\prime"
        if token.text == "*":
            return "*"
        if self.touches("{"):
            return self._group()
        if parentheses and self.touches("("):
            return f"({self._group()})"
        sign = self.next().text if parentheses and self.peek().text in ("+", "-") else ""
        body = self.peek()
        if body.after_blank and not sign:
            raise Untranslatable
        if sign and (body.after_blank or body.kind not in ("number", "name")):
            return sign
        return sign + self._script_body(self.next())

    def _script_body(self, token: Token) -> str:
        if token.kind == "number" and token.text.isdigit():
            return token.text
        if token.kind == "name" and token.text.isalnum() and not (token.text in DELIMITED or self.touches("(")):
            return letters(token.text)
        if token.kind == "accented":
            return _accented(token.text)
        if token.text in OPERANDS:
            return OPERANDS[token.text]
        if token.text == "*":
            return "*"
        raise Untranslatable


def _accented(text: str) -> str:
    base, mark = text[0], text[1]
    if mark not in ACCENTS or not (base in OPERANDS or base.isascii()):
        raise Untranslatable
    return f"\\{ACCENTS[mark][1]}{{{OPERANDS.get(base, base)}}}"

"""The equations of a contract as they are written, with the line and column of each."""

# No postponed annotations here: NamedTuple would compile each from its text, which costs as much as a small contract.

from typing import Any, NamedTuple

from aprender.contracts.document import Document
from aprender.contracts.rules.mentions import equations


class Equation(NamedTuple):
    """Texts keep their line breaks; what is absent is empty."""

    name: str
    line: int
    column: int
    formula: str
    domain: str
    codomain: str
    invariants: tuple[str, ...]
    preconditions: tuple[str, ...]
    postconditions: tuple[str, ...]


def equations_of(document: Document) -> tuple[Equation, ...]:
    """Every equation of ``document``, which holds no value of the wrong shape, in order."""
    found = []
    for path, name, value in equations(document):
        equation = value if isinstance(value, dict) else {}
        formula, domain, codomain = (_text(equation.get(key)) for key in ("formula", "domain", "codomain"))
        lists = (_texts(equation.get(key)) for key in ("invariants", "preconditions", "postconditions"))
        found.append(Equation(name, *document.key_position(path), formula, domain, codomain, *lists))
    return tuple(found)


def _texts(value: Any) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else [value]
    return tuple(filter(None, map(_text, entries)))


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip("\n").rstrip()

"""What one contract states, and which of its parts name which: the ground of ``pv graph`` and ``pv coverage``."""

# No postponed annotations here: NamedTuple would compile each from its text, which costs as much as a small contract.

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from aprender.contracts.document import Document, KeyPath
from aprender.contracts.rules.common import items, key_of
from aprender.contracts.rules.mentions import applicable, class_names, covers, equations, obligations_by_name
from aprender.contracts.schema_check import is_version_2

_WORD = re.compile(r"\w+")
_PROSE = ("rule", "description", "prediction", "expected", "test", "command")


class Part(NamedTuple):
    """An obligation, an equation, a falsifier or a harness: its name, what it says in one line, where it stands."""

    pointer: str
    name: str
    text: str
    line: int
    column: int


class Falsifier(NamedTuple):
    """``covers`` are indices of obligations, ``unknown`` the ids that no obligation has: name, line, column."""

    part: Part
    covers: tuple[int, ...]
    unknown: tuple[tuple[str, int, int], ...]
    classes: tuple[str, ...]
    has_probe: bool


class Links(NamedTuple):
    """The parts of one contract. Obligations and falsifiers go by index: in the old dialect many have no id."""

    file: str
    obligations: tuple[Part, ...]
    applicable: tuple[bool, ...]  # for each obligation
    requires: tuple[tuple[int, int], ...]  # a postcondition and its precondition
    falsifiers: tuple[Falsifier, ...]
    harnesses: tuple[tuple[Part, tuple[int, ...]], ...]  # each with the obligations that it proves
    equations: tuple[Part, ...]
    named_equations: frozenset[str]

    @property
    def covered(self) -> frozenset[int]:
        """The obligations that a falsifier covers."""
        return frozenset(index for falsifier in self.falsifiers for index in falsifier.covers)

    @property
    def uncovered(self) -> tuple[Part, ...]:
        """The obligations that ask for something here and that no falsifier covers."""
        covered = self.covered
        parts = enumerate(self.obligations)
        return tuple(part for index, part in parts if self.applicable[index] and index not in covered)


def links_of(document: Document) -> Links:
    """The parts of ``document``, which holds no value of the wrong shape."""
    claims = list(items(document, "proof_obligations"))
    places = {path[-1]: index for index, (path, _) in enumerate(claims)}  # an entry of the wrong shape is no obligation
    known = {name: [places[at] for at in found] for name, found in obligations_by_name(document).items()}
    quoted = obligations_by_name(document, quoted=not is_version_2(document.data))
    conditions = (
        (index, known[item["requires"]][0])
        for index, (_, item) in enumerate(claims)
        if isinstance(item.get("requires"), str) and item["requires"] in known
    )
    harnesses = [(_part(document, path, item, "property"), item) for path, item in items(document, "kani_harnesses")]
    return Links(
        file=document.file,
        obligations=tuple(_part(document, path, item, "property", "statement") for path, item in claims),
        applicable=tuple(applicable(item) for _, item in claims),
        requires=tuple(conditions),
        falsifiers=tuple(
            _falsifier(document, path, item, known) for path, item in items(document, "falsification_tests")
        ),
        harnesses=tuple(
            (part, tuple(places[at] for at in quoted.get(str(item.get("obligation")), ()))) for part, item in harnesses
        ),
        equations=tuple(_equation(document, *found) for found in equations(document)),
        named_equations=_named_equations(document),
    )


def one_line(value: Any) -> str:
    """Text without line breaks, empty where there is none."""
    return "" if value is None else " ".join(str(value).split())


def _part(document: Document, path: KeyPath, item: dict[str, Any], *says: str) -> Part:
    """The part at ``path``; without an id it goes by its key and index."""
    name = item.get("id")
    name = one_line(name) if isinstance(name, str) and name.strip() else f"{path[0]}[{path[1]}]"
    return Part(_pointer(path), name, one_line(item.get(key_of(item, *says))), *document.position(path))


def _equation(document: Document, path: KeyPath, name: str, equation: Any) -> Part:
    formula = equation.get("formula") if isinstance(equation, dict) else None
    return Part(_pointer(path), name, one_line(formula), *document.key_position(path))


def _pointer(path: KeyPath) -> str:
    """``path`` as a JSON pointer (RFC 6901)."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)


def _falsifier(document: Document, path: KeyPath, item: dict[str, Any], known: dict[str, list[int]]) -> Falsifier:
    named = list(covers(item))
    return Falsifier(
        _part(document, path, item, "rule", "description", "name"),
        tuple(dict.fromkeys(index for _, name in named for index in known.get(name, ()))),
        tuple((name, *document.position((*path, "covers", at))) for at, name in named if name not in known),
        tuple(dict.fromkeys(class_names(item))),
        bool(item.get("probe")),
    )


def _named_equations(document: Document) -> frozenset[str]:
    """The equations that an obligation or a falsifier names.

    A name with an underscore counts wherever it is a word of what a falsifier says; one without may be any word of
    prose, and counts only as the whole of a field.
    """
    known = {name for _, name, _ in equations(document)}
    return frozenset(known.intersection(_mentions(document)))


def _mentions(document: Document) -> Iterator[str]:
    for key in ("proof_obligations", "falsification_tests"):
        for _, item in items(document, key):
            yield from (item[field] for field in ("applies_to", "equation") if isinstance(item.get(field), str))
    for _, item in items(document, "falsification_tests"):
        for text in (item[field] for field in _PROSE if isinstance(item.get(field), str)):
            yield text
            yield from (word for word in _WORD.findall(text) if "_" in word)

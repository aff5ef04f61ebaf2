"""How much of what contracts state is named by a falsifier: numbers with their denominators, and what is left over."""

# No postponed annotations here: NamedTuple would compile each from its text, which costs as much as a small contract.

from collections.abc import Iterator
from typing import NamedTuple

from aprender.contracts.documents import Documents
from aprender.contracts.links import Links, Part, links_of


class Share(NamedTuple):
    """``held`` of ``total``."""

    held: int
    total: int


class Gap(NamedTuple):
    """An obligation or equation that nothing names, or a falsifier without a probe (``kind`` says which)."""

    kind: str
    name: str
    text: str
    file: str
    line: int
    column: int


class Coverage(NamedTuple):
    """One contract, or all of them: then ``file`` is empty. Obligations that are not applicable are not counted."""

    file: str
    obligations: Share
    not_applicable: int
    equations: Share
    falsifiers: Share
    defect_classes: tuple[str, ...]
    gaps: tuple[Gap, ...]


def coverage_of(read: Documents) -> tuple[list[Coverage], Coverage]:
    """Each contract, and the total; a defect class that several contracts declare is one."""
    each = [_coverage(links_of(document)) for document in read.documents]
    classes = sorted({name for one in each for name in one.defect_classes})
    total = Coverage(
        "",
        _sum(one.obligations for one in each),
        sum(one.not_applicable for one in each),
        _sum(one.equations for one in each),
        _sum(one.falsifiers for one in each),
        tuple(classes),
        tuple(gap for one in each for gap in one.gaps),
    )
    return each, total


def _coverage(links: Links) -> Coverage:
    asked = sum(links.applicable)
    unnamed = [part for part in links.equations if part.name not in links.named_equations]
    unbound = [falsifier.part for falsifier in links.falsifiers if not falsifier.has_probe]
    gaps = [("obligation", part) for part in links.uncovered]
    gaps += [("equation", part) for part in unnamed] + [("falsifier", part) for part in unbound]
    return Coverage(
        links.file,
        Share(asked - len(links.uncovered), asked),
        len(links.obligations) - asked,
        Share(len(links.equations) - len(unnamed), len(links.equations)),
        Share(len(links.falsifiers) - len(unbound), len(links.falsifiers)),
        tuple(sorted({name for falsifier in links.falsifiers for name in falsifier.classes})),
        tuple(sorted((_gap(links.file, kind, part) for kind, part in gaps), key=lambda gap: gap[4:])),
    )


def _gap(file: str, kind: str, part: Part) -> Gap:
    return Gap(kind, part.name, part.text, file, part.line, part.column)


def _sum(shares: Iterator[Share]) -> Share:
    each = list(shares)
    return Share(sum(share.held for share in each), sum(share.total for share in each))

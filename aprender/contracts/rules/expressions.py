"""Expectations and guards of a version 2 contract: one comparison each, which can come out either way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aprender.contracts.document import Document, KeyPath
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import Rule, entries, items

if TYPE_CHECKING:
    from aprender.contracts.expression import Comparison, ExpressionError
    from aprender.contracts.samples import Effort

Parsed = list[tuple[KeyPath, "Comparison"]]

MAX_CHARACTERS = (
    50_000  # of all expressions of a file: proving costs time, and a stranger's contract must not take minutes
)


def _expressions(document: Document) -> Iterator[Finding]:
    """EXPR-001: one comparison. EXPR-002: that can come out either way. EXPR-003: zero measurements pass no guards."""
    effort: Effort | None = None
    characters = 0
    for path, item in items(document, "falsification_tests"):
        if not (item.get("expect") or item.get("guards")):
            continue
        if effort is None:
            # Most contracts are of the old dialect: only one with an expression pays for what understands it.
            from aprender.contracts.samples import Effort

            effort = Effort()
        characters += sum(len(text) for key in ("expect", "guards") for _, text in entries(item, key))
        if characters > MAX_CHARACTERS:
            message = f"more than {MAX_CHARACTERS:,} characters of expressions in one file; no contract needs so many"
            yield document.finding(path, "EXPR-001", message)
            return
        yield from _of_falsifier(document, path, item, effort)


def _of_falsifier(document: Document, path: KeyPath, item: dict[str, Any], effort: Effort) -> Iterator[Finding]:
    from aprender.contracts.judge_controls import foregone
    from aprender.contracts.limits import Limits

    guards: Parsed = []
    expectations: Parsed = []
    yield from _parse(document, path, item, "guards", guards)
    yield from _parse(document, path, item, "expect", expectations)
    complete = len(guards) == len(item.get("guards") or ())
    said = set[KeyPath]()
    for found, passed in ((guards, None), (expectations, Limits(guard for _, guard in guards))):
        for finding, at in _repeated(document, found):
            said.add(at)
            yield finding
        for at, comparison in found:
            if at not in said and (reason := foregone(comparison, passed, effort)):
                said.add(at)
                yield document.finding(at, "EXPR-002", reason)
    yield from _contradicted(document, [one for one in expectations if one[0] not in said], "never be GREEN")
    left = [guard for guard in guards if guard[0] not in said]
    yield from _contradicted(document, left, "always be ERROR")
    yield from _guards(document, path, left, complete and len(left) == len(guards))


def _repeated(document: Document, parsed: Parsed) -> Iterator[tuple[Finding, KeyPath]]:
    """Of a list, what an earlier entry says already: one of the two was meant to say something else."""
    from aprender.contracts.judge_controls import repeated

    places = {id(one): at for at, one in parsed}
    for again, earlier in repeated([one for _, one in parsed]):
        at, first = places[id(again)], document.position(places[id(earlier)])
        message = f"says the same as '{earlier.text}' at {first.line}:{first.column}: was something else meant?"
        yield document.finding(at, "EXPR-002", message), at


def _contradicted(document: Document, parsed: Parsed, outcome: str) -> Iterator[Finding]:
    """Of a list, the first entry that can't hold beside the others."""
    from aprender.contracts.judge_controls import contradicted

    if found := contradicted([one for _, one in parsed]):
        at = next(at for at, one in parsed if one is found[0])
        message = f"no observation passes this and '{found[1].text}': the verdict would {outcome}"
        yield document.finding(at, "EXPR-002", message)


def _parse(document: Document, path: KeyPath, item: dict[str, Any], key: str, parsed: Parsed) -> Iterator[Finding]:
    """Put the comparisons of a list into ``parsed``; what is none is a finding."""
    from aprender.contracts.expression import ExpressionError, parse

    for index, text in entries(item, key):
        at = (*path, key, index)
        try:
            parsed.append((at, parse(text)))
        except ExpressionError as error:
            yield _not_parsed(document, at, text, error)


def _not_parsed(document: Document, at: KeyPath, text: str, error: ExpressionError) -> Finding:
    from aprender.contracts.scalars import position_within

    place = position_within(document, at, text, error.column)
    if place is None:
        return document.finding(at, "EXPR-001", f"{error} (character {error.column} of the expression)")
    return document.finding(at, "EXPR-001", str(error))._replace(line=place.line, column=place.column)


def _guards(document: Document, path: KeyPath, guards: Parsed, complete: bool) -> Iterator[Finding]:
    """What guards are for: together they let nothing through of which nothing was measured."""
    from aprender.contracts.judge_controls import hold_of_nothing, only_not_negative

    idle = [(at, guard) for at, guard in guards if only_not_negative(guard)]
    for at, guard in idle:
        message = f"'{guard.text}' holds when nothing was measured: ask for at least one (>= 1), or for more than zero"
        yield document.finding(at, "EXPR-003", message)
    if complete and guards and len(idle) < len(guards) and hold_of_nothing([guard for _, guard in guards]):
        message = "every guard holds when nothing was measured (all names zero): add one that does not, such as n >= 1"
        yield document.finding((*path, "guards"), "EXPR-003", message, key=True)


OF_VERSION_2: tuple[Rule, ...] = (_expressions,)

"""Expectations and guards of a version 2 contract: one comparison each, which can come out either way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aprender.contracts.document import Document, KeyPath
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import Rule, entries, items
from aprender.contracts.schema_check import is_version_2

if TYPE_CHECKING:
    from aprender.contracts.expression import Comparison, ExpressionError
    from aprender.contracts.samples import Effort

Parsed = list[tuple[KeyPath, "Comparison"]]

MAX_CHARACTERS = (
    50_000  # of all expressions of a file: proving costs time, and a stranger's contract must not take minutes
)


def _expressions(document: Document) -> Iterator[Finding]:
    """EXPR-001: one comparison. EXPR-002: that can come out either way. EXPR-003: zero measurements pass no guards."""
    if not is_version_2(document.data):
        return
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

    guards: Parsed = []
    expectations: Parsed = []
    yield from _parse(document, path, item, "guards", guards)
    yield from _parse(document, path, item, "expect", expectations)
    complete = len(guards) == len(item.get("guards") or ())
    said = set[KeyPath]()
    for found, passed in ((guards, []), (expectations, [guard for _, guard in guards])):
        for at, comparison in found:
            if reason := foregone(comparison, passed, effort):
                said.add(at)
                yield document.finding(at, "EXPR-002", reason)
    yield from _together(document, guards, [one for one in expectations if one[0] not in said])
    left = [guard for guard in guards if guard[0] not in said]
    yield from _guards(document, path, left, complete and len(left) == len(guards))


def _together(document: Document, guards: Parsed, expectations: Parsed) -> Iterator[Finding]:
    """What expectations say beside each other and beside the guards: not the opposite, and nothing twice."""
    from aprender.contracts.judge_controls import contradicted, repeated

    places = {id(one): at for at, one in expectations}
    for again, earlier in repeated([one for _, one in expectations]):
        message = f"says the same as '{earlier.text}': once is enough"
        yield document.finding(places[id(again)], "EXPR-002", message, warning=True)
    found = contradicted([one for _, one in (*guards, *expectations)])
    if found and id(found[0]) in places:
        message = f"no observation satisfies this and '{found[1].text}': the verdict can never be GREEN"
        yield document.finding(places[id(found[0])], "EXPR-002", message)


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
    from aprender.contracts.judge_controls import contradicted, hold_of_nothing, only_not_negative

    comparisons = [guard for _, guard in guards]
    if found := contradicted(comparisons):
        at = next(at for at, guard in guards if guard is found[0])
        message = f"no observation passes this guard and '{found[1].text}': the verdict would always be ERROR"
        yield document.finding(at, "EXPR-002", message)
    idle = [(at, guard) for at, guard in guards if only_not_negative(guard)]
    for at, guard in idle:
        message = f"'{guard.text}' holds when nothing was measured: ask for at least one (>= 1), or for more than zero"
        yield document.finding(at, "EXPR-003", message)
    if complete and guards and len(idle) < len(guards) and hold_of_nothing(comparisons):
        message = "every guard holds when nothing was measured (all names zero): add one that does not, such as n >= 1"
        yield document.finding((*path, "guards"), "EXPR-003", message, key=True)


RULES: tuple[Rule, ...] = (_expressions,)

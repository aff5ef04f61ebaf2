"""PARITY: a ledger of comparisons with competitors, in which a verdict must exist, be fresh, and have an owner.

All dates are judged against today, never against another date that an author wrote. That a validity window has run out
is no error of the contract: the published tool's ledger command says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import KeyPath, Rule, blank, items, kind_of, metadata_of, said_by_schema
from aprender.contracts.rules.dates import MAX_DAYS, day_number, today

KIND = "competitive-parity"
RUNNERS = ("cargo", "bash", "sh", "make", "pv", "apr")
_UNPINNED = frozenset(
    ("latest", "unpinned", "unknown", "tbd", "todo", "na", "any", "current", "head", "main", "master", "whatever")
)
_MANDATORY = (  # keys of a row, the rule that asks for each, and what it says
    ("competitor", "PARITY-003", "whom the row compares with"),
    ("invocation_apr", "PARITY-005", "which command of ours was run"),
    ("invocation_competitor", "PARITY-005", "which command of theirs was run"),
    ("owner", "PARITY-008", "who answers for it"),
    ("evidence", "PARITY-009", "where the measurement is"),
    ("dimension", "PARITY-010", "what is compared"),
)


def _ledger(document: Document) -> Iterator[Finding]:
    """PARITY-000: a ledger is no registry. PARITY-001: it has rows."""
    if kind_of(document) != KIND:
        return
    if metadata_of(document).get("registry") is True:
        message = f"metadata.registry has no meaning for kind {KIND}; remove it"
        yield document.finding(("metadata", "registry"), "PARITY-000", message, key=True)
    yield from _commands(document)
    yield from _far_dates(document)
    if "parity" not in document.data and said_by_schema(document, ("parity",)):
        return
    parity = document.data.get("parity") or {}
    if not parity.get("rows"):
        yield document.finding(("parity",), "PARITY-001", f"a contract of kind {KIND} needs parity.rows")
        return
    rows = list(items(document, "parity", "rows"))
    yield from _unique(document, rows, "PARITY-002", "row")
    for path, row in rows:
        yield from _row(document, path, row)
    yield from _downgrades(document, rows)
    yield from _removals(document, rows)
    yield from _coverage(document, parity.get("coverage"))


def _row(document: Document, path: KeyPath, row: dict[str, Any]) -> Iterator[Finding]:
    """PARITY-003 to 011, 017: competitor, pin, commands, verdict, dates, owner, evidence."""
    for key, rule, what in _MANDATORY:
        yield from _filled(document, path, row, key, rule, what)
    pin = str(row.get("competitor_version") or "")
    words = set(re.split("[^a-z0-9]+", pin.lower()))
    if not re.search("[0-9]", pin) or words & _UNPINNED:
        message = f"competitor_version '{pin}' is no exact version; results against it can't be repeated"
        yield document.finding((*path, "competitor_version"), "PARITY-004", message)
    if row.get("verdict") is None and not said_by_schema(document, (*path, "verdict")):
        yield document.finding(path, "PARITY-006", "the row has no verdict; write UNMEASURED if nothing was measured")
    measured, until = _day(row, "measured_on"), _day(row, "valid_until")
    for key, day in (("measured_on", measured), ("valid_until", until)):
        if day is None:
            yield document.finding((*path, key), "PARITY-007", f"{key} must be a date such as 2026-11-22")
    if measured is not None and until is not None:
        if until <= measured:
            yield document.finding((*path, "valid_until"), "PARITY-007", "valid_until must be after measured_on")
        elif until - measured > MAX_DAYS:
            message = f"valid for {until - measured} days; a comparison is good for at most {MAX_DAYS}"
            yield document.finding((*path, "valid_until"), "PARITY-011", message)
    yield from _not_in_the_future(document, path, "measured_on", measured)


def _downgrades(document: Document, rows: list[tuple[KeyPath, dict[str, Any]]]) -> Iterator[Finding]:
    """PARITY-012 to 014, 017, 019: a verdict taken back names its row, a reason, an owner and a day to look again."""
    declared = {_entry_point(row): row.get("verdict") or "UNMEASURED" for _, row in rows}
    downgrades = list(items(document, "parity", "downgrades"))
    yield from _unique(document, downgrades, "PARITY-012", "downgrade")
    for path, item in downgrades:
        name = _entry_point(item)
        if name and name not in declared:
            yield document.finding((*path, "entry_point"), "PARITY-012", f"no row has the entry point '{name}'")
        yield from _filled(document, path, item, "reason", "PARITY-013", "why the verdict was taken back")
        yield from _filled(document, path, item, "owner", "PARITY-013", "who answers for it")
        recorded, recheck = _day(item, "recorded_on"), _day(item, "recheck_by")
        for key, day in (("recorded_on", recorded), ("recheck_by", recheck)):
            if day is None:
                yield document.finding((*path, key), "PARITY-013", f"{key} must be a date such as 2026-11-22")
        if recorded is not None and recheck is not None and not 0 < recheck - recorded <= MAX_DAYS:
            message = f"recheck_by must be 1 to {MAX_DAYS} days after recorded_on"
            yield document.finding((*path, "recheck_by"), "PARITY-013", message)
        yield from _destination(document, path, item, declared.get(name))
        yield from _not_in_the_future(document, path, "recorded_on", recorded)


def _destination(document: Document, path: KeyPath, item: dict[str, Any], declared: Any) -> Iterator[Finding]:
    before, after = item.get("from_verdict"), item.get("to_verdict")
    if declared is not None and (after or "UNMEASURED") != declared:
        message = f"the downgrade leads to {after or 'UNMEASURED'}, but its row declares {declared}"
        yield document.finding(path, "PARITY-014", message)
    if (before is None) != (after is None):
        yield document.finding(path, "PARITY-019", "from_verdict and to_verdict stand together or not at all")
    elif before is not None and before == after:
        yield document.finding((*path, "to_verdict"), "PARITY-019", f"from {before} to {after} is no change")


def _commands(document: Document) -> Iterator[Finding]:
    """PARITY-015: each falsifier has a command that can be run."""
    for path, item in items(document, "falsification_tests"):
        texts = [str(item.get(key) or "").strip() for key in ("test", "command", "test_harness")]
        words = [text.split()[0] for text in texts if text]
        if not any(word in RUNNERS or word.startswith("./") for word in words):
            message = f"no command that can be run: it must start with {', '.join(RUNNERS)} or ./"
            yield document.finding((*path, "test"), "PARITY-015", message)


def _far_dates(document: Document) -> Iterator[Finding]:
    """PARITY-016: no date anywhere lies further ahead than a comparison is good for."""
    pending: list[tuple[KeyPath, Any]] = [((), document.data)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            pending += [((*path, key), entry) for key, entry in value.items()]
        elif isinstance(value, list):
            pending += [((*path, index), entry) for index, entry in enumerate(value)]
        elif (day := day_number(value)) is not None and day - today() > MAX_DAYS:
            yield document.finding(path, "PARITY-016", f"{value.strip()} is more than {MAX_DAYS} days ahead of today")


def _removals(document: Document, rows: list[tuple[KeyPath, dict[str, Any]]]) -> Iterator[Finding]:
    """PARITY-025, 026, 027: a row that was taken out names a reason, an owner, a day, and what replaces it."""
    downgrades = items(document, "parity", "downgrades")
    present = {_entry_point(item) for _, item in (*rows, *downgrades)}
    removals = list(items(document, "parity", "removals"))
    yield from _unique(document, removals, "PARITY-025", "removal")
    for path, item in removals:
        yield from _filled(document, path, item, "reason", "PARITY-025", "why the row was removed")
        yield from _filled(document, path, item, "owner", "PARITY-025", "who answers for it")
        recorded = _day(item, "recorded_on")
        if recorded is None:
            yield document.finding(
                (*path, "recorded_on"), "PARITY-025", "recorded_on must be a date such as 2026-11-22"
            )
        yield from _not_in_the_future(document, path, "recorded_on", recorded)
        name, replacement = _entry_point(item), item.get("replacement")
        if name and name in present:
            yield document.finding((*path, "entry_point"), "PARITY-026", f"'{name}' is removed and still has an entry")
        if replacement is None and item.get("reason") in ("RENAMED", "MERGED_INTO"):
            yield document.finding(path, "PARITY-027", f"{item['reason']} needs a replacement")
        elif replacement is not None and (not _canonical(replacement) or replacement.strip() == name):
            message = f"'{replacement}' replaces nothing: it must be another entry point"
            yield document.finding((*path, "replacement"), "PARITY-027", message)


def _coverage(document: Document, coverage: dict[str, Any] | None) -> Iterator[Finding]:
    """PARITY-021: how much is covered, why, and what speaks against it. PARITY-022: rising steps with dates."""
    path = ("parity", "coverage")
    if coverage is None:
        if not said_by_schema(document, path):
            yield document.finding(
                ("parity",), "PARITY-021", "parity.coverage is missing: say how much is compared by when"
            )
        return
    for key, what in (("rationale", "why so much is enough"), ("dissent", "what speaks against it")):
        yield from _filled(document, path, coverage, key, "PARITY-021", what)
    steps = list(items(document, *path, "steps"))
    if not steps:
        yield document.finding(
            (*path, "steps"), "PARITY-022", "parity.coverage.steps is empty: name a date and a number"
        )
    before = (-1, 0, 0)
    for at, step in steps:
        by, covered, scope = _day(step, "by"), step.get("covered_min") or 0, step.get("scope_min") or 0
        values = (-1 if by is None else by, covered, scope)
        if by is None:
            yield document.finding((*at, "by"), "PARITY-022", "by must be a date such as 2026-11-22")
        elif covered == 0 or scope < max(covered, 1):
            yield document.finding(at, "PARITY-022", "covered_min must be above 0 and scope_min at least covered_min")
        elif not all(new > old for new, old in zip(values, before, strict=True)):
            message = "by, covered_min and scope_min must all rise from step to step"
            yield document.finding(at, "PARITY-022", message)
        before = values


def _unique(
    document: Document, entries: list[tuple[KeyPath, dict[str, Any]]], rule: str, what: str
) -> Iterator[Finding]:
    """Each entry point is there, stands once, and has one way to be written."""
    seen: set[str] = set()
    for path, item in entries:
        name, at = item.get("entry_point"), (*path, "entry_point")
        if blank(name):
            if name is not None or not said_by_schema(document, at):
                yield document.finding(at, rule, f"the {what} has no entry_point")
        elif not _canonical(str(name)):
            message = f"entry_point {name!r} must be printable ASCII without blanks around it"
            yield document.finding(at, rule, message)
        elif name in seen:
            yield document.finding(at, rule, f"entry point '{name}' has two {what}s")
        seen.add(_entry_point(item))


def _filled(
    document: Document, path: KeyPath, item: dict[str, Any], key: str, rule: str, what: str
) -> Iterator[Finding]:
    if blank(item.get(key)) and not (key not in item and said_by_schema(document, (*path, key))):
        yield document.finding((*path, key), rule, f"'{key}' does not say {what}")


def _not_in_the_future(document: Document, path: KeyPath, key: str, day: int | None) -> Iterator[Finding]:
    if day is not None and day > today():
        yield document.finding((*path, key), "PARITY-017", f"{key} lies in the future")


def _entry_point(item: dict[str, Any]) -> str:
    return str(item.get("entry_point") or "").strip()


def _canonical(name: str) -> bool:
    return name == name.strip() and name != "" and all(" " <= character <= "~" for character in name)


def _day(item: dict[str, Any], key: str) -> int | None:
    return day_number(item.get(key))


RULES: tuple[Rule, ...] = (_ledger,)

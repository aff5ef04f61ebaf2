"""What changed between two versions of a contract: tightened, weakened or neutral; explained or not.

Works on plain data of either dialect. The principle: what demands less, or can't be told to demand as much, is
weakened.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from aprender.contracts.amendments import explain
from aprender.contracts.bounds import ranges_of, relation
from aprender.contracts.change import Change, Kind, Pair, Record, one_line, same, texts_of
from aprender.contracts.diff_entries import Entry, by_gained_ids, named, renamed, with_gained_id
from aprender.contracts.diff_falsifier import compare_falsifier
from aprender.contracts.document import Document

LEVELS = ("none", "patch", "minor", "major")
_HOURS = {"h": 1, "d": 24, "w": 168}
_VERSION = re.compile(r"\s*v?([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:\.([0-9]{1,9}))?")
_CLAIMS = ("invariants", "postconditions", "guarantees")
_PROSE = ("property", "statement", "description")
_LEVEL_KEYS = ("enforcement_level", "locked_level")
_LEVELS = {name: level for level, names in enumerate((("basic", "l1"), ("standard", "l2", "l3"), ("strict", "l4"),
           ("proven", "l5")), 1) for name in names}  # fmt: skip
_IF_LARGER: dict[str, Kind] = {"tolerance": "weakened", "float_tolerance": "weakened", "bound": "tightened"}


class Diff(NamedTuple):
    """All changes of one contract in order of place, and what they ask of ``metadata.version``."""

    old_file: str
    new_file: str
    changes: tuple[Change, ...]
    old_version: str | None
    new_version: str | None

    @property
    def unexplained(self) -> list[Change]:
        """The weakenings that no amendment explains."""
        return [change for change in self.changes if change.kind == "weakened" and change.explained_by is None]

    @property
    def suggested(self) -> str:
        """The part of the version that these changes ask to be raised."""
        kinds = {change.kind for change in self.changes}
        return "major" if "weakened" in kinds else "minor" if "tightened" in kinds else "patch" if kinds else "none"

    @property
    def bumped(self) -> str | None:
        """The part of the version that was raised; None where a version can't be read, or went down."""
        matches = [_VERSION.match(version or "") for version in (self.old_version, self.new_version)]
        if matches[0] is None or matches[1] is None:
            return None
        old, new = ([int(part or 0) for part in match.groups()] for match in matches if match)
        if new < old:
            return None
        return next(
            (level for level, *parts in zip(("major", "minor", "patch"), old, new, strict=True) if parts[0] < parts[1]),
            "none",
        )

    @property
    def bumped_enough(self) -> bool:
        """Whether the version was raised at least as far as suggested."""
        return self.suggested == "none" or (
            self.bumped is not None and LEVELS.index(self.bumped) >= LEVELS.index(self.suggested)
        )


def diff(old: Document, new: Document) -> Diff:
    """Compare two documents whose data is a mapping."""
    record = Record(old, new)
    top = Pair(record, "", (record.old.data, ()), (new.data, ()))
    before, after = old.data.get("schema_version"), top.both("schema_version")[1]
    if not same(before, after):
        top.add(
            "tightened" if before is None else "weakened",
            f"schema_version {before} became {after}",
            "schema_version",
            old=before,
            new=after,
        )
    metadata = top.inner("metadata")
    versions = metadata.both("version")
    _metadata(metadata)
    for key in ("equations", "proof_obligations", "falsification_tests", "kani_harnesses", "type_invariants"):
        _items(top, key)
    top.compare_texts("code_under_contract", "code under contract")
    _valid_for(top)
    gate = top.inner("qa_gate")
    gate.compare_texts("checks", "check")
    gate.compare_claim("pass_criteria")
    gate.compare_rest(("name", "description", "falsification"))
    _enforcement(top)
    top.compare_claim("kernel_structure")
    top.both("amendments")
    top.compare_rest()
    changes = sorted(
        explain(record.changes, record.old.data, new), key=lambda change: (change.line, change.column, change.what)
    )
    old_version, new_version = (None if version is None else str(version) for version in versions)
    return Diff(old.file, new.file, tuple(changes), old_version, new_version)


def _metadata(pair: Pair) -> None:
    old, new = (
        "registry" if side.get("registry") is True else str(side.get("kind", "kernel")) for side in (pair.old, pair.new)
    )
    pair.seen |= {"kind", "registry"}
    if old != new:
        kinds: dict[bool, Kind] = {old == "kernel": "weakened", new == "kernel": "tightened"}
        kind = kinds.get(True, "neutral")
        what = {
            "weakened": ": the rules for kernels don't hold any more",
            "tightened": ": the rules for kernels hold now",
        }
        pair.add(kind, f"kind {old} became {new}{what.get(kind, '')}", "kind", old=old, new=new)
    for key in _LEVEL_KEYS:
        _level(pair, key)
    pair.compare_rest(("description",))


def _level(pair: Pair, key: str) -> None:
    """How strictly a contract is held to: a level that nobody knows is below all others."""
    old, new = pair.both(key)
    if not same(old, new):
        before, after = (_LEVELS.get(str(value).lower(), 0) for value in (old, new))
        what = f"{key} {one_line(old)} became {one_line(new)}"
        pair.add("tightened" if after > before else "weakened", what, key, old=old, new=new)


def _enforcement(top: Pair) -> None:
    """Rules that people enforce: fewer of them, or less severe ones, are less."""
    rules = top.inner("enforcement")
    for name in dict.fromkeys((*rules.old, *rules.new)):
        if isinstance(rules.old.get(name), dict) and isinstance(rules.new.get(name), dict):
            rule = rules.inner(name)
            for key in ("severity", "check"):
                rule.compare_claim(key)
            rule.compare_rest(("description",))
        else:
            rules.compare_claim(name)


def _valid_for(pair: Pair) -> None:
    old, new = pair.both("valid_for")
    if same(old, new):
        return
    before, after = _hours(old), _hours(new)
    kind: Kind = "tightened" if after is not None and (before is None or after < before) else "weakened"
    if before is not None and before == after:
        kind = "neutral"
    what = "evidence now stays fresh for ever" if new is None else f"valid_for {one_line(old)} became {new}"
    pair.add(kind, what, "valid_for", old=old, new=new)


def _hours(value: Any) -> int | None:
    match = re.fullmatch(r"([0-9]{1,9})([hdw])", str(value))
    return int(match.group(1)) * _HOURS[match.group(2)] if match else None


_NOUNS = {
    "equations": "equation", "proof_obligations": "obligation", "falsification_tests": "falsifier",
    "kani_harnesses": "harness", "type_invariants": "type invariant",
}  # fmt: skip


def _items(top: Pair, key: str) -> None:
    """Entries that go by a name: removed is weakened, added is tightened, kept are compared."""
    noun = _NOUNS[key]
    old, new = (named(value, key) for value in top.both(key))
    if noun == "obligation":
        old = by_gained_ids(old, new, top.record)
    if noun == "harness":
        old = {name: with_gained_id(item, new.get(name), top.record.gained) for name, item in old.items()}
    other_ids = renamed(old, new) if noun == "falsifier" else {}
    for name, item in old.items():
        if name in new or name in other_ids:
            continue
        _whole(top, "weakened", f"{noun} {name} removed", noun, name, item, None)
    for name, item in new.items():
        if name in old:
            _compare(Pair(top.record, name, old[name], item, name if noun == "falsifier" else None), noun)
        elif name not in other_ids.values():
            _whole(top, "tightened", f"{noun} {name} added", noun, name, None, item)
    for name, other in other_ids.items():
        what = f"{noun} {name} is now called {other}: evidence and amendments go by id"
        _whole(top, "weakened", what, noun, other, old[name], new[other], names=[name])


def _whole(
    top: Pair,
    kind: Kind,
    what: str,
    noun: str,
    name: str,
    old: Entry | None,
    new: Entry | None,
    names: list[str] | None = None,
) -> None:
    document, item = (top.record.new, new) if new is not None else (top.record.old, old)
    position = document.position(item.path if item is not None else ())
    falsifier = name if noun == "falsifier" else None
    top.record.changes.append(
        Change(kind, what, name, falsifier, old and old.data, new and new.data, document.file, position.line,
               position.column, (name, *(names or ())))
    )  # fmt: skip


def _compare(pair: Pair, noun: str) -> None:
    if noun == "falsifier":
        compare_falsifier(pair)
        return
    ranges = ranges_of(*(texts_of(side.get("preconditions")) for side in (pair.old, pair.new)))
    for key in _CLAIMS:
        pair.compare_texts(key, key.removesuffix("s"), bounds=True, ranges=ranges)
    pair.compare_texts("preconditions", "precondition", bounds=True, inverted=True, ranges=ranges)
    for key in ("formula", "domain", "codomain", "predicate"):
        old, new = pair.both(key)
        if not same(old, new):
            what = f"{key} '{one_line(old)}' became '{one_line(new)}': another claim"
            pair.add("weakened" if old is not None else "tightened", what, key, old=old, new=new)
    for key, larger in _IF_LARGER.items():
        pair.compare_number(key, larger=larger)
    _restated(pair)
    if noun == "obligation" and pair.old.get("formal") is None:  # the words are all that was claimed
        for key in ("property", "statement"):
            pair.compare_claim(key)
    if pair.new.get("tolerance_reason") is None:  # reworded it is prose
        pair.compare_claim("tolerance_reason")
    for key in {"obligation": ("type",), "harness": ("obligation", "strategy")}.get(noun, ()):
        pair.compare_claim(key)
    _applies_to(pair)
    pair.compare_rest(_PROSE)


def _restated(pair: Pair) -> None:
    """Claims that may be comparisons: then it can be told which way they went."""
    for key in ("formal", "verification"):
        text, other = pair.old.get(key), pair.new.get(key)
        kind = relation(text, other) if isinstance(text, str) and isinstance(other, str) else None
        if kind in ("tightened", "weakened"):
            pair.both(key)
            pair.add(kind, f"{key} '{text}' became '{other}'", key, old=text, new=other)
        elif kind is None:  # same() knows whether it is a change at all
            pair.compare_claim(key)


def _applies_to(pair: Pair) -> None:
    """An obligation for fewer things demands less."""
    old, new = (str(value or "all") for value in pair.both("applies_to"))
    if old != new:
        kind: Kind = "tightened" if new == "all" or old in ("not_applicable", "N/A") else "weakened"
        pair.add(kind, f"applies_to {old} became {new}", "applies_to", old=old, new=new)

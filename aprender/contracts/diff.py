"""What changed between two versions of a contract: tightened, weakened or neutral; explained or not.

Works on plain data of either dialect. The principle: what demands less, or can't be told to demand as much, is
weakened.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from aprender.contracts.amendments import explain
from aprender.contracts.bounds import known_from
from aprender.contracts.change import Change, Kind, Pair, Path, Record, same, texts_of
from aprender.contracts.diff_falsifier import compare_falsifier
from aprender.contracts.document import Document
from aprender.contracts.migrate_steps import ALIASES, DEFAULT_TYPE

LEVELS = ("none", "patch", "minor", "major")
_HOURS = {"h": 1, "d": 24, "w": 168}
_VERSION = re.compile(r"\s*v?([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:\.([0-9]{1,9}))?")
_CLAIMS = ("invariants", "postconditions", "guarantees")
_PROSE = ("property", "statement", "description")
# From the least demanding to the most; any other value can't be told.
_STRATEGIES = ("stub_float", "bounded_int", "exhaustive")
_LEVELS = ("basic", "standard", "strict", "proven")
_LOCKED = ("l0", "l1", "l2", "l3", "l4", "l5")
_SEVERITIES = ("info", "warning", "error", "critical")
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
    top = Pair(record, "", (old.data, ()), (new.data, ()))
    before, after = top.both("schema_version")
    if not same(before, after):
        top.add(
            "tightened" if before is None else "weakened",
            f"schema_version {before} became {after}",
            "schema_version",
            old=before,
            new=after,
        )
    metadata = top.inner("metadata", {"last_modified": "updated"})
    versions = metadata.both("version")
    _metadata(metadata)
    for key in _NOUNS:
        if key != "phases":
            _items(top, key)
    structure = top.inner("kernel_structure")
    _items(structure, "phases")
    structure.compare_rest()
    top.compare_texts("code_under_contract", "code under contract")
    _valid_for(top)
    gate = top.inner("qa_gate")
    gate.compare_texts("checks", "check")
    gate.compare_claim("pass_criteria")
    gate.compare_rest(("name", "description", "falsification"))
    top.both("amendments")
    top.compare_rest()
    changes = sorted(
        explain(record.changes, old.data, new), key=lambda change: (change.line, change.column, change.what)
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
    pair.compare_ranked("enforcement_level", _LEVELS)
    pair.compare_ranked("locked_level", _LOCKED)
    pair.compare_rest(("description",))


def _valid_for(pair: Pair) -> None:
    old, new = pair.both("valid_for")
    if same(old, new):
        return
    before, after = _hours(old), _hours(new)
    kind: Kind = "tightened" if after is not None and (before is None or after < before) else "weakened"
    if before is not None and before == after:
        kind = "neutral"
    what = "evidence now stays fresh for ever" if new is None else f"valid_for {_shown(old)} became {new}"
    pair.add(kind, what, "valid_for", old=old, new=new)


def _hours(value: Any) -> int | None:
    match = re.fullmatch(r"([0-9]{1,9})([hdw])", str(value))
    return int(match.group(1)) * _HOURS[match.group(2)] if match else None


class _Item(NamedTuple):
    data: dict[str, Any]
    path: Path


_NOUNS = {
    "equations": "equation", "proof_obligations": "obligation", "falsification_tests": "falsifier",
    "kani_harnesses": "harness", "type_invariants": "type invariant", "enforcement": "enforcement rule",
    "phases": "phase",
}  # fmt: skip


def _items(top: Pair, key: str) -> None:
    """Entries that go by a name: removed is weakened, added is tightened, kept are compared."""
    noun = _NOUNS[key]
    before, after = top.both(key)
    old, new = _named(before, key, top.old_path), _named(after, key, top.new_path)
    if noun == "obligation":
        old = _with_new_ids(old, new, top.record)
    renamed = _renamed(old, new) if key == "falsification_tests" else {}
    for name, item in old.items():
        if name in new or name in renamed:
            continue
        _whole(top, "weakened", f"{noun} {name} removed", noun, name, item, None)
    for name, item in new.items():
        if name in old:
            falsifier = name if noun == "falsifier" else None
            _compare(Pair(top.record, name, old[name], item, falsifier, ALIASES.get(key, {})), noun)
        elif name not in renamed.values():
            _whole(top, "tightened", f"{noun} {name} added", noun, name, None, item)
    for name, other in renamed.items():
        what = f"{noun} {name} is now called {other}: evidence and amendments go by id"
        _whole(top, "weakened", what, noun, other, old[name], new[other], names=[name])


def _whole(
    top: Pair,
    kind: Kind,
    what: str,
    noun: str,
    name: str,
    old: _Item | None,
    new: _Item | None,
    names: list[str] | None = None,
) -> None:
    document, item = (top.record.new, new) if new is not None else (top.record.old, old)
    position = document.position(item.path if item is not None else ())
    falsifier = name if noun == "falsifier" else None
    top.record.changes.append(
        Change(kind, what, name, falsifier, old and old.data, new and new.data, document.file, position.line,
               position.column, (name, *(names or ())))
    )  # fmt: skip


def _named(value: Any, key: str, path: Path) -> dict[str, _Item]:
    """The entries of a list or mapping by id, by what they say, or by their place."""
    found: dict[str, _Item] = {}
    if isinstance(value, dict):
        entries: list[tuple[Any, Any]] = list(value.items())
    else:
        entries = list(enumerate(value)) if isinstance(value, list) else []
    for step, entry in entries:
        data = entry if isinstance(entry, dict) else {"formula": entry} if key == "equations" else {"property": entry}
        if key == "proof_obligations" and data.get("type") is None:
            data = data | {"type": DEFAULT_TYPE}
        candidates = [step] if isinstance(step, str) else [data.get(k) for k in ("id", "name", "property", "statement")]
        name = next((text for text in candidates if isinstance(text, str) and text.strip()), f"{key}[{step}]")
        while name in found:  # a duplicate is an error of its own; here the second is compared with the second
            name += " (again)"
        found[name] = _Item(data, (*path, key, step))
    return found


def _with_new_ids(old: dict[str, _Item], new: dict[str, _Item], record: Record) -> dict[str, _Item]:
    """OLD's obligations by the id that each has in NEW: one that had none is told by what it claims."""
    free: dict[str, list[str]] = {}
    for name, item in new.items():
        if name not in old:
            free.setdefault(_claim(item), []).append(name)
    found: dict[str, _Item] = {}
    for name, item in old.items():
        claim = _claim(item)
        if claim and name not in new and not isinstance(item.data.get("id"), str) and free.get(claim):
            name = free[claim].pop(0)
            record.claims.setdefault(claim, name)
        found[name] = item
    return found


def _claim(item: _Item) -> str:
    text = item.data.get("property", item.data.get("statement"))
    return " ".join(text.split()) if isinstance(text, str) else ""


def _renamed(old: dict[str, _Item], new: dict[str, _Item]) -> dict[str, str]:
    """Falsifiers that are the same but for their id."""
    found: dict[str, str] = {}
    fresh = [name for name in new if name not in old]
    for name in old.keys() - new.keys():
        rest = {key: value for key, value in old[name].data.items() if key != "id"}
        for other in fresh:
            if rest and same(rest, {key: value for key, value in new[other].data.items() if key != "id"}):
                found[name] = other
                fresh.remove(other)
                break
    return found


# What an entry claims: nobody can tell which of two texts demands more, unless they are comparisons.
_MEANING: dict[str, tuple[str, ...]] = {
    "equation": ("formula", "domain", "codomain"),
    "obligation": ("type", "formal", "verification"),
    "harness": ("obligation", "harness"),
    "type invariant": ("predicate",),
    "enforcement rule": ("check",),
    "phase": ("invariant",),
}
_RANKED: dict[str, dict[str, tuple[str, ...]]] = {
    "harness": {"strategy": _STRATEGIES},
    "enforcement rule": {"severity": _SEVERITIES},
}


def _compare(pair: Pair, noun: str) -> None:
    if noun == "falsifier":
        compare_falsifier(pair)
        return
    if pair.name in (pair.old.get("id"), pair.new.get("id")):
        pair.both("id")  # the name by which the two were found
    claim = _line(pair.old.get("obligation"))
    if noun == "harness" and claim in pair.record.claims and pair.record.claims[claim] == pair.new.get("obligation"):
        pair.both("obligation")  # the same one, by the id that it has now
    known = known_from(*(texts_of(side.get("preconditions")) for side in (pair.old, pair.new)))
    for key in _CLAIMS:
        pair.compare_texts(key, key.removesuffix("s"), bounds=True, known=known)
    pair.compare_texts("preconditions", "precondition", bounds=True, inverted=True, known=known)
    for key in [key for key in _MEANING.get(noun, ()) if key not in pair.seen]:
        pair.compare_claim(key, known)
    for key, larger in _IF_LARGER.items():
        pair.compare_number(key, larger=larger)
    for key, ranks in _RANKED.get(noun, {}).items():
        pair.compare_ranked(key, ranks)
    pair.compare_reason("tolerance_reason")
    _applies_to(pair)
    pair.compare_rest(_PROSE)


def _applies_to(pair: Pair) -> None:
    """An obligation for fewer things demands less."""
    old, new = (str(value or "all") for value in pair.both("applies_to"))
    if old != new:
        kind: Kind = "tightened" if new == "all" or old in ("not_applicable", "N/A") else "weakened"
        pair.add(kind, f"applies_to {old} became {new}", "applies_to", old=old, new=new)


def _line(value: Any) -> str:
    return " ".join(str(value).split())


def _shown(value: Any) -> str:
    return "none" if value is None else " ".join(str(value).split())

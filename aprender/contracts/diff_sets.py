"""The diff of two files, or of two folders whose contracts are paired by stem."""

from __future__ import annotations

from aprender.contracts.amendments import explain
from aprender.contracts.change import Change, Kind
from aprender.contracts.diff import Diff, diff
from aprender.contracts.document import Document
from aprender.contracts.revisions import Side, document_of, side_of
from aprender.contracts.validate import NothingToDo


def diff_of(old_name: str, new_name: str) -> list[Diff]:
    """One Diff per contract. Raises NothingToDo or AprenderError where a side can't be read."""
    new, old = side_of(new_name, old_name), side_of(old_name, new_name)
    if old.is_folder != new.is_folder:
        raise NothingToDo(f"{old_name} and {new_name}: compare two files or two folders, not one with the other")
    before, after = _documents(old), _documents(new)
    if not new.is_folder:
        return [diff(next(iter(before.values())), next(iter(after.values())))]
    return [_one(stem, before, after) for stem in sorted({*before, *after})]


def _documents(side: Side) -> dict[str, Document]:
    return {stem: document_of(name, raw) for stem, (name, raw) in side.files.items()}


def _one(stem: str, before: dict[str, Document], after: dict[str, Document]) -> Diff:
    if stem in before and stem in after:
        return diff(before[stem], after[stem])
    document, kind, verb = (
        (after[stem], "tightened", "added") if stem in after else (before[stem], "weakened", "removed")
    )
    tests = document.data.get("falsification_tests")
    count = len(tests) if isinstance(tests, list) else 0
    what = f"contract {stem} {verb}, with {count} falsifier{'' if count == 1 else 's'}"
    kinds: dict[str, Kind] = {"tightened": "tightened", "weakened": "weakened"}
    change = Change(kinds[kind], what, stem, None, None, None, document.file, 1, 1, (stem,))
    if kind == "weakened":
        change = _explained_elsewhere(change, before, after)
    return Diff(document.file, document.file, (change,), None, None)


def _explained_elsewhere(change: Change, before: dict[str, Document], after: dict[str, Document]) -> Change:
    """A contract that is gone can't say why; any other contract of the set may."""
    for stem, document in after.items():
        change = explain([change], before[stem].data if stem in before else {}, document)[0]
    return change

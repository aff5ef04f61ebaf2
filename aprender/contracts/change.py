"""One change between two versions of a contract, and the recorder that knows where each stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from aprender.contracts.bounds import Ranges, comparison_or_none, relation
from aprender.contracts.document import Document
from aprender.contracts.migrated import Migrated, as_version_2

Kind = Literal["tightened", "weakened", "neutral"]
Path = tuple[str | int, ...]

_OPPOSITE: dict[Kind, Kind] = {"tightened": "weakened", "weakened": "tightened", "neutral": "neutral"}


class Change(NamedTuple):
    """``place`` is where in the contract, ``names`` what an amendment may call it; gone: the place is in OLD."""

    kind: Kind
    what: str
    place: str
    falsifier: str | None
    old: Any
    new: Any
    file: str
    line: int
    column: int
    names: tuple[str, ...] = ()
    explained_by: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What a program needs, as plain data."""
        keys = ("what", "place", "falsifier", "old", "new", "file", "line", "column", "explained_by")
        return {"class": self.kind} | {key: getattr(self, key) for key in keys}


class Record:
    """Collects changes and finds their places: in NEW, or in OLD for what is only there.

    An OLD of the published dialect is migrated first where NEW is version 2: what that does is no change.
    """

    def __init__(self, old: Document, new: Document) -> None:
        self.typed, self.old, self.new = old, as_version_2(old, new), new
        self.changes: list[Change] = []
        self.gained: dict[str, str] = {}  # the id in NEW of obligations that had none, by what OLD calls them


class Pair:
    """The same mapping in both documents; ``name`` is what stands before each place in it."""

    def __init__(
        self, record: Record, name: str, old: tuple[Any, Path], new: tuple[Any, Path], falsifier: str | None = None
    ) -> None:
        self.record, self.name, self.falsifier = record, name, falsifier
        (old_data, self.old_path), (new_data, self.new_path) = old, new
        before: Mapping[str, Any] = old_data if isinstance(old_data, dict) else {}
        after: Mapping[str, Any] = new_data if isinstance(new_data, dict) else {}
        aside = record.old.aside.get(self.old_path, ()) if isinstance(record.old, Migrated) else ()
        # What was put aside is compared by the key that it had: under ``x-`` it can be weakened, too.
        self.aside = {f"x-{key}": key for key in aside if not (key in before or key in after)}
        self.old = {self.aside.get(key, key): value for key, value in before.items()}
        self.new = {self.aside.get(key, key): value for key, value in after.items()}
        self.seen: set[str] = set()

    def both(self, key: str) -> tuple[Any, Any]:
        """The value of ``key`` in OLD and in NEW; it counts as looked at."""
        self.seen.add(key)
        return self.old.get(key), self.new.get(key)

    def inner(self, key: str) -> Pair:
        """The mappings that ``key`` leads to."""
        old, new = self.both(key)
        return Pair(
            self.record, self._place(key), (old, (*self.old_path, key)), (new, (*self.new_path, key)), self.falsifier
        )

    def add(
        self,
        kind: Kind,
        what: str,
        key: str,
        *,
        old: Any = None,
        new: Any = None,
        at: tuple[int | None, int | None] = (None, None),
        names: Iterable[str] = (),
    ) -> None:
        """Record a change of ``key``; ``at`` are the indices in OLD and in NEW where it is an entry of a list."""
        removed = new is None and old is not None
        document, path, index = (
            (self.record.old, self.old_path, at[0]) if removed else (self.record.new, self.new_path, at[1])
        )
        typed = next((typed for typed, name in self.aside.items() if name == key), key)
        position = document.position((*path, typed) if index is None else (*path, typed, index))
        place = self._place(key)
        known = (place, self.falsifier, *names, *(value for value in (old, new) if isinstance(value, str)))
        message = f"{self.name}: {what}" if self.name else what
        self.record.changes.append(
            Change(kind, message, place, self.falsifier, old, new, document.file, position.line, position.column,
                   tuple(dict.fromkeys(" ".join(name.split()) for name in known if name)))
        )  # fmt: skip

    def compare_rest(self, prose: Iterable[str] = ()) -> None:
        """Whatever no rule looked at is neutral."""
        for key in dict.fromkeys((*self.old, *self.new)):
            if key not in self.seen:
                old, new = self.both(key)
                if not same(old, new) and not _reordered(old, new):
                    verb = "reworded" if key in prose and old and new else _verb(key in self.old, key in self.new)
                    self.add("neutral", f"{key} {verb}", key, old=old, new=new)

    def compare_number(self, key: str, *, larger: Kind) -> None:
        """A bound that is one number. Where it is added or removed nobody can tell what held without it."""
        old, new = self.both(key)
        if same(old, new):
            return
        if _is_number(old) and _is_number(new):
            kind = larger if new > old else _OPPOSITE[larger]
            self.add(kind, f"{key} {old} became {new}", key, old=old, new=new)
        else:
            self.add(
                "weakened",
                f"{key} {_verb(key in self.old, key in self.new)}: {one_line(old)} became {one_line(new)}",
                key,
                old=old,
                new=new,
            )

    def compare_claim(self, key: str) -> None:
        """What nobody can compare: changed or removed it can't be told to demand as much, added it demands more."""
        old, new = self.both(key)
        if not same(old, new):
            verb = _verb(old is not None, new is not None)
            what = f"{key} {verb}" + (f": '{one_line(old)}' became '{one_line(new)}'" if verb == "changed" else "")
            self.add("tightened" if old is None else "weakened", what, key, old=old, new=new)

    def compare_texts(
        self,
        key: str,
        noun: str,
        *,
        bounds: bool = False,
        inverted: bool = False,
        ranges: Ranges | None = None,
    ) -> dict[str, str]:
        """A list of claims; with ``bounds`` they are comparisons. Returns which entry of OLD became which of NEW."""
        old, new = self.both(key)
        before, after = texts_of(old), texts_of(new)
        gone, fresh = [text for text in before if text not in after], [text for text in after if text not in before]
        became: dict[str, str] = {}

        def found(kind: Kind, text: str | None, other: str | None, what: str) -> None:
            at = (None if text is None else before[text], None if other is None else after[other])
            self.add(_OPPOSITE[kind] if inverted else kind, what, key, old=text, new=other, at=at)

        for text, other, kind in _pairs(gone, fresh, ranges) if bounds else []:
            became[text] = other
            gone.remove(text)
            fresh.remove(other)
            what = f"{noun} '{text}' became '{other}'"
            if kind is None:
                self.add("weakened", f"{what}; which of the two is stricter can't be told", key, old=text, new=other,
                         at=(before[text], after[other]))  # fmt: skip
            else:
                found(kind, text, other, what if kind != "neutral" else f"{what}, which says the same")
        for text in gone:
            found("weakened", text, None, f"{noun} '{text}' removed")
        for text in fresh:
            found("tightened", None, text, f"{noun} '{text}' added")
        return became

    def _place(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key


def texts_of(value: Any) -> dict[str, int]:
    """The entries of a list of texts with their indices; what is not text by its plain form."""
    items = value if isinstance(value, list) else [] if value is None else [value]
    found: dict[str, int] = {}
    for index, item in enumerate(items):
        found.setdefault(" ".join(str(item).split()), index)
    return found


def same(old: Any, new: Any) -> bool:
    """Equal values; text is compared without regard to how its lines are broken, and True is not 1."""
    if isinstance(old, str) and isinstance(new, str):
        return old.split() == new.split()
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(same(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(same, old, new))
    return bool(old == new) and isinstance(old, bool) == isinstance(new, bool)


def _reordered(old: Any, new: Any) -> bool:
    return isinstance(old, list) and isinstance(new, list) and sorted(map(repr, old)) == sorted(map(repr, new))


def _pairs(gone: list[str], fresh: list[str], ranges: Ranges | None) -> list[tuple[str, str, Kind | None]]:
    """Which entry became which: first where NEW implies OLD, then where it is looser, last where only names agree."""
    left, free = list(gone), list(fresh)
    found: list[tuple[str, str, Kind | None]] = []
    kinds: dict[str, Kind] = {"same": "neutral", "tightened": "tightened", "weakened": "weakened"}
    for wanted in (*kinds, None):
        for text in list(left):
            for other in free:
                if relation(text, other, ranges) == wanted and (wanted or _share_names(text, other)):
                    found.append((text, other, kinds.get(wanted or "")))
                    left.remove(text)
                    free.remove(other)
                    break
    return found


def _share_names(old: str, new: str) -> bool:
    before, after = comparison_or_none(old), comparison_or_none(new)
    return before is not None and after is not None and bool(before.names & after.names)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _verb(was: bool, now: bool) -> str:
    return "changed" if was and now else "removed" if was else "added"


def one_line(value: Any) -> str:
    """A value as text to be shown."""
    return "none" if value is None else " ".join(str(value).split())

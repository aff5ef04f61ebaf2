"""Which entry of one version is which entry of the other: by id, by what it says, or by its place."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from aprender.contracts.change import Path, Record, one_line, same
from aprender.contracts.document import Document


class Entry(NamedTuple):
    """One entry and where it stands."""

    data: dict[str, Any]
    path: Path


def named(value: Any, key: str) -> dict[str, Entry]:
    """The entries of a list or mapping by id, by what they say, or by their place."""
    found: dict[str, Entry] = {}
    times: Counter[str] = Counter()
    if isinstance(value, dict):
        entries: list[tuple[Any, Any]] = list(value.items())
    else:
        entries = list(enumerate(value)) if isinstance(value, list) else []
    for step, entry in entries:
        data = entry if isinstance(entry, dict) else {"formula": entry} if key == "equations" else {"property": entry}
        candidates = [step] if isinstance(step, str) else [data.get(k) for k in ("id", "name", "property", "statement")]
        name = next((text for text in candidates if isinstance(text, str) and text.strip()), f"{key}[{step}]")
        times[name] += 1
        if times[name] > 1:  # a duplicate is an error of its own; here the second is compared with the second
            name = f"{name} ({times[name]})"
        found[name] = Entry(data, (key, step))
    return found


def by_gained_ids(old: dict[str, Entry], new: dict[str, Entry], record: Record) -> dict[str, Entry]:
    """OLD's obligations; one that had no id goes by the id that the same claim has in NEW."""
    fresh: dict[str, list[str]] = {}
    for name, item in new.items():
        if name not in old and _claim(item) and isinstance(item.data.get("id"), str):
            fresh.setdefault(_claim(item), []).append(name)
    found: dict[str, Entry] = {}
    for name, item in old.items():
        if name not in new and not _had_id(item, record.typed) and (names := fresh.get(_claim(item))):
            gained = names.pop(0)
            record.gained |= {name: gained, _claim(item): gained}
            found[gained] = item._replace(data=item.data | {"id": gained})
        else:
            found[name] = item
    return found


def _had_id(item: Entry, typed: Document) -> bool:
    entry: Any = typed.data
    for step in item.path:
        entry = entry[step]
    return isinstance(entry, dict) and isinstance(entry.get("id"), str)


def _claim(item: Entry) -> str:
    claim = item.data.get("property", item.data.get("statement"))
    return one_line(claim) if isinstance(claim, str) else ""


def with_gained_id(item: Entry, now: Entry | None, gained: dict[str, str]) -> Entry:
    """A harness that named its obligation by what that claims, and names it now by the id that it gained."""
    was = item.data.get("obligation")
    name = gained.get(one_line(was)) if isinstance(was, str) else None
    named_now = name is not None and now is not None and now.data.get("obligation") == name
    return item._replace(data=item.data | {"obligation": name}) if named_now else item


def renamed(old: dict[str, Entry], new: dict[str, Entry]) -> dict[str, str]:
    """Falsifiers that are the same but for their id."""
    found: dict[str, str] = {}
    fresh = [name for name in new if name not in old]
    for name in [name for name in old if name not in new]:
        rest = {key: value for key, value in old[name].data.items() if key != "id"}
        for other in fresh:
            if rest and same(rest, {key: value for key, value in new[other].data.items() if key != "id"}):
                found[name] = other
                fresh.remove(other)
                break
    return found

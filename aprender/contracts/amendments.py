"""Amendments: the reasons that a contract gives for having become weaker."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from aprender.contracts.change import Change, same
from aprender.contracts.document import Document


def explain(changes: Sequence[Change], old_data: dict[str, Any], new: Document) -> list[Change]:
    """The changes, each weakening with the amendment that names it; and a note for an amendment that explains nothing.

    Only amendments count that OLD does not have: a reason given earlier was for something else. One that was edited, or
    repeated in the same words, is not new: what it named in OLD it can't explain once more.
    """
    before, after = _entries(old_data), _entries(new.data)
    edited = [entry for entry in before if not any(same(entry, other) for other in after)]
    explained = list(changes)
    for index, entry in enumerate(after):
        if any(same(entry, other) for other in before):
            continue
        spent = {name for other in before if other in edited or _repeats(entry, other) for name in _named(other)}
        label, named = _label(entry, index), _named(entry)
        used = False
        for place, change in enumerate(explained):
            if change.kind == "weakened" and (named - spent) & set(change.names):
                used = True
                if change.explained_by is None:
                    explained[place] = change._replace(explained_by=label)
        if not used:
            explained.append(_note(entry, index, new, given_before=bool(named & spent)))
    return explained


def _repeats(entry: Any, other: Any) -> bool:
    """Whether two amendments of one day or version give their reason in the same words."""
    if not isinstance(entry, dict) or not isinstance(other, dict):
        return False
    words = [re.findall(r"\w+", _reason(one).casefold()) for one in (entry, other)]
    return words[0] == words[1] and any(same(entry.get(key), other.get(key)) for key in ("date", "version"))


def _note(entry: Any, index: int, new: Document, *, given_before: bool) -> Change:
    why = "it names nothing that was weakened" if _reason(entry) else "it gives no reason"
    if given_before:
        why = "the older version has one for what it names; leave that as it was and add another, with its own reason"
    at = new.position(("amendments", index))
    what = f"{_label(entry, index)} explains nothing: {why}"
    return Change("neutral", what, f"amendments[{index}]", None, None, entry, new.file, at.line, at.column)


def _entries(data: dict[str, Any]) -> list[Any]:
    entries = data.get("amendments")
    return entries if isinstance(entries, list) else []


def _reason(entry: Any) -> str:
    reason = entry.get("reason") if isinstance(entry, dict) else None
    return " ".join(reason.split()) if isinstance(reason, str) else ""


def _named(entry: Any) -> set[str]:
    """What the amendment says was weakened; nothing where it gives no reason."""
    changes = entry.get("changes") if isinstance(entry, dict) and _reason(entry) else None
    return {" ".join(text.split()) for text in changes if isinstance(text, str)} if isinstance(changes, list) else set()


def _label(entry: Any, index: int) -> str:
    version = entry.get("version") if isinstance(entry, dict) else None
    reason = _reason(entry)
    return f"amendment {version if version is not None else index + 1}{f' ({reason})' if reason else ''}"

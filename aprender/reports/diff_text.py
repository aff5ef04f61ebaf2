"""A diff for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from aprender.contracts.change import Change
from aprender.contracts.diff import Diff


def diff_text(diffs: Sequence[Diff]) -> str:
    """One line per change, what it asks of the version, and the counts at the end."""
    lines: list[str] = []
    for one in diffs:
        for change in one.changes:
            lines += _change(change)
        if one.changes and one.new_version is not None:
            lines.append(_version(one))
    changes = [change for one in diffs for change in one.changes]
    counts = {kind: sum(change.kind == kind for change in changes) for kind in ("weakened", "tightened", "neutral")}
    unexplained = sum(len(one.unexplained) for one in diffs)
    contracts = f"{len(diffs)} contract{'' if len(diffs) == 1 else 's'}"
    weakened = f"{counts['weakened']} weakened" + (f" ({unexplained} not explained)" if counts["weakened"] else "")
    lines.append(f"{contracts}: {weakened}, {counts['tightened']} tightened, {counts['neutral']} neutral")
    return "\n".join(lines)


def diff_json(diffs: Sequence[Diff], exit_code: int) -> str:
    """``changes`` of all contracts, ``versions`` by contract, ``exit_code``."""
    versions = [
        {
            "file": one.new_file, "old": one.old_version, "new": one.new_version,
            "suggested": one.suggested, "bumped": one.bumped, "bumped_enough": one.bumped_enough,
        }
        for one in diffs
    ]  # fmt: skip
    changes = [change.to_json() for one in diffs for change in one.changes]
    return json.dumps({"changes": changes, "versions": versions, "exit_code": exit_code}, indent=2)


def _change(change: Change) -> list[str]:
    lines = [f"{change.file}:{change.line}:{change.column}: {change.kind}: {change.what}"]
    if change.kind == "weakened":
        name = change.falsifier or change.place
        advice = f"not explained: say why in a new entry of amendments whose changes name '{name}'"
        lines.append(f"    {f'explained by {change.explained_by}' if change.explained_by else advice}")
    return lines


def _version(one: Diff) -> str:
    worst = {"major": "what is weakened", "minor": "what is tightened", "patch": "what is neutral"}[one.suggested]
    asks = f"{worst} asks for a {one.suggested} version"
    went = f"version {one.old_version} -> {one.new_version}"
    if one.bumped_enough:
        return f"{one.new_file}: {went}: {asks}, and that it is"
    if one.bumped == "none":
        return f"{one.new_file}: version stays {one.new_version}, but {asks}"
    if one.bumped is None:
        return f"{one.new_file}: {went} is no step forward that can be read; {asks}"
    return f"{one.new_file}: {went} is only a {one.bumped} version, but {asks}"

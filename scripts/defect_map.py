"""Write docs/defect-map.md: which defect is planted as which class, which falsifier catches it, and by how much.

pv prove contracts --json | python scripts/defect_map.py        (make defect-map does both)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from aprender.contracts.expression import parse

ROOT = Path(__file__).parents[1]
IDS = ROOT / "docs/defect-ids.yaml"
TARGET = ROOT / "docs/defect-map.md"
HEAD = """# Defect map

Every way to be wrong of [`defect-ids.yaml`](defect-ids.yaml): the defect classes that are planted for it, the
falsifiers that declare them, and what each measured while it was planted, beside what its contract allows. Made by
`make defect-map` from a run on {device}; no number is typed in.

{counts}

F: forward and weight loading. T: backward, optimizer, data and loss. G: what no single probe of fixed weights shows.
H: defects on record of one stack. Falsifiers are named without `FALSIFY-`; of several expectations that were violated
the one that the class declares is shown.

| id | defect | planted class | falsifier | measured | allowed |
|---|---|---|---|---|---|
"""
OPEN = "\n## Without a planted class\n\n| id | defect | why |\n|---|---|---|\n"
MORE = "\n## Planted beyond the list\n\n| planted class | falsifier | measured | allowed |\n|---|---|---|---|\n"
REASONS = {"not_yet": "not yet", "not_ours": "not ours"}
LIKE = {"<": "&lt;", ">": "&gt;", "|": "\\|", "*": "\\*", "_": "\\_"}


class Catch(NamedTuple):
    """One cell of the matrix: a falsifier's number against what it allows, or what else became of the class."""

    falsifier: str
    measured: str
    allowed: str
    caught: bool

    def columns(self) -> str:
        """The last three columns."""
        return f"{self.falsifier} | {self.measured} | {self.allowed}"


def main() -> None:
    """Read the record from standard input, write the map. Exits with a message where the record is of nothing."""
    record = json.loads(sys.stdin.read() or "{}")
    if not record.get("matrix"):
        sys.exit(
            "defect_map: no matrix on standard input; run: pv prove contracts --json | python scripts/defect_map.py"
        )
    TARGET.write_text(defect_map(yaml.safe_load(IDS.read_text("utf-8")), record), encoding="utf-8")


def defect_map(ids: Mapping[str, Mapping[str, Any]], record: Mapping[str, Any]) -> str:
    """The page, from the ids and from what ``pv prove --json`` printed."""
    caught = catches(record)
    mapped = {name for entry in ids.values() for name in entry.get("classes", ())}
    rows = [row for name, entry in ids.items() for row in _rows(name, entry, caught)]
    without = [f"| {name} | {_text(entry['what'])} | {_why(entry)} |" for name, entry in ids.items() if _why(entry)]
    more = [f"| `{name}` | {c.columns()} |" for name, found in caught.items() if name not in mapped for c in found]
    head = HEAD.format(device=_device(record), counts=_counts(ids, record, caught))
    return "".join((head, _lines(rows), OPEN, _lines(without), MORE, _lines(more)))


def _device(record: Mapping[str, Any]) -> str:
    """cpu, or cuda with the names of the GPUs that the systems said they had."""
    device = str(record["device"])
    names = {str(run["system"]["device"]) for run in record["falsifiers"] if "device" in run["system"]}
    named = sorted(name for name in names if not name.startswith(device))
    return f"{device} ({', '.join(named)})" if named else device


def catches(record: Mapping[str, Any]) -> dict[str, list[Catch]]:
    """By defect class, every falsifier that declares it."""
    found: dict[str, list[Catch]] = {}
    for matrix in record["matrix"]:
        for name, row in matrix["defects"].items():
            found.setdefault(name, []).extend(_catch(falsifier, cell) for falsifier, cell in row.items())
    return found


def _catch(falsifier: str, cell: Mapping[str, Any]) -> Catch:
    short = falsifier.removeprefix("FALSIFY-")
    if cell["outcome"] != "caught":
        return Catch(short, f"**{cell['outcome'].replace('_', ' ')}**", _text(cell["detail"]), caught=False)
    violated = cell["violated"][0]
    comparison = parse(violated["text"])
    left, _ = comparison.side_texts()
    allowed = f"`{comparison.symbol} {violated['right']:.3g}`"
    return Catch(short, f"`{left} = {violated['left']:.3g}`", allowed, caught=True)


def _rows(name: str, entry: Mapping[str, Any], caught: Mapping[str, list[Catch]]) -> Iterator[str]:
    """A line per class and falsifier; id and defect stand in the first."""
    note = f" ({_text(entry['note'])})" if "note" in entry else ""
    head = f"{name} | {_text(entry['what'])}{note}"
    for planted in entry.get("classes", ()):
        nobody = [Catch("none", "**not planted**", "no falsifier of this record declares it", caught=False)]
        for catch in caught.get(planted, nobody):
            yield f"| {head} | `{planted}` | {catch.columns()} |"
            head = f"{name} |"


def _why(entry: Mapping[str, Any]) -> str:
    return "".join(f"{word}: {_text(entry[key])}" for key, word in REASONS.items() if key in entry)


def _counts(ids: Mapping[str, Mapping[str, Any]], record: Mapping[str, Any], caught: Mapping[str, list[Catch]]) -> str:
    good = {name for name, found in caught.items() if all(catch.caught for catch in found)}
    held = [entry for entry in ids.values() if entry.get("classes") and good.issuperset(entry["classes"])]
    others = "; ".join(f"{sum(key in entry for entry in ids.values())} are {word}" for key, word in REASONS.items())
    return (
        f"{len(held)} of {len(ids)} ids have planted classes, caught by every falsifier that declares them; {others}.\n"
        f"{record['caught']} of {record['declared']} pairs of class and falsifier caught, {len(caught)} classes in all."
    )


def _text(text: str) -> str:
    return "".join(LIKE.get(character, character) for character in text)


def _lines(rows: list[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


if __name__ == "__main__":
    main()

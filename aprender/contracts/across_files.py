"""Rules between the contracts of a set: names are taken once, references lead somewhere, nothing depends on itself."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

from aprender.contracts.files import STANDARD_INPUT, SUFFIXES, read_content, stem
from aprender.contracts.findings import Finding, Hints, Severity
from aprender.contracts.summary import Named, Summary

_HINTS = 5_000  # names that suggestions may look at, per set: more would take longer than checking the contracts
_ID = re.compile(r"""\bid["']?[ ]*:[ ]+(?:["']([^"'\n]*)["']|([^\s"',}#][^\n,}#]*))""")  # of anything: rather a miss
_TREE = "contracts"  # where only some files of a tree are validated, the folder of this name is its root


def check_set(summaries: Sequence[Summary]) -> list[Finding]:
    """All violations between the contracts in ``summaries``, in no order."""
    return [*_taken_names(summaries), *_dependencies(summaries), *_cycles(summaries)]


def _finding(summary: Summary, line: int, column: int, rule: str, message: str) -> Finding:
    severity: Severity = "error" if summary.version_2 else "warning"
    return Finding(summary.file, line, column, rule, severity, message)


def _taken_names(summaries: Sequence[Summary]) -> Iterator[Finding]:
    """REF-004: file stems, contract ids and falsifier ids are unique over the whole set: evidence goes by them."""
    stems: dict[str, str] = {}
    ids: dict[str, tuple[Summary, Named]] = {}
    falsifiers: dict[str, tuple[Summary, Named]] = {}
    for summary in summaries:
        name = stem(summary.file)
        if name in stems:
            message = f"contracts go by their file's name, and '{name}' is taken by {stems[name]}; rename one"
            yield _finding(summary, 1, 1, "REF-004", message)
        elif summary.id is not None:
            first = ids.setdefault(summary.id[0], (summary, summary.id))
            if first[0] is not summary and (first[0].version_2 or summary.version_2):  # else names of another kind
                yield _taken(summary, summary.id, first, "contract id")
        stems.setdefault(name, summary.file)
        for falsifier in summary.falsifier_ids:
            first = falsifiers.setdefault(falsifier[0], (summary, falsifier))
            if first[0] is not summary:
                yield _taken(summary, falsifier, first, "falsifier id")


def _taken(summary: Summary, named: Named, by: tuple[Summary, Named], what: str) -> Finding:
    name, line, column = named
    first, (_, first_line, first_column) = by
    place = f"{first.file}:{first_line}:{first_column}"
    message = f"{what} '{name}' is taken by {place}; evidence goes by it: rename one"
    return _finding(summary, line, column, "REF-004", message)


def _dependencies(summaries: Sequence[Summary]) -> Iterator[Finding]:
    """REF-005: every contract that is named exists. REF-011: and has the equation that is taken from it."""
    equations = {name: set(summary.equations) for summary in summaries for name in _names(summary)}
    elsewhere = Elsewhere(summary.file for summary in summaries)
    hints = Hints(_HINTS)
    for summary in summaries:
        for name, line, column in summary.needs:
            if bare(name) not in equations and not elsewhere.has(bare(name), summary.file):
                hint = hints.did_you_mean(name, equations)
                message = f"no contract '{name}' here.{hint} Name one by its file's stem"
                yield _finding(summary, line, column, "REF-005", message)
        for contract, equation, line, column in summary.takes:
            known = equations.get(bare(contract)) if contract else set(summary.equations)
            if known is not None and equation not in known:
                where = f"contract '{contract}'" if contract else "this contract"
                message = f"{where} has no equation '{equation}'.{hints.did_you_mean(equation, known)}"
                yield _finding(summary, line, column, "REF-011", message)


def _names(summary: Summary) -> set[str]:
    return {stem(summary.file)} | ({summary.id[0]} if summary.id else set())


def bare(name: str) -> str:
    """The name of a contract that is named by its file."""
    base, suffix = os.path.splitext(name)
    return base if suffix in SUFFIXES else name


class Elsewhere:
    """The contracts that stand in the trees of those that were read, but were not read themselves."""

    def __init__(self, read: Iterable[str]) -> None:
        self._read = frozenset(read)
        self._stems: dict[str, set[str]] = {}  # by root
        self._ids: dict[str, set[str]] = {}  # by folder

    def has(self, name: str, file: str) -> bool:
        """Whether a contract goes by this name: by its file in the tree of ``file``, or by an id in its folder.

        Files of the folder are only looked at, not parsed, and only where no file has the name.
        """
        if file == STANDARD_INPUT:
            return True  # nobody knows where it belongs
        root = folder = os.path.dirname(os.path.abspath(file))
        while (folder := os.path.dirname(folder)) != os.path.dirname(folder):
            if os.path.basename(folder) == _TREE:
                root = folder
        if root not in self._stems:
            below = (entry for _, _, entries in os.walk(root) for entry in entries)
            self._stems[root] = {stem(entry) for entry in below if entry.endswith(SUFFIXES)}
        return name in self._stems[root] or name in self._ids_in(os.path.dirname(file))

    def _ids_in(self, folder: str) -> set[str]:
        if folder not in self._ids:
            names = next(os.walk(folder or os.curdir), (folder, [], []))[2]
            files = (os.path.join(folder, name) for name in names if name.lower().endswith(SUFFIXES))
            others = (file for file in files if file not in self._read)
            contents = (content for content in map(read_content, others) if isinstance(content, bytes))
            found = (_ID.findall(content.decode("utf-8", "replace")) for content in contents)
            self._ids[folder] = {plain.strip() or quoted for ids in found for quoted, plain in ids}
        return self._ids[folder]


def owners(summaries: Sequence[Summary]) -> dict[str, Summary]:
    """The contract that each name leads to: the first one that has it."""
    return {name: summary for summary in reversed(summaries) for name in _names(summary)}


def _cycles(summaries: Sequence[Summary]) -> Iterator[Finding]:
    """REF-006: no contract depends on itself, over however many others; each cycle is said once."""
    for summary, named, files in cycles(summaries):
        yield _cycle(summary, named, files)


def cycles(summaries: Sequence[Summary]) -> Iterator[tuple[Summary, Named, list[str]]]:
    """The contract that closes a cycle, where it does so, and the files of the cycle in order; that one is the last."""
    owner = owners(summaries)
    done: set[str] = set()
    for start in summaries:
        path: list[tuple[Summary, Iterator[Named]]] = [(start, iter(start.needs))]
        while path:
            summary, needs = path[-1]
            if summary.file in done or (named := next(needs, None)) is None:
                done.add(summary.file)
                path.pop()
                continue
            needed = owner.get(bare(named[0]))
            if needed is None or needed.file in done:
                continue
            files = [entry.file for entry, _ in path]
            if needed.file in files:
                yield summary, named, files[files.index(needed.file) :]
            else:
                path.append((needed, iter(needed.needs)))


def _cycle(summary: Summary, named: Named, files: list[str]) -> Finding:
    way = " -> ".join(map(stem, [*files, files[0]]))
    message = f"contracts depend on one another in a circle: {way}; which of them rests on the other?"
    return _finding(summary, named[1], named[2], "REF-006", message)

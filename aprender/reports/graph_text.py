"""The graph of contracts for people: one block per contract, then cycles, orphans and the denominators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from aprender.contracts.files import stem
from aprender.contracts.graph import Edge, Graph, Node, Orphan
from aprender.reports.colour import coloured
from aprender.reports.excerpt import shown
from aprender.reports.validation_text import file_name, plural

RESTS_ON = {  # how an edge between contracts is said
    "depends_on": "depends on",
    "parent_contracts": "has the parent",
    "parent_contract": "has an obligation of its parent",
    "assumes": "assumes shapes of",
    "guarantees": "guarantees shapes to",
}
_ABSENT = {"elsewhere": " (not read now)", "missing": " (missing)"}
_COUNTED = {
    "contract": "contract", "obligation": "obligation", "falsifier": "falsifier", "harness": "harness",
    "defect_class": "defect class",
}  # fmt: skip


def graph_text(graph: Graph) -> str:
    """The whole report."""
    index = _Index(graph)
    lines = [line for node in graph.nodes if node.kind == "contract" for line in [*index.contract(node), ""]]
    if graph.cycles:
        lines += [coloured("cycles", "red", bold=True), *(f"  {_cycle(files)}" for files in graph.cycles), ""]
    if graph.orphans:
        lines += [coloured("orphans", "yellow", bold=True), *(f"  {orphan_text(one)}" for one in graph.orphans), ""]
    counts = Counter(node.kind for node in graph.nodes)
    counted = ", ".join(_plural(counts[kind], word) for kind, word in _COUNTED.items())
    found = f"{plural(len(graph.cycles), 'cycle')}, {plural(len(graph.orphans), 'orphan')}"
    return "\n".join([*lines, f"{counted}: {found}"])


def orphan_text(orphan: Orphan) -> str:
    """Where an orphan stands and what it lacks."""
    name = shown(orphan.name)
    text = f" ({shown(orphan.text)})" if orphan.text else ""
    what = {
        "uncovered": f"obligation {name} is covered by no falsifier{text}",
        "idle": f"falsifier {name} covers no obligation{text}",
        "dangling": f"{shown(orphan.by)} names {name}, which does not exist",
    }[orphan.kind]
    return f"{shown(file_name(orphan.file))}:{orphan.line}:{orphan.column}: {what}"


def _cycle(files: tuple[str, ...]) -> str:
    return " -> ".join(shown(stem(file_name(file))) for file in [*files, files[0]])


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}es" if word[-1] == "s" and count != 1 else plural(count, word)


class _Index:
    """Nodes by contract, edges by source."""

    def __init__(self, graph: Graph) -> None:
        self.nodes = {node.key: node for node in graph.nodes}
        self.within: dict[str, list[Node]] = {}
        for node in graph.nodes:
            self.within.setdefault(node.contract, []).append(node)
        self.edges: dict[str, list[Edge]] = {}
        for edge in graph.edges:
            self.edges.setdefault(edge.source, []).append(edge)
        self.covering = {edge.target for edge in graph.edges if edge.kind in ("covered_by", "proved_by")}

    def contract(self, node: Node) -> Iterator[str]:
        yield f"{coloured(shown(node.name), 'cyan', bold=True)}  {shown(file_name(node.file))}"
        for edge in self.edges.get(node.key, ()):
            target = self.nodes[edge.target]
            note = f", equation {shown(edge.note)}" if edge.note else ""
            yield f"  {RESTS_ON[edge.kind]} {shown(target.name)}{_ABSENT.get(target.kind, '')}{note}"
        for part in self.within[node.key]:
            if part.kind == "obligation":
                yield f"  {shown(part.name)}{f': {shown(part.text)}' if part.text else ''}"
                for edge in self.edges.get(part.key, ()):
                    yield f"    {edge.kind.replace('_', ' ')} {self._leaf(edge.target)}"
            elif part.kind in ("falsifier", "harness") and part.key not in self.covering:
                yield f"  {self._leaf(part.key)} ({part.kind} of no obligation)"

    def _leaf(self, key: str) -> str:
        """A name, and the defect classes that it must catch."""
        classes = [shown(self.nodes[edge.target].name) for edge in self.edges.get(key, ()) if edge.kind == "must_catch"]
        catches = f" must catch {', '.join(classes)}" if classes else ""
        return f"{shown(self.nodes[key].name)}{catches}"

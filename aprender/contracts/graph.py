"""Contracts and what they rest on; obligations, the falsifiers that cover them, the defect classes those must catch."""

# No postponed annotations here: NamedTuple would compile each from its text, which costs as much as a small contract.

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from aprender.contracts.across_files import Elsewhere, bare, cycles, owners
from aprender.contracts.document import Document
from aprender.contracts.documents import Documents
from aprender.contracts.files import STANDARD_INPUT, stem
from aprender.contracts.links import Links, Part, links_of, one_line
from aprender.contracts.rules.common import metadata_of
from aprender.contracts.rules.mentions import dependencies, shapes
from aprender.contracts.summary import Summary


class Node(NamedTuple):
    """``kind``: contract, elsewhere (one that was not read), missing, obligation, falsifier, harness, defect_class.

    ``contract`` is the key of the contract that it stands in; a defect class is everybody's, by name.
    """

    key: str
    kind: str
    name: str
    text: str = ""
    contract: str = ""
    file: str = ""
    line: int = 0
    column: int = 0


class Edge(NamedTuple):
    """``kind`` says what the source has to do with the target; ``note`` is the equation where shapes are taken."""

    source: str
    target: str
    kind: str
    note: str = ""


class Orphan(NamedTuple):
    """``kind``: uncovered (obligation), idle (falsifier that covers nothing), dangling (a name that leads nowhere)."""

    kind: str
    name: str
    text: str
    file: str
    line: int
    column: int
    by: str = ""  # who names what dangles


class Graph(NamedTuple):
    """Nodes and edges in the order of the files. A cycle is its contracts, each of which rests on the next."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    cycles: tuple[tuple[str, ...], ...]
    orphans: tuple[Orphan, ...]


def graph_of(read: Documents) -> Graph:
    """The graph of all contracts that could be read."""
    return _Builder(read).graph()


class _Builder:
    def __init__(self, read: Documents) -> None:
        self.read = read
        self.owner = owners(read.summaries)
        self.elsewhere = Elsewhere(summary.file for summary in read.summaries)
        self.nodes: dict[str, Node] = {}
        self.edges: dict[tuple[str, str, str], Edge] = {}
        self.orphans: list[Orphan] = []

    def graph(self) -> Graph:
        for document, summary in zip(self.read.documents, self.read.summaries, strict=True):
            self._contract(document, summary)
        for document in self.read.documents:
            self._dependencies(document)
            self._parts(links_of(document))
        order = {document.file: index for index, document in enumerate(self.read.documents)}
        self.orphans.sort(key=lambda orphan: (order[orphan.file], orphan.line, orphan.column))
        circles = tuple(tuple(files) for files in _turned(self.read.summaries))
        return Graph(tuple(self.nodes.values()), tuple(self.edges.values()), circles, tuple(self.orphans))

    def _contract(self, document: Document, summary: Summary) -> None:
        text = one_line(metadata_of(document).get("description"))
        name = "standard input" if summary.file == STANDARD_INPUT else stem(summary.file)
        self._node(Node(document.file, "contract", name, text, document.file, document.file, 1, 1))

    def _dependencies(self, document: Document) -> None:
        for key, found in dependencies(document):
            self._rests_on(document, key, *found)
        for path, key, block in shapes(document):
            contract, equation = block.get("from_contract"), block.get("from_equation")
            if isinstance(contract, str) and contract:
                note = equation if isinstance(equation, str) else ""
                self._rests_on(document, key, contract, *document.position((*path, "from_contract")), note)

    def _rests_on(self, document: Document, kind: str, name: str, line: int, column: int, note: str = "") -> None:
        owner = self.owner.get(bare(name))
        key = owner.file if owner else f"#{bare(name)}"
        if owner is None:
            exists = self.elsewhere.has(bare(name), document.file)
            self._node(Node(key, "elsewhere" if exists else "missing", bare(name)))
            if not exists:
                orphan = Orphan("dangling", name, "", document.file, line, column, stem(document.file))
                self.orphans.append(orphan)
        self._edge(Edge(document.file, key, kind, note))

    def _parts(self, links: Links) -> None:
        keys = [self._part(links, "obligation", part) for part in links.obligations]
        for part in links.uncovered:
            self.orphans.append(Orphan("uncovered", part.name, part.text, links.file, part.line, part.column))
        for source, target in links.requires:
            self._edge(Edge(keys[source], keys[target], "requires"))
        for falsifier in links.falsifiers:
            part = falsifier.part
            key = self._part(links, "falsifier", part)
            for index in falsifier.covers:
                self._edge(Edge(keys[index], key, "covered_by"))
            for name, line, column in falsifier.unknown:
                self.orphans.append(Orphan("dangling", name, "", links.file, line, column, part.name))
            if not falsifier.covers:
                self.orphans.append(Orphan("idle", part.name, part.text, links.file, part.line, part.column))
            for name in falsifier.classes:
                self._node(Node(f"class:{name}", "defect_class", name))
                self._edge(Edge(key, f"class:{name}", "must_catch"))
        for part, proven in links.harnesses:
            key = self._part(links, "harness", part)
            for index in proven:
                self._edge(Edge(keys[index], key, "proved_by"))

    def _part(self, links: Links, kind: str, part: Part) -> str:
        key = f"{links.file}#{part.pointer}"
        self._node(Node(key, kind, part.name, part.text, links.file, links.file, part.line, part.column))
        return key

    def _node(self, node: Node) -> None:
        self.nodes.setdefault(node.key, node)

    def _edge(self, edge: Edge) -> None:
        self.edges.setdefault(edge[:3], edge)


def _turned(summaries: Sequence[Summary]) -> Iterator[list[str]]:
    """Every cycle, begun with its first file by name: where the search came in says nothing."""
    for _, _, files in cycles(summaries):
        first = files.index(min(files))
        yield files[first:] + files[:first]

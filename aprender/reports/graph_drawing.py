"""The graph of contracts in the languages of Graphviz (dot) and Mermaid.

Nodes are called n0, n1, ...: names come from strangers' files and stand in quoted labels only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from aprender.contracts.graph import Edge, Graph, Node
from aprender.reports.excerpt import shown

LONGEST = 60  # characters of a name or a text in a label
_SHAPES = {  # of Graphviz, and the brackets of Mermaid
    "contract": ("component", "[[", "]]"),
    "elsewhere": ("component", "[[", "]]"),
    "missing": ("octagon", "{{", "}}"),
    "obligation": ("box", "[", "]"),
    "falsifier": ("ellipse", "(", ")"),
    "harness": ("hexagon", "([", "])"),
    "defect_class": ("note", ">", "]"),
}
_BETWEEN_CONTRACTS = ("depends_on", "parent_contracts", "parent_contract", "assumes", "guarantees")
_PLAIN_IN_MERMAID = re.compile(r"[\w .,()=+/-]")
_LIST_IN_MARKDOWN = re.compile(r"\d*[.)+-](?= )")  # as a label begins with it, Mermaid draws "unsupported: list"


def graph_dot(graph: Graph) -> str:
    """A digraph, one cluster per contract."""

    def node(number: int, one: Node) -> str:
        style = ", style=dashed" if one.kind in ("elsewhere", "missing") else ""
        label = _label(one, _in_dot, "\\n")
        return f'n{number} [shape={_SHAPES[one.kind][0]}{style}, label="{label}"];'

    def edge(source: int, target: int, one: Edge) -> str:
        label = f' [label="{_in_dot(_edge_label(one))}"]' if one.kind in _BETWEEN_CONTRACTS else ""
        return f"n{source} -> n{target}{label};"

    def cluster(number: int, one: Node) -> tuple[str, str]:
        return f'subgraph cluster_{number} {{\n    label="{_in_dot(_cut(one.name))}";', "}"

    lines = ["digraph contracts {", "  rankdir=LR;", *_drawing(graph, node, edge, cluster), "}"]
    return "\n".join(lines)


def graph_mermaid(graph: Graph) -> str:
    """A flowchart, one subgraph per contract."""

    def node(number: int, one: Node) -> str:
        _, opening, closing = _SHAPES[one.kind]
        label = _label(one, _in_mermaid, "<br/>")
        return f'n{number}{opening}"{label}"{closing}'

    def edge(source: int, target: int, one: Edge) -> str:
        label = f'|"{_in_mermaid(_edge_label(one))}"|' if one.kind in _BETWEEN_CONTRACTS else ""
        return f"n{source} -->{label} n{target}"

    def cluster(number: int, one: Node) -> tuple[str, str]:
        return f'subgraph c{number}["{_in_mermaid(_cut(one.name))}"]', "end"

    return "\n".join(["flowchart LR", *_drawing(graph, node, edge, cluster)])


def _drawing(
    graph: Graph,
    node: Callable[[int, Node], str],
    edge: Callable[[int, int, Edge], str],
    cluster: Callable[[int, Node], tuple[str, str]],
) -> Iterator[str]:
    """The statements of either language: what stands in a contract, what stands in none, and the edges."""
    numbers = {one.key: number for number, one in enumerate(graph.nodes)}
    within: dict[str, list[Node]] = {}
    for one in graph.nodes:
        within.setdefault(one.contract, []).append(one)
    loose = within.pop("", [])
    for contract, parts in within.items():
        opening, closing = cluster(numbers[contract], parts[0])
        yield f"  {opening}"
        yield from (f"    {node(numbers[part.key], part)}" for part in parts)
        yield f"  {closing}"
    yield from (f"  {node(numbers[one.key], one)}" for one in loose)
    yield from (f"  {edge(numbers[one.source], numbers[one.target], one)}" for one in graph.edges)


def _label(node: Node, escape: Callable[[str], str], line_break: str) -> str:
    """The name, and below it what an obligation or falsifier says."""
    says = [node.text] if node.text and node.kind in ("obligation", "falsifier") else []
    return line_break.join(escape(_cut(text)) for text in [node.name, *says])


def _edge_label(edge: Edge) -> str:
    return _cut(f"{edge.kind.replace('_', ' ')}{f': {edge.note}' if edge.note else ''}")


def _cut(text: str) -> str:
    line = shown(" ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def _in_dot(text: str) -> str:
    r"""In a quoted string of dot: ``\`` begins an escape of labels, ``&`` an entity of HTML."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")


def _in_mermaid(text: str) -> str:
    """In a quoted string of Mermaid: all that could be Markdown, HTML, a directive or an entity becomes ``#NN;``."""
    listed = _LIST_IN_MARKDOWN.match(text)
    marker = listed.end() - 1 if listed else -1
    plain = (index != marker and _PLAIN_IN_MERMAID.match(char) for index, char in enumerate(text))
    return "".join(char if kept else f"#{ord(char)};" for char, kept in zip(text, plain, strict=True))

"""``pv graph``: what contracts rest on, which falsifiers cover which obligations, which defect classes they catch."""

from __future__ import annotations

import argparse

from aprender.cli.console import say
from aprender.cli.looked_at import HAS_ERRORS, HOLDS, add_format, add_paths, documents_at
from aprender.contracts.graph import Graph, graph_of

FORMATS = ("text", "dot", "mermaid", "json")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_paths(parser)
    add_format(parser, FORMATS)


def run(arguments: argparse.Namespace) -> int:
    """Print the graph; 1 where a contract has errors."""
    read = documents_at(arguments.paths)
    status = HAS_ERRORS if read.errors else HOLDS
    say(_report(graph_of(read), arguments.format, status))
    return status


def _report(graph: Graph, form: str, status: int) -> str:
    if form == "json":
        from aprender.reports.graph_json import graph_json

        return graph_json(graph, status)
    if form == "text":
        from aprender.reports.graph_text import graph_text

        return graph_text(graph)
    from aprender.reports.graph_drawing import graph_dot, graph_mermaid

    return graph_dot(graph) if form == "dot" else graph_mermaid(graph)

"""The graph of contracts for programs, documented in docs/graph.md."""

from __future__ import annotations

import json
from typing import Any

from aprender.contracts.graph import Graph
from aprender.reports.validation_text import file_name

FORMAT_VERSION = 1  # grows where a key changes its meaning or goes; new keys may come at any time


def graph_json(graph: Graph, exit_code: int) -> str:
    """``nodes``, ``edges``, ``cycles`` and ``orphans``; ASCII."""
    report = {
        "format_version": FORMAT_VERSION,
        "nodes": [_named(node._asdict()) for node in graph.nodes],
        "edges": [edge._asdict() for edge in graph.edges],
        "cycles": [list(files) for files in graph.cycles],
        "orphans": [_named(orphan._asdict()) for orphan in graph.orphans],
        "exit_code": exit_code,
    }
    return json.dumps(report, indent=2, allow_nan=False)


def _named(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"file": file_name(fields["file"])}

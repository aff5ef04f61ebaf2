"""Whatever contracts say, the drawings stay well-formed: names stand in quoted labels only."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aprender.contracts.documents import read_documents
from aprender.contracts.graph import graph_of
from aprender.reports.graph_drawing import graph_dot, graph_mermaid
from aprender.reports.graph_json import graph_json
from aprender.reports.graph_text import graph_text
from tests.linked_contracts import named, strange

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
DOT = shutil.which("dot")
HOSTILE = (
    'say "hi"\nand\\', "\\", '\\"', "a]b)c}d|e>f", "end", "%%{init: {}}%%", "```", "&quot;#34;", "<script>", "é—ℝ漢\u202e",
    "\x00\x1b[2J", "\ud800", "1. list", "- list", "style x:#f00;", "subgraph", "x" * 500, "\\N\\l\\G",
)  # fmt: skip
TEXTS = st.sampled_from(HOSTILE) | st.text(min_size=1)

_QUOTED = r'"(?:[^"\\\n]|\\[\\"n])*"'
_DOT_LINE = re.compile(
    rf"digraph contracts \{{|  rankdir=LR;|  subgraph cluster_\d+ \{{|    label={_QUOTED};|  \}}|\}}"
    rf"|  (?:  )?n\d+ \[shape=[a-z]+(?:, style=dashed)?, label={_QUOTED}\];|  n\d+ -> n\d+(?: \[label={_QUOTED}\])?;"
)
_LABEL = r'"(?:[\w .,()=+/-]|#\d+;|<br/>)*"'  # nothing that Markdown, HTML or Mermaid itself would read
_MERMAID_LINE = re.compile(
    rf"flowchart LR|  subgraph c\d+\[{_LABEL}\]|  end|  n\d+ -->(?:\|{_LABEL}\|)? n\d+"
    rf"|  (?:  )?n\d+(?:\[\[{_LABEL}\]\]|\{{\{{{_LABEL}\}}\}}|\[{_LABEL}\]|\({_LABEL}\)|\(\[{_LABEL}\]\)|>{_LABEL}\])"
)


def drawings_are_well_formed(dot: str, mermaid: str) -> None:
    assert all(_DOT_LINE.fullmatch(line) for line in dot.split("\n")), dot
    assert all(_MERMAID_LINE.fullmatch(line) for line in mermaid.split("\n")), mermaid
    assert dot.count("{\n") == 1 + dot.count("\n  subgraph ")
    assert mermaid.count("\n  end") == mermaid.count("\n  subgraph ")


def accepted_by_graphviz(dot: str) -> bytes:
    done = subprocess.run([str(DOT), "-Tcanon"], input=dot.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    return done.stdout


@given(TEXTS)
def test_any_name_stays_inside_its_label(text: str) -> None:
    """Quotes, brackets, directives, entities, control characters."""
    graph = graph_of(named(text))
    dot, mermaid = graph_dot(graph), graph_mermaid(graph)
    drawings_are_well_formed(dot, mermaid)
    for drawing in (dot, mermaid):
        assert drawing.replace("\n", "").isprintable()


@given(st.integers(0, 2**32))
def test_any_contract_has_a_graph(seed: int) -> None:
    """Also damaged ones: every report says something, and the drawings are well-formed."""
    graph = graph_of(strange(seed))
    drawings_are_well_formed(graph_dot(graph), graph_mermaid(graph))
    assert graph_text(graph)
    report = json.loads(graph_json(graph, 0))
    keys = {node["key"] for node in report["nodes"]}
    assert all({edge["source"], edge["target"]} <= keys for edge in report["edges"])


@pytest.mark.parametrize(("text", "label"), [("1. list", "1#46; list"), ("- list", "#45; list"), ("1.0", "1.0")])
def test_mermaid_is_kept_from_reading_a_list(text: str, label: str) -> None:
    """It would draw "unsupported: list" instead of the name."""
    assert f'("{label}<br/>{label}")' in graph_mermaid(graph_of(named(text)))


def test_a_graph_is_the_same_each_time() -> None:
    """The order is that of the files."""
    for seed in range(20):
        assert graph_dot(graph_of(strange(seed))) == graph_dot(graph_of(strange(seed)))


@pytest.mark.skipif(DOT is None, reason="Graphviz is not installed")
@pytest.mark.parametrize("text", HOSTILE)
def test_graphviz_reads_any_name(text: str) -> None:
    """It finds every node and edge that is there."""
    graph = graph_of(named(text))
    canonical = accepted_by_graphviz(graph_dot(graph)).decode()
    for number in range(len(graph.nodes)):
        assert re.search(rf"\bn{number}\t", canonical)
    assert canonical.count("->") == len(graph.edges)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="../shared/corpus is not on this machine")
def test_the_graph_of_real_contracts() -> None:
    """Every obligation and falsifier is in it; none of these names an obligation by id, so each is an orphan."""
    read = read_documents([CORPUS])
    graph = graph_of(read)
    kinds = [node.kind for node in graph.nodes]
    assert len(read.documents) > 150
    assert kinds.count("contract") == len(read.documents)
    assert kinds.count("obligation") > 700
    assert len(graph.orphans) >= kinds.count("obligation") + kinds.count("falsifier")
    assert {edge.kind for edge in graph.edges} >= {"depends_on", "proved_by"}
    drawings_are_well_formed(graph_dot(graph), graph_mermaid(graph))
    if DOT:
        accepted_by_graphviz(graph_dot(graph))

"""BEAT: a head-to-head benchmark says whom it beats, in what, by which threshold, and which job checks it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import Rule, blank, kind_of, said_by_schema

INCUMBENTS = ("scikit-learn", "pytorch", "unsloth", "ollama", "llama.cpp")
DIRECTIONS = ("higher_is_better", "lower_is_better")


def _beat(document: Document) -> Iterator[Finding]:
    """BEAT-001: the block is there. BEAT-002 to 007: and states what makes it judgeable."""
    if kind_of(document) != "beat-benchmark":
        return
    beat = document.data.get("beat")
    if beat is None:
        if not said_by_schema(document, ("beat",)) or "beat" in document.data:
            yield document.finding((), "BEAT-001", "a contract of kind beat-benchmark needs a 'beat' block")
        return
    for key, rule, message in _wrong(beat):
        if key in beat or not said_by_schema(document, ("beat", key)):
            yield document.finding(("beat", key), rule, message)


def _wrong(beat: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Key, rule and sentence for each field that is missing or has no meaning."""
    incumbent = beat.get("incumbent")
    if blank(incumbent) or not any(name in str(incumbent).lower() for name in INCUMBENTS):
        yield "incumbent", "BEAT-002", f"beat.incumbent must name one of {', '.join(INCUMBENTS)}"
    if blank(beat.get("metric")):
        yield "metric", "BEAT-003", "beat.metric does not say what is measured"
    if str(beat.get("direction", "")).strip() not in DIRECTIONS:
        yield "direction", "BEAT-004", f"beat.direction must be {' or '.join(DIRECTIONS)}"
    if beat.get("beat_threshold") is None:
        yield "beat_threshold", "BEAT-005", "beat.beat_threshold must be a finite number: the value that wins"
    if blank(beat.get("ci_gate_name")):
        yield "ci_gate_name", "BEAT-006", "beat.ci_gate_name does not name the job that checks this"
    if str(beat.get("approved_compute", "")).strip().upper() not in ("CPU", "GPU"):
        yield "approved_compute", "BEAT-007", "beat.approved_compute must be CPU or GPU"


RULES: tuple[Rule, ...] = (_beat,)

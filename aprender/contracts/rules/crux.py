"""CRUX: demand and competitor of a contract and of the stories in a registry, wherever they are given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding, did_you_mean
from aprender.contracts.rules.common import KeyPath, Rule, items, metadata_of, said_by_schema

COMPETITORS = (
    "apr-qa-playbook", "autogluon", "burn", "ecosystem", "hf-kernels-community", "huggingface", "linfa", "llama_cpp",
    "mlflow", "none", "ollama", "openclaw", "openclip", "pulp-free-chat", "pytorch", "qwen", "unsloth", "vllm",
)  # fmt: skip


def _crux(document: Document) -> Iterator[Finding]:
    """CRUX-001: demand_score is 1 to 5. CRUX-002: the competitor is one of a closed list; stories must have both."""
    yield from _checked(document, ("metadata",), metadata_of(document), mandatory=False)
    for path, story in items(document, "stories"):
        yield from _checked(document, path, story, mandatory=True)


def _checked(document: Document, path: KeyPath, item: dict[str, Any], *, mandatory: bool) -> Iterator[Finding]:
    score, competitor = item.get("demand_score"), item.get("competitor")
    if score is None and mandatory and not said_by_schema(document, (*path, "demand_score")):
        yield document.finding(path, "CRUX-001", "the story has no demand_score; it must be a whole number from 1 to 5")
    elif score is not None and not 1 <= score <= 5:
        message = f"demand_score is {score}; it must be a whole number from 1 to 5"
        yield document.finding((*path, "demand_score"), "CRUX-001", message)
    if competitor is None and mandatory and not said_by_schema(document, (*path, "competitor")):
        yield document.finding(path, "CRUX-002", f"the story has no competitor; one of {', '.join(COMPETITORS)}")
    elif competitor is not None and competitor.strip() not in COMPETITORS:
        hint = did_you_mean(competitor, COMPETITORS)
        message = f"competitor '{competitor}' is not one of {', '.join(COMPETITORS)}.{hint}"
        yield document.finding((*path, "competitor"), "CRUX-002", message)


RULES: tuple[Rule, ...] = (_crux,)

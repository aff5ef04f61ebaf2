"""Expectations and guards of a version 2 contract: one comparison each, which can come out either way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.expression import Comparison, EvaluationError, ExpressionError, parse
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import KeyPath, Rule, entries, items
from aprender.contracts.schema_check import is_version_2

# Values that an observation may take: both signs, zero, small and large, and (by chance) equal to one another.
_SAMPLES = (-1e6, -3.7, -1.0, -0.5, 0.0, 1e-9, 0.5, 1.0, 2.3, 7.0, 1e3, 1e6)


def _vacuous(comparison: Comparison) -> str | None:
    left, right = comparison.side_texts()
    if not comparison.names:
        return "compares constants: no observation can change the outcome"
    if left == right:
        return f"compares '{left}' with itself: no observation can change the outcome"
    outcomes = _sampled_outcomes(comparison)
    if outcomes == {True} and comparison.symbol != "!=":
        return "holds of every observation that was tried: nothing can violate it"
    if outcomes == {False} and comparison.symbol != "==":
        return "holds of no observation that was tried: nothing can satisfy it"
    return None


def _sampled_outcomes(comparison: Comparison) -> set[bool]:
    """Whether the comparison held of each of 300 synthetic observations that give both sides a value."""
    random = Random(0)  # noqa: S311 - a fixed sample, no secret
    values = [*_SAMPLES, *comparison.constants]
    outcomes: set[bool] = set()
    for _ in range(300):
        with suppress(EvaluationError):
            outcomes.add(comparison.evaluate({name: random.choice(values) for name in sorted(comparison.names)}).holds)
    return outcomes


def _parsed(document: Document, path: KeyPath, item: dict[str, Any], key: str) -> Iterator[tuple[KeyPath, Any]]:
    for index, text in entries(item, key):
        try:
            yield (*path, key, index), parse(text)
        except ExpressionError as error:
            yield (*path, key, index), error


def _expressions(document: Document) -> Iterator[Finding]:
    """EXPR-001: each expectation and guard is one comparison. EXPR-002: and can come out either way."""
    if not is_version_2(document.data):
        return
    for path, item in items(document, "falsification_tests"):
        for key in ("expect", "guards"):
            for at, parsed in _parsed(document, path, item, key):
                if isinstance(parsed, ExpressionError):
                    yield document.finding(at, "EXPR-001", f"{parsed} (character {parsed.column} of the expression)")
                elif reason := _vacuous(parsed):
                    yield document.finding(at, "EXPR-002", reason)


RULES: tuple[Rule, ...] = (_expressions,)

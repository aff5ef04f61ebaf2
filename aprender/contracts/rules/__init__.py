"""What the schema can't say: the published rules, and the rules between fields of a version 2 contract.

Each module holds the rules of one subject in its ``RULES``. The published ids, conditions and severities are the same
in both dialects; what version 2 adds never gives more than a warning on the old one.
"""

from __future__ import annotations

from itertools import islice

from aprender.contracts.document import Document
from aprender.contracts.findings import MAX_FINDINGS, Finding
from aprender.contracts.rules import (
    beat,
    crux,
    expressions,
    kaizen,
    manifest,
    obligations,
    parity,
    published,
    references,
    teeth,
    top_level,
    vacuity,
    verification_summary,
)
from aprender.contracts.rules.common import Rule
from aprender.contracts.schema_check import is_manifest

RULES: tuple[Rule, ...] = (
    *published.RULES,
    *obligations.RULES,
    *top_level.RULES,
    *crux.RULES,
    *beat.RULES,
    *kaizen.RULES,
    *parity.RULES,
    *references.RULES,
    *expressions.RULES,
    *teeth.RULES,
    *verification_summary.RULES,
    *vacuity.RULES,
)


def check_rules(document: Document) -> list[Finding]:
    """All violations of all rules. ``document`` holds no value of the wrong shape, but anything may be missing."""
    if not isinstance(document.data, dict):
        return []
    rules = manifest.RULES if is_manifest(document.data) else RULES
    return [finding for rule in rules for finding in islice(rule(document), MAX_FINDINGS + 1)]

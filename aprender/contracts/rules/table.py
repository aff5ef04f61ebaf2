"""What the schema can't say: the published rules, and the rules between fields of a version 2 contract.

Each module holds the rules of one subject in its ``RULES``; ``version_2`` holds those that the old dialect has not.
The published ids, conditions and severities hold in the old dialect, where what version 2 adds never gives more than a
warning; version 2 is stricter with some of them.
"""

from __future__ import annotations

from importlib import import_module
from itertools import islice

from aprender.contracts.document import Document
from aprender.contracts.findings import MAX_FINDINGS, Finding
from aprender.contracts.rules import (
    crux,
    obligations,
    published,
    references,
    top_level,
    vacuity,
    verification_summary,
)
from aprender.contracts.rules.common import Rule, kind_of
from aprender.contracts.schema_check import is_manifest, is_version_2

RULES: tuple[Rule, ...] = (
    *published.RULES,
    *obligations.RULES,
    *top_level.RULES,
    *crux.RULES,
    *references.RULES,
    *verification_summary.RULES,
    *vacuity.RULES,
)
# Rules for one kind of contract; they, and those of version 2, are in modules that are imported when one is met.
_OF_KIND = {"beat-benchmark": "beat", "kaizen": "kaizen", "competitive-parity": "parity"}


def check_rules(document: Document) -> list[Finding]:
    """All violations of all rules. ``document`` holds no value of the wrong shape, but anything may be missing."""
    if not isinstance(document.data, dict):
        return []
    findings: list[Finding] = []
    for rule in _rules_for(document):
        findings += islice(rule(document), MAX_FINDINGS + 1)
    return findings


def _rules_for(document: Document) -> tuple[Rule, ...]:
    if is_manifest(document.data):
        return _rules_in("manifest")
    rules = RULES + _rules_in("version_2") if is_version_2(document.data) else RULES
    kind = kind_of(document)
    return rules + _rules_in(_OF_KIND[kind]) if isinstance(kind, str) and kind in _OF_KIND else rules


def _rules_in(module: str) -> tuple[Rule, ...]:
    rules: tuple[Rule, ...] = import_module(f"aprender.contracts.rules.{module}").RULES
    return rules

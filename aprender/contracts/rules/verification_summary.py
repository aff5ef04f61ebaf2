"""SUMMARY-001: what the verification summary says is what the contract holds. Hand-typed numbers go stale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import Rule, added, items, kind_of
from aprender.contracts.rules.mentions import applicable


def computed(document: Document) -> dict[str, tuple[int, str]]:
    """What can be counted in the contract itself: the number, and what was counted.

    How many obligations were really tested or proved is not in the file, so those counters have only an upper bound.
    """
    obligations = [item for _, item in items(document, "proof_obligations")]
    lean = [item["lean"] for item in obligations if isinstance(item.get("lean"), dict)]
    status = [proof.get("status", "sorry") for proof in lean]
    return {
        "total_obligations": (len(obligations), "proof_obligations"),
        "l4_lean_proved": (status.count("proved"), "obligations with lean.status proved"),
        "l4_sorry_count": (status.count("sorry"), "obligations with lean.status sorry"),
        "l4_not_applicable": (
            sum(_not_applicable(item) for item in obligations),
            "obligations that are not applicable, or have lean.status not-applicable",
        ),
    }


def _not_applicable(item: dict[str, Any]) -> bool:
    lean = item.get("lean")
    return not applicable(item) or (isinstance(lean, dict) and lean.get("status") == "not-applicable")


def _summary(document: Document) -> Iterator[Finding]:
    summary = document.data.get("verification_summary")
    if not isinstance(summary, dict) or (kind_of(document) == "schema" and not document.data.get("proof_obligations")):
        return
    for key, (number, what) in computed(document).items():
        if isinstance(summary.get(key), int) and summary[key] != number and _is_stated(document, key):
            message = f"{key} is {summary[key]}; the contract has {number}, counting {what}"
            yield added(document, ("verification_summary", key), "SUMMARY-001", message)
    total = summary.get("total_obligations")
    for key in ("l2_property_tested", "l3_kani_proved"):
        if isinstance(summary.get(key), int) and isinstance(total, int) and summary[key] > total:
            message = f"{key} is {summary[key]}, more than total_obligations ({total})"
            yield added(document, ("verification_summary", key), "SUMMARY-001", message)


def _is_stated(document: Document, key: str) -> bool:
    """Whether the contract says anything about Lean; where it does not, its counters are about files elsewhere."""
    return key == "total_obligations" or any("lean" in item for _, item in items(document, "proof_obligations"))


RULES: tuple[Rule, ...] = (_summary,)

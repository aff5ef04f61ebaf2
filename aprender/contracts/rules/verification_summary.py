"""SUMMARY-001: what the verification summary says is what the contract holds. Hand-typed numbers go stale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import Rule, added, items, kind_of
from aprender.contracts.rules.mentions import applicable
from aprender.contracts.schema_check import is_version_2

Count = tuple[int, int, str]  # from, to, and what was counted


def computed(document: Document) -> dict[str, Count]:
    """What the contract itself says of each number of its summary.

    Where it is silent (an obligation without ``lean``, a harness without ``actually_verified``) there is some room. How
    many obligations were tested is not in the file at all, so that counter has only an upper bound. In the old dialect
    a file that says nothing of Lean, or has no harness, has its proofs elsewhere; version 2 names them.
    """
    obligations = [item for _, item in items(document, "proof_obligations")]
    harnesses = [item for _, item in items(document, "kani_harnesses")]
    counts: dict[str, Count] = {
        "total_obligations": (len(obligations), len(obligations), "proof_obligations"),
        "l2_property_tested": (0, len(obligations), "proof_obligations"),
    }
    strict = is_version_2(document.data)
    if strict or any("lean" in item for item in obligations):
        counts |= _of_lean(obligations)
    if strict or harnesses:
        counts["l3_kani_proved"] = _of_kani(harnesses, len(obligations))
    else:
        counts["l3_kani_proved"] = (0, len(obligations), "proof_obligations")
    return counts


def _of_lean(obligations: list[dict[str, Any]]) -> dict[str, Count]:
    status = ["not-applicable" if not applicable(item) else _lean_status(item) for item in obligations]
    counts: dict[str, Count] = {}
    for key, word in (("l4_lean_proved", "proved"), ("l4_sorry_count", "sorry")):
        number = status.count(word)
        counts[key] = number, number, f"obligations with lean.status {word}"
    least, silent = status.count("not-applicable"), status.count(None)
    what = "obligations that are not applicable, or have lean.status not-applicable"
    counts["l4_not_applicable"] = (least, least + silent, f"{what}, or no lean" if silent else what)
    return counts


def _lean_status(item: dict[str, Any]) -> str | None:
    lean = item.get("lean")
    return str(lean.get("status") or "sorry") if isinstance(lean, dict) else None


def _of_kani(harnesses: list[dict[str, Any]], obligations: int) -> Count:
    """By the obligations that harnesses name: those verified, and those of which it is not said."""
    names: dict[bool | None, set[str]] = {True: set(), None: set(), False: set()}
    for item in harnesses:
        name = item.get("obligation", item.get("x-obligation"))  # words put aside are one obligation or another
        verified = item.get("actually_verified")
        names[verified if isinstance(verified, bool) else None].add(str(name))
    most = min(len(names[True] | names[None]), obligations)
    what = "obligations of harnesses that are actually_verified" + (", or do not say" if names[None] else "")
    return min(len(names[True]), most), most, what


def _summary(document: Document) -> Iterator[Finding]:
    summary = document.data.get("verification_summary")
    if not isinstance(summary, dict) or (kind_of(document) == "schema" and not document.data.get("proof_obligations")):
        return
    for key, (least, most, what) in computed(document).items():
        number = summary.get(key)
        if isinstance(number, int) and not least <= number <= most:
            known = f"{most}" if least == most else f"at most {most}" if number > most else f"at least {least}"
            message = f"{key} is {number}; the contract has {known}, counting {what}"
            yield added(document, ("verification_summary", key), "SUMMARY-001", message)


RULES: tuple[Rule, ...] = (_summary,)

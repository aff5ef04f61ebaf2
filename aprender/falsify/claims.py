"""``pv validate --evidence``: the status that a contract claims, beside what evidence shows.

What holds now is the gate's to say; here it is only compared with the words that stand in the contract. The status of
a proof by another tool (kani, Lean, Coq) is left alone: this evidence says nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from aprender.contracts.contract import Contract, contract_of
from aprender.contracts.document import Document, KeyPath
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import added, items, name_of
from aprender.contracts.schema_check import is_version_2
from aprender.contracts.validate import Validation
from aprender.falsify.check_binding import documents_of
from aprender.falsify.gate import Standing, standings
from aprender.falsify.verdict import Verdict, worst

_HOLD = frozenset(("ACTIVE", "DISCHARGED", "PROVED", "PROVEN", "VERIFIED", "GREEN", "PASSED", "PASSING"))
_FAIL = frozenset(("DRAFT_RED", "RED"))
_WORD = re.compile(r"[A-Za-z][A-Za-z_-]*")
_SHOWN = 3  # falsifiers that are named for one reason


def check_claims(validation: Validation) -> list[Finding]:
    """STATUS-001 for every claim of the contracts that were validated that evidence does not support."""
    wrong = {finding.file for finding in validation.findings if finding.severity == "error"}
    return [
        finding
        for document in documents_of(validation, "--evidence")
        if document.file not in wrong
        for finding in _of_document(document)
    ]


def _of_document(document: Document) -> Iterator[Finding]:
    if not is_version_2(document.data):
        yield from _of_old_dialect(document)
        return
    path: KeyPath = ("metadata", "status")
    word = _claim(document.data["metadata"].get("status"))
    problem = _contradiction(word, contract_of(document)) if word else None
    if problem:
        yield document.finding(path, "STATUS-001", problem)


def _claim(status: Any) -> str | None:
    """The word of a status that claims something which evidence can show, such as ``ACTIVE_RUNTIME``; else None."""
    found = _WORD.match(status.strip()) if isinstance(status, str) else None
    word = found.group().rstrip("_-").upper().replace("-", "_") if found else ""
    return word if word in _FAIL or word in _HOLD or word.partition("_")[0] in ("ACTIVE", "DISCHARGED") else None


def _contradiction(word: str, contract: Contract) -> str | None:
    """What evidence supports instead of the claim ``word``, or None."""
    found = standings([contract])
    if word in _FAIL:
        if any(standing.verdict is not Verdict.GREEN for standing in found):
            return None
        names = f"{found[0].falsifier.id} is" if len(found) == 1 else f"all {len(found)} falsifiers are"
        return f"claims {word}, but evidence supports GREEN: {names} GREEN; claim ACTIVE"
    blocking = [standing for standing in found if standing.falsifier.ship_blocking]
    if not blocking:
        return f"claims {word}, but no falsifier is ship-blocking, so no evidence supports it"
    missing = [standing for standing in blocking if standing.verdict is not Verdict.GREEN]
    if not missing:
        return None
    verdict = worst(standing.verdict for standing in missing)
    return f"claims {word}, but evidence supports {verdict}: {_sentence(missing)}"


def _sentence(missing: list[Standing]) -> str:
    """The falsifiers that are not GREEN, the worst first, each reason once."""
    order = list(Verdict)
    by_reason: dict[tuple[Verdict, str], list[str]] = {}
    for standing in sorted(missing, key=lambda standing: order.index(standing.verdict)):
        by_reason.setdefault((standing.verdict, standing.reason), []).append(standing.falsifier.id)
    sentences = []
    for (verdict, reason), names in by_reason.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        sentences.append(f"{', '.join(names[:_SHOWN])}{more} {'is' if len(names) == 1 else 'are'} {verdict} ({reason})")
    return "; ".join(sentences)


def _of_old_dialect(document: Document) -> Iterator[Finding]:
    """There nothing can be run, so nothing supports a claim that something holds."""
    supports = "evidence supports UNPROVEN: without schema_version: 2 and a probe nothing is run"
    metadata = document.data.get("metadata")
    places: list[tuple[KeyPath, str, Any]] = []
    if isinstance(metadata, dict):
        places.append((("metadata", "status"), "the contract", metadata.get("status")))
    for block in ("proof_obligations", "falsification_tests"):
        for path, item in items(document, block):
            places += [((*path, key), name_of(item), item.get(key)) for key in ("status", "discharge_status")]
    for path, who, status in places:
        word = _claim(status)
        if word and word not in _FAIL:
            yield added(document, path, "STATUS-001", f"{who} claims {word}, but {supports}")

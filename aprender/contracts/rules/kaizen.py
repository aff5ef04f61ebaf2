"""KAIZEN: an improvement record says what moves from where to where, and can be shown not to have moved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding, did_you_mean
from aprender.contracts.rules.common import Rule, blank, empty, kind_of, said_by_schema

STATUSES = ("draft", "implemented", "implementing", "pending", "planned")
_COSTS = ("alloc", "bytes", "churn", "launch", "overhead", "sync", "wasted", "_us", "_ms")
_UNITS = ("", "%", "+", "x", "B", "KB", "MB", "GB", "KiB", "MiB", "GiB", "ms", "us", "s")
_COMPARED = ("<=", ">=", "<", ">", "~")

Delta = tuple[dict[str, Any], dict[str, Any]]


def _kaizen(document: Document) -> Iterator[Finding]:
    """KAIZEN-001: a record has an id. KAIZEN-002: a known status. KAIZEN-003: and states something that can fail."""
    if kind_of(document) != "kaizen":
        return
    data = document.data
    if empty(data.get("contract")) and not _said(document, "contract"):
        yield document.finding(("contract",), "KAIZEN-001", "the record has no id: 'contract' is missing or empty")
    status = data.get("status")
    if (blank(status) or status.strip() not in STATUSES) and not _said(document, "status"):
        what = f"is '{status}'" if status else "is missing"
        hint = did_you_mean(status, STATUSES) if status else ""
        message = f"status {what}; must be one of {', '.join(STATUSES)}.{hint}"
        yield document.finding(("status",), "KAIZEN-002", message)
    claims = ("invariants", "proof_obligations", "falsification_tests")
    if _delta(data) is None and not any(_states_something(data.get(key)) for key in claims):
        message = "the record states nothing that can fail: give baseline and target, or falsification_tests"
        yield document.finding(("baseline",), "KAIZEN-003", message)
    yield from _target(document)
    yield from _movement(document)


def _said(document: Document, key: str) -> bool:
    return key not in document.data and said_by_schema(document, (key,))


def _states_something(value: Any) -> bool:
    return value is not None and value not in ([], {})


def _delta(data: dict[str, Any]) -> Delta | None:
    """What is before and what is after."""
    baseline, target = data.get("baseline"), data.get("target")
    if not isinstance(baseline, dict):
        return None
    before, after = baseline.get("before"), baseline.get("after")
    if isinstance(before, dict) and isinstance(after, dict):
        return before, after
    return (baseline, target) if isinstance(target, dict) else None


def _target(document: Document) -> Iterator[Finding]:
    """KAIZEN-004: a target is a mapping that shares a metric with the baseline."""
    baseline, target = document.data.get("baseline"), document.data.get("target")
    if target is None:
        return
    if not isinstance(target, dict):
        yield document.finding(("target",), "KAIZEN-004", "the target must be a mapping from metric to value")
    elif not isinstance(baseline, dict):
        yield document.finding(("target",), "KAIZEN-004", "there is a target but no baseline to compare it with")
    elif not baseline.keys() & target.keys():
        message = f"the target has no metric of the baseline ({', '.join(map(str, baseline)) or 'which is empty'})"
        yield document.finding(("target",), "KAIZEN-004", message)


def _movement(document: Document) -> Iterator[Finding]:
    """KAIZEN-005: something moves. KAIZEN-006: not every cost rises, as when baseline and target are swapped."""
    delta = _delta(document.data)
    if delta is None:
        return
    at = ("target",) if "target" in document.data else ("baseline",)
    pairs = {key: (_quantity(value), _quantity(delta[1].get(key))) for key, value in delta[0].items()}
    moves = {key: b - a for key, (a, b) in pairs.items() if a is not None and b is not None}
    if not any(moves.values()):
        what = f"{', '.join(moves)} stays as it is" if moves else "no metric has a number on both sides"
        yield document.finding(at, "KAIZEN-005", f"nothing moves: {what}")
    costs = {key: move for key, move in moves.items() if any(word in key.lower() for word in _COSTS)}
    if costs and min(costs.values()) >= 0 and max(costs.values()) > 0:
        rising = ", ".join(key for key, move in costs.items() if move > 0)
        message = f"every cost rises or stays ({rising}) and none falls: are baseline and target swapped?"
        yield document.finding(at, "KAIZEN-006", message)


def _quantity(value: Any) -> float | None:
    """A number, or a text such as ``<= 1_000 KiB``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str):
        return None
    text = value.strip()
    text = next((text.removeprefix(sign) for sign in _COMPARED if text.startswith(sign)), text).strip()
    number = re.match("[0-9.\\-_]*", text)
    digits, unit = text[: number.end() if number else 0], text[number.end() if number else 0 :].strip()
    try:
        return float(digits.replace("_", "")) if unit in _UNITS else None
    except ValueError:
        return None


RULES: tuple[Rule, ...] = (_kaizen,)

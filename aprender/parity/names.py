"""Pairing is by name, never by order: what has no partner is named, with the nearest name on the other side."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from aprender.errors import AprenderError

SHOWN = 8  # names of each kind in one message


def check_names(reference: Collection[str], candidate: Collection[str]) -> None:
    """Raise AprenderError unless both sides name the same stages, each once, and at least one."""
    problem = difference(reference, candidate, "stage")
    if problem:
        raise AprenderError(problem)
    if not reference:
        raise AprenderError("the reference has no stages: there is nothing to compare")


def difference(reference: Collection[str], candidate: Collection[str], what: str) -> str:
    """What one side has and the other lacks, in one sentence; an empty string where nothing differs."""
    twice = sorted({name for name in reference if sum(name == other for other in reference) > 1})
    parts = [f"{what} {name!r} appears more than once" for name in twice[:SHOWN]]
    missing = [name for name in reference if name not in candidate]
    extra = [name for name in candidate if name not in reference]
    if missing:
        parts.append(f"the candidate has no {what} {_listed(missing, extra)}")
    if extra:
        parts.append(f"the reference has no {what} {_listed(extra, missing)}")
    return "; ".join(parts)


def nearest(name: str, others: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` with a leading blank where one of ``others`` is near, else an empty string."""
    near = difflib.get_close_matches(name, list(others), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _listed(names: list[str], others: list[str]) -> str:
    shown = ", ".join(f"{name!r}{nearest(name, others)}" for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"

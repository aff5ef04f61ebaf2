"""What rules across files need of a contract: plain data, small, so that the cache can keep it as JSON."""

# No postponed annotations here: NamedTuple would compile each from its text, which costs as much as a small contract.

from typing import NamedTuple

from aprender.contracts.findings import Finding

Named = tuple[str, int, int]  # a name, and the line and column where it stands


class Summary(NamedTuple):
    """The names that one contract gives and takes. ``needs`` are contracts; ``takes`` are their equations."""

    file: str
    version_2: bool
    falsifiers: int
    expectations: int
    id: Named | None
    falsifier_ids: list[Named]
    equations: list[str]
    needs: list[Named]
    takes: list[tuple[str, str, int, int]]


class Checked(NamedTuple):
    """What one file gave: findings by position, and what rules across files need of it (None if it can't be read)."""

    findings: list[Finding]
    summary: Summary | None

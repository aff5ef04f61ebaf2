"""The rules that only contracts of version 2 must follow."""

from __future__ import annotations

from aprender.contracts.rules import expressions, references, teeth, vacuity
from aprender.contracts.rules.common import Rule

RULES: tuple[Rule, ...] = (
    *references.OF_VERSION_2,
    *expressions.OF_VERSION_2,
    *teeth.OF_VERSION_2,
    *vacuity.OF_VERSION_2,
)

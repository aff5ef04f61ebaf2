"""Which rules a run is about: ``--select`` and ``--ignore``, by id or by what an id begins with.

A selector is a rule (``SCHEMA-013``), a family (``SCHEMA``) or a family with the first digits (``SCHEMA-0``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence

from aprender.contracts.findings import Finding, did_you_mean
from aprender.errors import AprenderError

_RULEBOOK = os.path.join(os.path.dirname(__file__), "rulebook")
_UNREADABLE = ("YAML-001", "YAML-002", "YAML-003", "YAML-004", "YAML-005")  # what can't be read can't be checked


def selected(findings: Iterable[Finding], select: Sequence[str], ignore: Sequence[str]) -> list[Finding]:
    """The findings of rules in ``select`` (empty: all) and not in ``ignore``.

    Selecting other rules does not hide that a file can't be read: nothing would say that those rules saw nothing.
    Ignoring does, since it names what it hides.
    """
    return [
        finding
        for finding in findings
        if (not select or finding.rule in _UNREADABLE or _matches(finding.rule, select))
        and not _matches(finding.rule, ignore)
    ]


def check_selectors(selectors: Iterable[str], place: Callable[[str], str]) -> None:
    """Raise AprenderError for a selector that no rule matches; ``place`` says where it stands."""
    rules = rule_ids()
    for selector in selectors:
        if any(_matches(rule, [selector]) for rule in rules):
            continue
        from aprender.contracts.plugins import plugin_rules, undeclared

        known = [*rules, *plugin_rules()]
        families = dict.fromkeys(_family(rule) for rule in known)
        if any(_matches(rule, [selector]) for rule in known):
            continue
        family = _family(selector)
        if undeclared() and family not in families and not did_you_mean(family, families):
            continue  # it may be theirs; what is near a family that is known is a typing error
        hint = did_you_mean(selector, [*families, *known])
        raise AprenderError(
            f"{place(selector)}: no rule or family '{selector}'.{hint} Families: {', '.join(families)}; "
            "pv explain --list lists the rules"
        )


def rule_ids() -> list[str]:
    """Every rule's id. The rulebook is not parsed for it: that takes longer than checking a contract."""
    found: list[str] = []
    for name in sorted(os.listdir(_RULEBOOK)):
        if name.endswith(".yaml"):
            with open(os.path.join(_RULEBOOK, name), encoding="utf-8") as file:
                found += re.findall(r"^- id: (\S+)", file.read(), re.MULTILINE)
    return sorted(found)


def _matches(rule: str, selectors: Iterable[str]) -> bool:
    family = _family(rule)
    return any(
        family == selector or (rule.startswith(selector) and family == _family(selector)) for selector in selectors
    )


def _family(rule: str) -> str:
    """What stands before the number; ``PM-SHAPE`` is a family, too."""
    family, _, number = rule.rpartition("-")
    return family if family and (not number or number.isdigit()) else rule

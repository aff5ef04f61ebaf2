"""Rules by others: entry points of the group ``aprender.rules`` (docs/plugins.md).

Each is a callable ``rule(document: Document) -> Iterable[Finding]``; it sees what the own rules see. In a package:

    [project.entry-points."aprender.rules"]
    owners = "mypackage.rules:owner_is_known"
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from functools import cache
from typing import Any, TypeVar

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding

GROUP = "aprender.rules"
Rule = Callable[[Document], Iterable[Finding]]
AnyRule = TypeVar("AnyRule", bound=Rule)

_ID = re.compile(r"[A-Z]+(-[A-Z]+)*-[0-9]+\Z")
_SEVERITIES = ("error", "warning")


def declares(rules: Mapping[str, str]) -> Callable[[AnyRule], AnyRule]:
    """Decorator: the ids that a plug-in's findings have, each with a sentence for ``pv explain``."""

    def declared(rule: AnyRule) -> AnyRule:
        rule.rules = dict(rules)  # type: ignore[attr-defined]
        return rule

    return declared


@cache
def plugins() -> tuple[tuple[str, Rule | BaseException], ...]:
    """Name and rule of every plug-in that is installed here; in place of one that can't be imported, the reason."""
    if not any(map(_declares_rules, sys.path)):
        return ()
    from importlib.metadata import entry_points  # takes longer to import than a contract to check

    found: list[tuple[str, Rule | BaseException]] = []
    for entry_point in sorted(entry_points(group=GROUP), key=lambda entry_point: entry_point.name):
        try:
            with redirect_stdout(sys.stderr):  # what a plug-in prints is no part of a report
                found.append((entry_point.name, entry_point.load()))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever another's code raises is the finding, SystemExit too
            found.append((entry_point.name, error))
    return tuple(found)


def declared_rules() -> dict[str, tuple[str, str]]:
    """What the installed plug-ins declare: by id the plug-in's name and what the rule says."""
    return {id_: (name, text) for name, rule in plugins() for id_, text in (_declared(rule) or {}).items()}


def undeclared() -> list[str]:
    """The plug-ins that do not say which rules they have."""
    return [name for name, rule in plugins() if _declared(rule) is None]


def plugin_findings(document: Document) -> list[Finding]:
    """What the plug-ins find; one that fails is a finding itself."""
    findings: list[Finding] = []
    for name, rule in plugins():
        try:
            findings += _found(rule, document)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - as above: sys.exit(0) in a rule must not read as approval
            message = f"rule plug-in '{name}' failed: {type(error).__name__}: {error}; mend or uninstall it"
            findings.append(document.finding((), "PLUGIN-001", message))
    return findings


def _found(rule: Rule | BaseException, document: Document) -> list[Finding]:
    if isinstance(rule, BaseException):
        raise rule
    with redirect_stdout(sys.stderr):
        found = list(rule(document))
    declared = _declared(rule)
    for item in found:
        if why := _why_unusable(item, document, declared):
            raise TypeError(f"gave {item!r}, {why}")
    return found


def _why_unusable(item: Any, document: Document, declared: Mapping[str, str] | None) -> str:
    """Why reports can't show ``item``, an empty string if they can: they are made without looking at types again."""
    if not isinstance(item, Finding):
        return "which is no Finding"
    if item.file != document.file:
        return "whose file is not the document's"
    if not all(type(number) is int and number >= 1 for number in (item.line, item.column)):
        return "whose line or column is no number from 1 on"
    if not isinstance(item.rule, str) or not _ID.match(item.rule):
        return "whose rule is no id such as OWNER-001"
    if declared is not None and item.rule not in declared:
        return "whose rule it does not declare"
    if item.severity not in _SEVERITIES:
        return "whose severity is neither error nor warning"
    return (
        "" if isinstance(item.message, str) and isinstance(item.source, str) else "whose message or source is no text"
    )


def _declared(rule: Rule | BaseException) -> Mapping[str, str] | None:
    rules = getattr(rule, "rules", None)
    return rules if isinstance(rules, Mapping) else None


def _declares_rules(folder: str) -> bool:
    """Whether a distribution installed in ``folder`` has entry points of our group."""
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return False
    for name in names:
        if name.endswith((".dist-info", ".egg-info")):
            try:
                with open(os.path.join(folder, name, "entry_points.txt"), encoding="utf-8") as file:
                    if f"[{GROUP}]" in file.read():
                        return True
            except (OSError, ValueError):
                continue
    return False

"""Rules by others: entry points of the group ``aprender.rules``.

Each is a callable ``rule(document: Document) -> Iterable[Finding]``; it sees what the own rules see. In a package:

    [project.entry-points."aprender.rules"]
    owners = "mypackage.rules:owner_is_known"
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from functools import cache

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding

GROUP = "aprender.rules"
Rule = Callable[[Document], Iterable[Finding]]


@cache
def plugins() -> tuple[tuple[str, Rule | Exception], ...]:
    """Name and rule of every plug-in that is installed here; in place of one that can't be imported, the reason."""
    if not any(map(_declares_rules, sys.path)):
        return ()
    from importlib.metadata import entry_points  # takes longer to import than a contract to check

    found: list[tuple[str, Rule | Exception]] = []
    for entry_point in sorted(entry_points(group=GROUP), key=lambda entry_point: entry_point.name):
        try:
            found.append((entry_point.name, entry_point.load()))
        except Exception as error:  # noqa: BLE001 - whatever another's code raises is the finding
            found.append((entry_point.name, error))
    return tuple(found)


def plugin_findings(document: Document) -> list[Finding]:
    """What the plug-ins find; one that fails is a finding itself."""
    findings: list[Finding] = []
    for name, rule in plugins():
        try:
            if isinstance(rule, Exception):
                raise rule
            found = list(rule(document))
            if strange := next((item for item in found if not isinstance(item, Finding)), None):
                raise TypeError(f"gave {strange!r}, which is no Finding")
            findings += found
        except Exception as error:  # noqa: BLE001 - as above
            message = f"rule plug-in '{name}' failed: {type(error).__name__}: {error}; mend or uninstall it"
            findings.append(document.finding((), "PLUGIN-001", message))
    return findings


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

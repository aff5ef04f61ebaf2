"""Rules by others: entry points of the group ``aprender.rules``.

Each is a callable ``rule(document: Document) -> Iterable[Finding]``; it sees what the own rules see. What it may give
is checked here: what comes after trusts a finding. In a package (docs/validate.md has more):

    [project.entry-points."aprender.rules"]
    owners = "mypackage.rules:owner_is_known"
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding

GROUP = "aprender.rules"
Rule = Callable[[Document], Iterable[Finding]]
# pytest's and others' ways of giving up are no Exception, and sys.exit() in a rule must not end the run as if all were
# well; only the user may interrupt.
_GIVES_UP = BaseException


@cache
def plugins() -> tuple[tuple[str, Rule | BaseException], ...]:
    """Name and rule of every plug-in that is installed here; in place of one that can't be used, the reason."""
    if not any(map(_declares_rules, sys.path)):
        return ()
    from importlib.metadata import entry_points  # takes longer to import than a contract to check

    found: list[tuple[str, Rule | BaseException]] = []
    for entry_point in sorted(entry_points(group=GROUP), key=lambda entry_point: entry_point.name):
        try:
            with _stdout_is_ours():
                rule = entry_point.load()
            _declared(rule)
            found.append((entry_point.name, rule))
        except KeyboardInterrupt:
            raise
        except _GIVES_UP as error:
            found.append((entry_point.name, error))
    return tuple(found)


def plugin_rules() -> dict[str, tuple[str, str]]:
    """Title and plug-in of every rule that a plug-in declares, by its id."""
    return {
        rule: (title, name)
        for name, plugin in plugins()
        if not isinstance(plugin, BaseException)
        for rule, title in _declared(plugin).items()
    }


def undeclared() -> list[str]:
    """The plug-ins that do not say which rules they have: those ids are known only once they find something."""
    return [name for name, rule in plugins() if not (isinstance(rule, BaseException) or _declared(rule))]


def plugin_findings(document: Document) -> list[Finding]:
    """What the plug-ins find; one that fails is a finding itself."""
    findings: list[Finding] = []
    for name, rule in plugins():
        try:
            if isinstance(rule, BaseException):
                raise rule
            with _stdout_is_ours():
                found = list(rule(document))
            declared = _declared(rule)
            for item in found:
                if fault := next(_faults(item, document, declared), None):
                    raise TypeError(fault)
            findings += (Finding(*item) for item in found)
        except KeyboardInterrupt:
            raise
        except _GIVES_UP as error:
            message = f"rule plug-in '{name}' failed: {type(error).__name__}: {error}; mend or uninstall it"
            findings.append(document.finding((), "PLUGIN-001", message))
    return findings


def _stdout_is_ours() -> AbstractContextManager[Any]:
    """What a plug-in prints goes to stderr: stdout is the report, which programs read."""
    from contextlib import redirect_stdout

    return redirect_stdout(sys.stderr)


def _declared(rule: Any) -> dict[str, str]:
    """The attribute ``rules``: the title of each rule by its id. Raises TypeError where it is something else."""
    declared = getattr(rule, "rules", {})
    if not (isinstance(declared, dict) and all(_is_id(one) and _is_text(declared[one]) for one in declared)):
        raise TypeError("its attribute 'rules' must give a title for each id, such as {'OWNER-001': 'no such owner'}")
    return declared


def _faults(item: Any, document: Document, declared: dict[str, str]) -> Iterator[str]:
    """What is wrong with something that a plug-in gave."""
    if not isinstance(item, Finding):
        yield f"gave {item!r}, which is no Finding"
        return
    if item.file != document.file:
        yield f"gave a finding with file {item.file!r}, which is not the file that it was given"
    for name, number in (("line", item.line), ("column", item.column)):
        if type(number) is not int or number < 1:
            yield f"gave a finding with {name} {number!r}; it counts from 1"
    if not _is_id(item.rule):
        yield f"gave a finding with rule {item.rule!r}; an id is written like OWNER-001"
    elif declared and item.rule not in declared:
        yield f"gave a finding with rule {item.rule!r}, which its attribute 'rules' does not declare"
    if item.severity not in ("error", "warning"):
        yield f"gave a finding with severity {item.severity!r}; it is 'error' or 'warning'"
    if not _is_text(item.message):
        yield f"gave a finding with message {item.message!r}; it is text"
    if not isinstance(item.source, str):
        yield f"gave a finding with source {item.source!r}; leave it out"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_id(value: Any) -> bool:
    """Whether an id has the form that selectors know: a family in capitals, a hyphen, a number."""
    if not isinstance(value, str) or not value.isascii():
        return False
    family, _, number = value.rpartition("-")
    return number.isdigit() and family[:1].isalpha() and family == family.upper() and family.replace("-", "").isalnum()


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

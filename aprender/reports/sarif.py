"""Findings as SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/), for code scanning and editors.

Only rules that broke a contract have a result; every rule of the rulebook is described, with help and examples.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import quote

from aprender import __version__
from aprender.contracts.findings import Finding
from aprender.contracts.rulebook import EXCERPT, ONE_FILE, Rule, rulebook
from aprender.contracts.validate import Validation
from aprender.reports.excerpt import shown
from aprender.reports.hidden import Hidden
from aprender.reports.validation_json import counts
from aprender.reports.validation_text import file_name

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def validation_sarif(result: Validation, hidden: Hidden, exit_code: int) -> str:
    """One SARIF log with one run; what SARIF has no word for is in the run's ``properties``."""
    rules = [_rule(rule) for rule in rulebook().values()]
    known = {rule["id"] for rule in rules}
    foreign = sorted({finding.rule for finding in result.findings} - known)  # of rule plug-ins
    rules += [{"id": rule} for rule in foreign]
    indices = {rule["id"]: index for index, rule in enumerate(rules)}
    run = {
        "tool": {"driver": {"name": "pv", "semanticVersion": __version__, "rules": rules}},
        "invocations": [{"executionSuccessful": True, "exitCode": exit_code}],
        "columnKind": "unicodeCodePoints",
        "artifacts": [{"location": {"uri": _uri(file)}, "roles": ["analysisTarget"]} for file in result.files],
        "results": [_result(finding, indices[finding.rule]) for finding in result.findings],
        "properties": {
            "counts": counts(result),
            "ignored": hidden._asdict(),
            "passedOver": [file_name(file) for file in result.passed_over],
        },
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, allow_nan=False)


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "help": {"text": _help(rule, "{}:\n{}\n"), "markdown": _help(rule, "{}:\n\n```yaml\n{}\n```\n")},
        "defaultConfiguration": {"level": rule.severity},
    }


def _help(rule: Rule, form: str) -> str:
    parts = [f"{rule.why}\n"]
    for word, example in (("Wrong", rule.wrong), ("Right", rule.right)):
        for name, text in example.items():
            heading = word if name in (ONE_FILE, EXCERPT) else f"{word}, {name}"
            parts.append(form.format(heading, text.rstrip("\n")))
    return "\n".join(parts)


def _result(finding: Finding, index: int) -> dict[str, Any]:
    place = {
        "artifactLocation": {"uri": _uri(finding.file)},
        "region": {"startLine": finding.line, "startColumn": finding.column},
    }
    return {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": finding.severity,
        "message": {"text": shown(finding.message)},
        "locations": [{"physicalLocation": place}],
    }


def _uri(file: str) -> str:
    """Relative to the working folder where the file lies in it: a log made on one machine is read on another."""
    if file == "-":
        return quote(file_name(file))
    here, path = os.getcwd(), os.path.abspath(file)
    inside = path.startswith(os.path.join(here, ""))
    name = os.path.relpath(path, here) if inside else path
    quoted = quote(os.fsencode(name.replace(os.sep, "/")))
    return quoted if inside else f"file://{'' if quoted.startswith('/') else '/'}{quoted}"

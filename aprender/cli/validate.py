"""``pv validate``: check contracts, print every finding with its line and column."""

from __future__ import annotations

import argparse

from aprender.cli.console import say
from aprender.contracts.config import read_config, selected
from aprender.contracts.validate import Validation, validate

HOLDS, HAS_ERRORS = 0, 1  # as aprender.falsify.verdict, which is not imported for this
FORMATS = ("text", "json", "sarif", "junit", "github")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="contracts, folders of them, - for standard input (default: contracts)"
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    parser.add_argument("--strict", action="store_true", help="warnings fail, too")
    for option, what in (("--select", "only these rules"), ("--ignore", "all but these rules")):
        parser.add_argument(option, metavar="RULE", action="append", default=[], help=f"{what}: an id or a family")
    parser.add_argument("--quiet", action="store_true", help="print findings only")
    parser.add_argument("--bind", action="store_true", help="import the probes and check that falsifiers fit them")
    parser.add_argument("--evidence", action="store_true", help="check the status that contracts claim")
    parser.add_argument("--no-cache", action="store_true", help="check every file, also what was checked before")


def run(arguments: argparse.Namespace) -> int:
    """Validate, print, and return the exit code."""
    config = read_config()
    result = validate(arguments.paths or config.paths, cached=not arguments.no_cache)
    if arguments.bind or arguments.evidence:
        result = _further(result, bind=arguments.bind, evidence=arguments.evidence)
    ignore = [*config.ignore, *_rules(arguments.ignore)]
    select = _rules(arguments.select) or config.select
    result = result.with_findings(selected(result.findings, select, ignore))
    fails = result.errors or (result.warnings and (arguments.strict or config.strict))
    status = HAS_ERRORS if fails else HOLDS
    if text := _report(result, arguments.format, status, quiet=arguments.quiet):
        say(text)
    return status


def _rules(given: list[str]) -> tuple[str, ...]:
    return tuple(rule.strip().upper() for entry in given for rule in entry.split(",") if rule.strip())


def _further(result: Validation, *, bind: bool, evidence: bool) -> Validation:
    """What only the later road can say: probes that fit, claims that evidence supports."""
    findings = list(result.findings)
    if bind:
        from aprender.falsify.check_binding import check_binding

        findings += check_binding(result)
    if evidence:
        from aprender.falsify.claims import check_claims

        findings += check_claims(result)
    return result.with_findings(findings)


def _report(result: Validation, form: str, status: int, *, quiet: bool) -> str:
    if form == "json":
        from aprender.reports.json_report import validation_json

        return validation_json(result, status)
    if form == "sarif":
        from aprender.reports.sarif import validation_sarif

        return validation_sarif(result, status)
    if form == "junit":
        from aprender.reports.junit import validation_junit

        return validation_junit(result)
    if form == "github":
        from aprender.reports.github import validation_github

        return validation_github(result)
    from aprender.reports.validation_text import validation_text

    return validation_text(result, quiet=quiet)

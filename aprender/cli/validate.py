"""``pv validate``: check contracts, print every finding with its line and column."""

from __future__ import annotations

import argparse

from aprender.cli.console import say
from aprender.contracts.config import Config, read_config
from aprender.contracts.validate import Validation, validate
from aprender.reports.hidden import NOTHING_HIDDEN, Hidden

HOLDS, HAS_ERRORS = 0, 1  # as aprender.falsify.verdict, which is not imported for this
FORMATS = ("text", "json", "sarif", "junit", "github")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="contracts, folders of them, - for standard input (default: contracts)"
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    parser.add_argument("--strict", action=argparse.BooleanOptionalAction, help="warnings fail, too")
    for option, what in (("--select", "only these rules"), ("--ignore", "all but these rules")):
        help_text = f"{what}: SCHEMA-013, or all that begin so: SCHEMA, SCHEMA-0; separated by commas or repeated"
        parser.add_argument(option, metavar="RULE", action="append", default=[], help=help_text)
    parser.add_argument("--quiet", action="store_true", help="print findings only, nothing where there is none")
    parser.add_argument("--bind", action="store_true", help="import the probes and check that falsifiers fit them")
    parser.add_argument("--evidence", action="store_true", help="check the status that contracts claim")
    parser.add_argument("--no-cache", action="store_true", help="check every file, also what was checked before")


def run(arguments: argparse.Namespace) -> int:
    """Validate, print, and return the exit code."""
    settings = _settings(arguments)
    everything = validate(settings.paths, cached=not arguments.no_cache)
    if arguments.bind or arguments.evidence:
        everything = _further(everything, bind=arguments.bind, evidence=arguments.evidence)
    result, hidden = _selected(everything, settings)
    fails = result.errors or (result.warnings and settings.strict)
    status = HAS_ERRORS if fails else HOLDS
    if text := _report(result, hidden, status, arguments, strict=settings.strict):
        say(text)
    return status


def _settings(arguments: argparse.Namespace) -> Config:
    """What the command line says beats pyproject.toml; rules selected there replace both lists here."""
    config = read_config()
    select, ignore = (_rules(arguments, option) for option in ("select", "ignore"))
    if not (select or ignore):
        select, ignore = config.select, config.ignore
    strict = config.strict if arguments.strict is None else arguments.strict
    return Config(tuple(arguments.paths) or config.paths, select, ignore, strict)


def _rules(arguments: argparse.Namespace, option: str) -> tuple[str, ...]:
    given = (rule.strip().upper() for entry in getattr(arguments, option) for rule in entry.split(","))
    rules = tuple(rule for rule in given if rule)
    if rules:
        from aprender.contracts.selection import check_selectors

        check_selectors(rules, lambda rule: f"--{option} {rule}")
    return rules


def _selected(everything: Validation, settings: Config) -> tuple[Validation, Hidden]:
    """What the chosen rules found, and how much the others did."""
    if not (settings.select or settings.ignore):
        return everything, NOTHING_HIDDEN
    from aprender.contracts.selection import selected

    result = everything.with_findings(selected(everything.findings, settings.select, settings.ignore))
    return result, Hidden(everything.errors - result.errors, everything.warnings - result.warnings)


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


def _report(result: Validation, hidden: Hidden, status: int, arguments: argparse.Namespace, *, strict: bool) -> str:
    """The report in the format that was asked for, which is imported only then."""
    match arguments.format:
        case "json":
            from aprender.reports.validation_json import validation_json

            return validation_json(result, hidden, status)
        case "sarif":
            from aprender.reports.sarif import validation_sarif

            return validation_sarif(result, hidden, status)
        case "junit":
            from aprender.reports.junit import validation_junit

            return validation_junit(result, hidden, strict=strict)
        case "github":
            from aprender.reports.github import validation_github

            return validation_github(result, hidden, strict=strict)
    from aprender.contracts.source_lines import with_source_lines
    from aprender.reports.validation_text import validation_text

    result = result._replace(findings=tuple(with_source_lines(result.findings)))
    return validation_text(result, hidden=hidden, strict=strict, quiet=arguments.quiet, colour=True)

"""What ``pv validate`` tells people: each finding with its line and a caret, and the denominators in the last line."""

from __future__ import annotations

from aprender.contracts.validate import Validation
from aprender.reports.hidden import NOTHING_HIDDEN, Hidden

STANDARD_INPUT = "<stdin>"
_PASSED_OVER_SHOWN = 5


def validation_text(
    result: Validation,
    *,
    hidden: Hidden = NOTHING_HIDDEN,
    strict: bool = False,
    quiet: bool = False,
    colour: bool = False,
) -> str:
    """Findings, what was passed over, and the summary; ``quiet`` leaves the findings and what is hidden of them."""
    lines = _findings(result, colour)
    if quiet:
        lines += [f"{hidden} ignored"] if hidden else []
    else:
        lines += _passed_over(result)
        lines.append(summary(result, hidden=hidden, strict=strict))
    return "\n".join(lines)


def summary(result: Validation, *, hidden: Hidden = NOTHING_HIDDEN, strict: bool = False) -> str:
    """The last line: what was looked at, what was found, what was not shown, and the sentence that says it all."""
    counts = ((result.falsifiers, "falsifier"), (result.expectations, "expectation"))
    looked_at = ", ".join(plural(count, word) for count, word in ((len(result.files), "contract"), *counts))
    found = f"{plural(result.errors, 'error')}, {plural(result.warnings, 'warning')}"
    ignored = f" ({hidden} ignored)" if hidden else ""
    return f"{looked_at}: {found}{ignored}. {_verdict(result, hidden, strict)}"


def file_name(file: str) -> str:
    """How a file is called in every report."""
    return STANDARD_INPUT if file == "-" else file


def plural(count: int, word: str) -> str:
    """``1 error``, ``2 errors``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _findings(result: Validation, colour: bool) -> list[str]:
    if not result.findings:
        return []
    from aprender.reports.finding_text import finding_text  # a valid contract doesn't wait for it

    return [
        line for finding in result.findings for line in finding_text(finding, file_name(finding.file), colour=colour)
    ]


def _passed_over(result: Validation) -> list[str]:
    """Other kinds of file are told, so that nobody takes them for checked."""
    if not result.passed_over:
        return []
    from aprender.reports.excerpt import shown

    names = [shown(name) for name in result.passed_over[:_PASSED_OVER_SHOWN]]
    more = len(result.passed_over) - len(names)
    return [f"passed over, as no contracts: {', '.join(names)}{f' and {more:,} more' if more else ''}"]


def _verdict(result: Validation, hidden: Hidden, strict: bool) -> str:
    """The published tool's last sentence where it is true, and never where it is not."""
    total = len(result.files)
    wrong = len({finding.file for finding in result.findings if finding.severity == "error"})
    if wrong:
        return "Contract is not valid." if total == 1 else f"{wrong:,} of {total:,} contracts {_be(wrong)} not valid."
    valid = "Contract is valid" if total == 1 else f"All {total:,} contracts are valid"
    if hidden.errors:
        valid += " but for what is ignored"
    return f"{valid}; warnings fail (strict)." if strict and result.warnings else f"{valid}."


def _be(count: int) -> str:
    return "is" if count == 1 else "are"

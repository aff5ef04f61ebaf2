"""One file on the first stretch of the road: bytes, document, shape, rules; later steps need what earlier ones say."""

from __future__ import annotations

from aprender.contracts.document import Document
from aprender.contracts.files import read_content
from aprender.contracts.findings import MAX_FINDINGS, Finding
from aprender.contracts.plugins import plugin_findings
from aprender.contracts.reader import read_bytes
from aprender.contracts.rules.table import check_rules
from aprender.contracts.schema_check import check_schema
from aprender.contracts.summarise import summary_of
from aprender.contracts.summary import Checked
from aprender.contracts.syntax import lines_of

# Rules that say that something is missing: after a syntax error it may stand in the part that was not read.
_SAY_WHAT_IS_MISSING = (
    "SCHEMA-001", "SCHEMA-003", "SCHEMA-013", "SCHEMA-017", "SCHEMA-103", "PROVABILITY-", "REF-", "SUMMARY-",
    "CODE-", "BEAT-001", "CRUX-", "KAIZEN-", "PARITY-",
)  # fmt: skip


def check_file(file: str) -> Checked:
    """Read and check one file."""
    content = read_content(file)
    return Checked([content], None) if isinstance(content, Finding) else check_content(content, file)


def check_content(content: bytes, file: str) -> Checked:
    """Check the bytes of one contract."""
    findings, sound = check_document(content, file)
    return Checked(findings, None if sound is None else summary_of(sound))


def check_document(content: bytes, file: str) -> tuple[list[Finding], Document | None]:
    """The findings, and the document without values of the wrong shape (None where it can't be read)."""
    document, findings = read_bytes(content, file)
    if document is None:
        return _in_order(findings, content), None
    shape, sound = check_schema(document)
    meaning = [*check_rules(sound), *plugin_findings(sound)]
    if document.incomplete:
        meaning = [finding for finding in meaning if not finding.rule.startswith(_SAY_WHAT_IS_MISSING)]
    said = [*findings, *_not_said(findings, [*shape, *meaning])]
    return _in_order(said, content, document), sound


def _not_said(earlier: list[Finding], later: list[Finding]) -> list[Finding]:
    """The ``later`` findings without those that only follow from what is wrong with the same value already."""
    unread = {finding[1:3] for finding in earlier if finding.rule in ("YAML-003", "YAML-005")}
    misspelt = {finding[1:3] for finding in later if finding.rule == "SCHEMA-103"}
    if not unread and not misspelt:
        return later
    return [f for f in later if f[1:3] not in unread and not (f.rule == "SCHEMA-024" and f[1:3] in misspelt)]


def _in_order(findings: list[Finding], content: bytes, document: Document | None = None) -> list[Finding]:
    """The findings by position, each with the text of its line, and no more of them than anybody reads."""
    findings = sorted(findings, key=lambda finding: (finding.line, finding.column, finding.rule))
    if not findings:
        return findings
    if len(findings) > MAX_FINDINGS:
        findings.sort(key=lambda finding: finding.severity != "error")  # warnings never push an error out
        findings = sorted(findings[:MAX_FINDINGS], key=lambda finding: finding[1:4])
        message = f"there are more than {MAX_FINDINGS:,} findings; mend these first"
        findings.append(findings[-1]._replace(rule="YAML-004", severity="error", message=message))
    lines = lines_of(document.text if document else content.decode("utf-8", "replace"), findings[-1].line)
    return [
        finding._replace(source=lines[finding.line - 1][:1000]) if finding.line <= len(lines) else finding
        for finding in findings
    ]

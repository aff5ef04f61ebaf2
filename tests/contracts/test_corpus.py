"""Real contracts by others: our verdict is the published tool's, and every difference has its reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aprender.contracts.check import check_file
from aprender.contracts.findings import Finding
from aprender.contracts.validate import validate

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
VERDICTS = CORPUS / "verdicts-2026-02.tsv"
pytestmark = pytest.mark.skipif(not VERDICTS.is_file(), reason="../shared/corpus is not on this machine")

# The recorded verdicts are those of a version that knew only these rules and 12 types of obligation, and stopped at the
# first value that it could not parse.
RULES_THEN = re.compile("SCHEMA-0(0[1-9]|1[0-3])")
KNOWN_SINCE = re.compile("unknown variant `(determinism|roundtrip|safety|liveness|termination)`")


def recorded() -> list[tuple[Path, int, str]]:
    """File, exit code and findings, as recorded."""
    lines = (line for line in VERDICTS.read_text("utf-8").splitlines() if not line.startswith("#"))
    rows = [[*line.split("\t"), ""][:3] for line in lines]
    return [(CORPUS / file, int(code), found) for file, code, found in rows]


def ours(path: Path) -> list[Finding]:
    """What we find in one file."""
    return check_file(str(path)).findings


def errors(findings: list[Finding]) -> set[str]:
    """The ids of the rules that fail the contract."""
    return {finding.rule for finding in findings if finding.severity == "error"}


def test_what_was_valid_is_valid_but_for_the_rule_that_came_later() -> None:
    """158 files; the five that we refuse lack kani_harnesses, which PROVABILITY-001 asks for since March."""
    accepted = [path for path, code, _ in recorded() if code == 0]
    refused = {path.name: errors(ours(path)) for path in accepted if errors(ours(path))}
    assert len(accepted) > 150
    kernels = ("clamp", "dot", "l2norm", "relu", "scale")
    assert refused == {f"{name}-kernel-v1.yaml": {"PROVABILITY-001"} for name in kernels}


def test_warnings_of_the_rules_of_that_time_are_the_same() -> None:
    """By rule, file for file, where the file could be parsed."""
    for path, code, found in recorded():
        if code == 0:
            theirs = set(re.findall(r"SCHEMA-\d+", found))
            assert {f.rule for f in ours(path) if RULES_THEN.fullmatch(f.rule)} == theirs, path


def test_what_was_refused_is_refused_but_for_types_that_came_later() -> None:
    """Nine files only use types of obligation that are valid now; in three a missing block is a finding, not the end."""
    refused = [(path, found) for path, code, found in recorded() if code == 1]
    now_valid = [path for path, found in refused if not errors(ours(path))]
    assert all(KNOWN_SINCE.search(found) for path, found in refused if path in now_valid)
    assert len(now_valid) == 9
    others = {path.name: errors(ours(path)) for path, _ in refused if path not in now_valid}
    assert others == {
        "layer-parity-v1.yaml": {"PROVABILITY-001", "SCHEMA-003"},
        "quantized-dot-product-v1.yaml": {"PROVABILITY-001", "SCHEMA-003"},
        "tensor-layout-v1.yaml": {"PROVABILITY-001", "SCHEMA-001", "SCHEMA-003"},
    }


def test_new_rules_never_fail_a_contract_of_the_old_dialect() -> None:
    """What the published tool does not say is a warning there."""
    published = re.compile("YAML-|SCHEMA-|PROVABILITY-|BEAT-|KAIZEN-|CRUX-|PARITY-|PM-SHAPE-")
    result = validate([CORPUS])
    assert len(result.files) > 150
    assert not [f for f in result.findings if f.severity == "error" and not published.match(f.rule)]

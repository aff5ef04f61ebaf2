"""One validation in, one format out: text, JSON, JUnit, GitHub."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from aprender.contracts.findings import Finding
from aprender.reports.github import validation_github
from aprender.reports.hidden import NOTHING_HIDDEN, Hidden
from aprender.reports.junit import validation_junit
from aprender.reports.validation_json import validation_json
from aprender.reports.validation_text import summary, validation_text
from tests.reports.validations import ERROR, WARNING, validation

HOSTILE = Finding(
    "contracts/\x1b]0;a\udcff\n::error::,b%.yaml",
    1,
    2,
    "YAML-001",
    "error",
    "50% <&\"'> \x1b[2J\x00\ufffe\n::set-env::x",
)
LOOKED_AT = "2 contracts, 3 falsifiers, 12 expectations"


def test_the_text_of_findings() -> None:
    """Place, severity, rule, message, source line, caret; then the denominators."""
    assert validation_text(validation(ERROR, WARNING)).splitlines() == [
        "contracts/a.yaml:3:9: error SCHEMA-002 metadata.version is empty",
        '  3 | version: ""',
        "    |         ^",
        "contracts/b.yaml:1:1: warning SCHEMA-013 no qa_gate block",
        "  1 | metadata:",
        "    | ^",
        f"{LOOKED_AT}: 1 error, 1 warning. 1 of 2 contracts is not valid.",
    ]


@pytest.mark.parametrize(
    ("findings", "files", "options", "expected"),
    [
        ((), 1, {}, "1 contract, 3 falsifiers, 12 expectations: 0 errors, 0 warnings. Contract is valid."),
        ((), 2, {}, f"{LOOKED_AT}: 0 errors, 0 warnings. All 2 contracts are valid."),
        ((ERROR,), 1, {}, "1 contract, 3 falsifiers, 12 expectations: 1 error, 0 warnings. Contract is not valid."),
        ((ERROR, ERROR._replace(file="contracts/b.yaml")), 2, {}, f"{LOOKED_AT}: 2 errors, 0 warnings. 2 of 2 contracts are not valid."),
        ((WARNING,), 2, {}, f"{LOOKED_AT}: 0 errors, 1 warning. All 2 contracts are valid."),
        ((WARNING,), 2, {"strict": True}, f"{LOOKED_AT}: 0 errors, 1 warning. All 2 contracts are valid; warnings fail (strict)."),
        ((), 2, {"strict": True}, f"{LOOKED_AT}: 0 errors, 0 warnings. All 2 contracts are valid."),
        ((), 2, {"hidden": Hidden(0, 3)}, f"{LOOKED_AT}: 0 errors, 0 warnings (3 warnings ignored). All 2 contracts are valid."),
        ((), 2, {"hidden": Hidden(1, 0)}, f"{LOOKED_AT}: 0 errors, 0 warnings (1 error ignored). All 2 contracts are valid but for what is ignored."),
        ((ERROR,), 2, {"hidden": Hidden(1, 2)}, f"{LOOKED_AT}: 1 error, 0 warnings (1 error, 2 warnings ignored). 1 of 2 contracts is not valid."),
    ],
)  # fmt: skip
def test_the_last_line(findings: tuple[Finding, ...], files: int, options: dict[str, object], expected: str) -> None:
    """It says how much was looked at, and never calls valid what only a selection of rules did."""
    assert summary(validation(*findings, files=files), **options) == expected  # type: ignore[arg-type]


def test_quiet_is_findings_and_what_hides_them() -> None:
    """Nothing where there is nothing to say."""
    assert validation_text(validation(passed_over=("contracts/legacy",)), quiet=True) == ""
    assert validation_text(validation(), quiet=True, hidden=Hidden(1, 2)) == "1 error, 2 warnings ignored"
    assert len(validation_text(validation(ERROR), quiet=True).splitlines()) == 3


def test_files_that_were_passed_over_are_told_in_one_line() -> None:
    """Whoever reads "all valid" knows what was not looked at."""
    few = validation_text(validation(passed_over=("contracts/kaizen", "contracts/binding.yaml"))).splitlines()
    assert few[0] == "passed over, as no contracts: contracts/kaizen, contracts/binding.yaml"
    many = validation_text(validation(passed_over=tuple(f"c/{i}.yaml" for i in range(1007)))).splitlines()
    assert many[0] == "passed over, as no contracts: c/0.yaml, c/1.yaml, c/2.yaml, c/3.yaml, c/4.yaml and 1,002 more"
    assert len(many) == 2


def test_colour_only_where_asked() -> None:
    """The severity and the caret."""
    assert "\x1b" not in validation_text(validation(ERROR, WARNING))
    error, _, caret, warning, *_ = validation_text(validation(ERROR, WARNING), colour=True).splitlines()
    assert error == "contracts/a.yaml:3:9: \x1b[31m\x1b[1merror\x1b[0m SCHEMA-002 metadata.version is empty"
    assert caret == "    |         \x1b[31m\x1b[1m^\x1b[0m"
    assert "\x1b[33m\x1b[1mwarning\x1b[0m" in warning


def test_standard_input_has_a_name() -> None:
    """``<stdin>`` in every format."""
    result = validation(ERROR._replace(file="-"))._replace(files=("-",))
    assert validation_text(result).startswith("<stdin>:3:9: error SCHEMA-002 ")
    report = json.loads(validation_json(result, NOTHING_HIDDEN, 1))
    assert (report["files"], report["findings"][0]["file"]) == (["<stdin>"], "<stdin>")
    assert "file=<stdin>,line=3" in validation_github(result, NOTHING_HIDDEN)
    assert ET.fromstring(validation_junit(result, NOTHING_HIDDEN)).find(".//testcase[@name='<stdin>']") is not None  # noqa: S314


def test_json_is_one_documented_object() -> None:
    """Each finding with its place; denominators; what was passed over and what was ignored."""
    text = validation_json(validation(ERROR, passed_over=("contracts/legacy",)), Hidden(0, 4), 1)
    assert json.loads(text) == {
        "format_version": 1,
        "files": ["contracts/a.yaml", "contracts/b.yaml"],
        "passed_over": ["contracts/legacy"],
        "findings": [
            {"file": "contracts/a.yaml", "line": 3, "column": 9, "rule": "SCHEMA-002", "severity": "error", "message": "metadata.version is empty"}
        ],
        "counts": {"contracts": 2, "falsifiers": 3, "expectations": 12, "errors": 1, "warnings": 0},
        "ignored": {"errors": 0, "warnings": 4},
        "exit_code": 1,
    }  # fmt: skip


def test_junit_has_one_case_per_file() -> None:
    """Errors fail, warnings are told; with strict they fail, too."""
    plain = ET.fromstring(validation_junit(validation(ERROR, WARNING, files=3), NOTHING_HIDDEN))  # noqa: S314
    assert {key: plain.attrib[key] for key in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "1",
        "errors": "0",
    }
    a, b, c = plain.iter("testcase")
    failure = a.find("failure")
    assert failure is not None
    assert (failure.get("message"), failure.get("type")) == ("1 error, 0 warnings", "SCHEMA-002")
    assert failure.text == "contracts/a.yaml:3:9: error SCHEMA-002 metadata.version is empty"
    assert b.find("failure") is None
    assert b.findtext("system-out") == "contracts/b.yaml:1:1: warning SCHEMA-013 no qa_gate block"
    assert list(c) == []
    strict = ET.fromstring(validation_junit(validation(ERROR, WARNING), NOTHING_HIDDEN, strict=True))  # noqa: S314
    assert strict.get("failures") == "2"
    assert (strict.findtext("testsuite/system-out") or "").startswith(f"{LOOKED_AT}: 1 error, 1 warning.")


def test_github_commands() -> None:
    """One per finding, and the summary for the log."""
    assert validation_github(validation(ERROR, WARNING), NOTHING_HIDDEN).splitlines() == [
        "::error file=contracts/a.yaml,line=3,col=9,title=SCHEMA-002::metadata.version is empty",
        "::warning file=contracts/b.yaml,line=1,col=1,title=SCHEMA-013::no qa_gate block",
        f"{LOOKED_AT}: 1 error, 1 warning. 1 of 2 contracts is not valid.",
    ]


def test_github_files_are_named_from_the_top_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Annotations of a job that works in a subfolder find their file; a file elsewhere keeps its name."""
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    assert "file=sub/contracts/a.yaml," in validation_github(validation(ERROR), NOTHING_HIDDEN)
    elsewhere = validation(ERROR._replace(file="/elsewhere/a.yaml"))
    assert "file=/elsewhere/a.yaml," in validation_github(elsewhere, NOTHING_HIDDEN)


def test_a_hostile_file_drives_neither_terminal_nor_workflow_nor_xml() -> None:
    """No control character and no lone surrogate in any format, no further workflow command, and XML that parses."""
    result = validation(HOSTILE._replace(source="a\x1b[2J\udcff: b"), files=1)
    text = validation_text(result)
    github = validation_github(result, NOTHING_HIDDEN)
    junit = validation_junit(result, NOTHING_HIDDEN)
    machine = validation_json(result, NOTHING_HIDDEN, 1)
    for report in (text, github, junit, machine):
        assert all(line.isprintable() for line in report.split("\n"))
    assert len(text.splitlines()) == 4
    assert [line[:8] for line in github.splitlines()] == ["::error ", "1 contra"]
    assert "%0A%3A%3Aerror%3A%3A%2Cb%25.yaml,line=1" in github
    assert "::50%25 <&\"'> \\x1b[2J\\x00\\ufffe%0A::set-env" in github
    told = ET.fromstring(junit).findtext(".//failure") or ""  # noqa: S314
    assert "error YAML-001 50% <&\"'> \\x1b[2J\\x00\\ufffe\\x0a::set-env::x" in told
    assert json.loads(machine)["findings"][0]["message"] == HOSTILE.message

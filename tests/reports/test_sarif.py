"""SARIF: valid by the schema of the standard, and pointing at the right place."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from aprender.contracts.findings import Finding
from aprender.contracts.rulebook import rulebook
from aprender.reports.hidden import NOTHING_HIDDEN, Hidden
from aprender.reports.sarif import validation_sarif
from tests.reports.validations import ERROR, WARNING, validation

SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "sarif-2.1.0-rtm.5.json").read_text("utf-8"))
MERGE_KEY = Finding("contracts/b.yaml", 6, 5, "YAML-006", "warning", "a merge key (<<) hides what is stated here")
URIS = {
    "-": "%3Cstdin%3E", "a b.yaml": "a%20b.yaml", "ü/é.yaml": "%C3%BC/%C3%A9.yaml", "100%.yaml": "100%25.yaml",
    "a:b.yaml": "a%3Ab.yaml", "c#d?e.yaml": "c%23d%3Fe.yaml", "x\x1b\n.yaml": "x%1B%0A.yaml", "b\udcff.yaml": "b%FF.yaml",
    "../up.yaml": "file://{above}/up.yaml", "/elsewhere/x.yaml": "file:///elsewhere/x.yaml",
}  # fmt: skip


def sarif(*findings: Finding, hidden: Hidden = NOTHING_HIDDEN, **options: Any) -> dict[str, Any]:
    """The only run of the log, which is valid."""
    log = json.loads(validation_sarif(validation(*findings, **options), hidden, 1 if findings else 0))
    jsonschema.Draft4Validator(SCHEMA, format_checker=jsonschema.FormatChecker()).validate(log)
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    return run  # type: ignore[no-any-return]


def test_the_schema_rejects_what_is_no_sarif() -> None:
    """The test data is at work."""
    log = json.loads(validation_sarif(validation(ERROR), NOTHING_HIDDEN, 1))
    log["runs"][0]["results"][0]["level"] = "fatal"
    assert not jsonschema.Draft4Validator(SCHEMA).is_valid(log)


def test_a_result_points_at_its_line_and_its_rule() -> None:
    """Columns count code points; levels are the severities."""
    run = sarif(MERGE_KEY)
    assert run["columnKind"] == "unicodeCodePoints"
    (result,) = run["results"]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "YAML-006"
    assert (result["level"], result["message"]["text"]) == ("warning", MERGE_KEY.message)
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "contracts/b.yaml"
    assert place["region"] == {"startLine": 6, "startColumn": 5}


def test_every_rule_is_described_with_help_from_the_rulebook() -> None:
    """Also those that nothing broke: a reader sees what was looked for."""
    run = sarif()
    rules = {rule["id"]: rule for rule in run["tool"]["driver"]["rules"]}
    assert list(rules) == list(rulebook())
    rule, book = rules["YAML-006"], rulebook()["YAML-006"]
    assert rule["shortDescription"]["text"] == book.title
    assert rule["defaultConfiguration"] == {"level": "warning"}
    (wrong,), (right,) = book.wrong.values(), book.right.values()
    assert rule["help"]["markdown"] == f"{book.why}\n\nWrong:\n\n```yaml\n{wrong}```\n\nRight:\n\n```yaml\n{right}```\n"
    assert rule["help"]["text"] == f"{book.why}\n\nWrong:\n{wrong}\nRight:\n{right}"


def test_rules_of_plugins_are_listed_too() -> None:
    """The rulebook doesn't know them."""
    run = sarif(ERROR._replace(rule="OWNER-001"), WARNING._replace(rule="OWNER-002"))
    rules = run["tool"]["driver"]["rules"]
    assert [rules[result["ruleIndex"]]["id"] for result in run["results"]] == ["OWNER-001", "OWNER-002"]


def test_the_run_says_what_was_looked_at_and_what_was_not() -> None:
    """Denominators, files, what was passed over, what was ignored, and the exit code."""
    run = sarif(ERROR, hidden=Hidden(2, 0), passed_over=("contracts/legacy",))
    assert [artifact["location"]["uri"] for artifact in run["artifacts"]] == ["contracts/a.yaml", "contracts/b.yaml"]
    assert run["invocations"] == [{"executionSuccessful": True, "exitCode": 1}]
    assert run["properties"] == {
        "counts": {"contracts": 2, "falsifiers": 3, "expectations": 12, "errors": 1, "warnings": 0},
        "ignored": {"errors": 2, "warnings": 0},
        "passedOver": ["contracts/legacy"],
    }


@pytest.mark.parametrize(("file", "uri"), URIS.items(), ids=ascii)
def test_names_become_uris(file: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Percent-encoded, relative inside of the working folder, absolute outside."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    above = os.fsdecode(os.path.realpath(tmp_path))
    (result,) = sarif(ERROR._replace(file=file))["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri.format(above=above)


def test_a_hostile_message_stays_text() -> None:
    """Escaped as everywhere: a viewer may print it to a terminal."""
    (result,) = sarif(ERROR._replace(message="a\x1b[2J\udcff"))["results"]
    assert result["message"]["text"] == "a\\x1b[2J\\udcff"

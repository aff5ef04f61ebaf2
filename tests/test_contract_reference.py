"""docs/contract-reference.md is what the schema and the rulebook say, and reads well."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from aprender.contracts.expression import parse

SCRIPT = Path(__file__).parents[1] / "scripts/contract_reference.py"
RULE = """\
- id: TEETH-001
  severity: error
  old_dialect: absent
  title: a ship-blocking falsifier is not executable
  why: >
    Nothing would run,
    and nothing would stop.
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module of its own, so that a test may point it elsewhere."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("contract_reference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_fresh() -> None:
    """Run ``python scripts/contract_reference.py`` where this fails."""
    result = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_stale_reference_is_refused_with_the_command_to_run(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing page is stale, a written one fresh, an edited one stale again; ``--check`` writes nothing."""
    page = tmp_path / "contract-reference.md"
    monkeypatch.setattr(script, "REFERENCE", page)
    assert script.main(["--check"]) == 1
    assert not page.exists()
    assert capsys.readouterr().err == (
        "contract-reference.md is out of date: the schema or the rulebook has changed. "
        "Run: python scripts/contract_reference.py\n"
    )
    assert script.main([]) == 0
    assert script.main(["--check"]) == 0
    page.write_text(page.read_text("utf-8") + "an edit by hand\n", "utf-8")
    assert script.main(["--check"]) == 1


def test_rules_are_printed_by_family(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One section per family, one heading per rule, the reason as one paragraph."""
    (tmp_path / "teeth.yaml").write_text(RULE, "utf-8")
    (tmp_path / "code.yaml").write_text(RULE.replace("TEETH", "CODE").replace("  old_dialect: absent\n", ""), "utf-8")
    monkeypatch.setattr(script, "RULEBOOK", tmp_path)
    rules = script.reference_text().split("## Rules\n")[1]
    assert rules.index("### Teeth: TEETH") < rules.index("### Code under contract: CODE")
    assert (
        "#### TEETH-001: a ship-blocking falsifier is not executable\n\n*Error; in the published dialect not checked.*"
        in rules
    )
    assert "*Error.* Nothing would run, and nothing would stop.\n" in rules


def test_a_rule_that_says_too_little_is_refused(script: ModuleType, tmp_path: Path) -> None:
    """The sentence names the file, the rule and the key."""
    (tmp_path / "teeth.yaml").write_text("- {id: TEETH-001, severity: error, title: t}\n", "utf-8")
    with pytest.raises(SystemExit, match=r"teeth\.yaml: rule TEETH-001 has no why"):
        script.rulebook(tmp_path)


def test_every_link_inside_the_page_leads_to_a_heading(script: ModuleType) -> None:
    """Anchors are the headings in lower case, without punctuation, with hyphens for blanks."""
    text = script.reference_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = [re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-")) for heading in headings]
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert len(links) > 30
    assert len(anchors) == len(set(anchors))
    assert links <= set(anchors)


def test_no_heading_is_taken_for_a_tag(script: ModuleType) -> None:
    """``<name>`` outside of code would vanish from the rendered page."""
    outside_code = re.sub(r"`[^`]*`", "", script.reference_text().replace("```", ""))
    assert not re.findall(r"<(?!!--)[a-z]+>", outside_code)


def test_the_expressions_of_the_page_are_expressions(script: ModuleType) -> None:
    """What the page shows is accepted by the parser."""
    examples = script.EXPRESSIONS.split("```")[1].strip().splitlines()
    assert len(examples) == 4
    for example in examples:
        parse(example)

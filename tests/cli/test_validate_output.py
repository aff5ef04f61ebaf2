"""``pv validate`` as a user meets it: what is printed where, and the exit code."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from aprender.cli import validate
from aprender.cli.console import exit_status

VALID = 'metadata: {version: "1.0.0", description: d, references: [a source], kind: pattern}\n'
WARNS = VALID + "common: &common {a: 1}\nx-more: {<<: *common}\n"  # an unknown key and a merge key
WRONG = VALID.replace("[a source]", "[]")
UNREADABLE = 'metadata: {version: "1.0.0\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository with an empty folder of contracts, which is the working folder."""
    for name in (".git", "contracts"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contract(folder: Path, text: str, name: str = "a.yaml") -> None:
    (folder / "contracts" / name).write_text(text, "utf-8")


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    validate.configure(parser)
    arguments = parser.parse_args(words)
    return exit_status(lambda: validate.run(arguments))


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_a_valid_contract(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line; ``.yml`` too; nothing where quiet."""
    contract(folder, VALID, "a.yml")
    assert run() == 0
    assert (
        capsys.readouterr().out
        == "1 contract, 0 falsifiers, 0 expectations: 0 errors, 0 warnings. Contract is valid.\n"
    )
    assert run("--quiet") == 0
    assert capsys.readouterr().out == ""


def test_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and no escape sequence where standard output is no terminal."""
    contract(folder, WRONG)
    assert run() == 1
    assert capsys.readouterr().out.splitlines() == [
        "contracts/a.yaml:1:58: error SCHEMA-001 metadata.references is empty: name a source",
        '  1 | metadata: {version: "1.0.0", description: d, references: [], kind: pattern}',
        "    |                                                          ^",
        "1 contract, 0 falsifiers, 0 expectations: 1 error, 0 warnings. Contract is not valid.",
    ]


def test_a_finding_across_files_has_its_source_line_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was made when no text was at hand."""
    contract(folder, VALID.replace("}", ", depends_on: [nowhere-v1]}"))
    run()
    head, line, caret, _ = capsys.readouterr().out.splitlines()
    assert " REF-005 " in head
    assert line.endswith("depends_on: [nowhere-v1]}")
    assert line.index("nowhere") == caret.index("^")


def test_warnings_fail_only_with_strict(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line or from pyproject.toml, and the command line wins."""
    contract(folder, WARNS)
    assert run() == 0
    assert last_line(capsys).endswith("0 errors, 2 warnings. Contract is valid.")
    assert run("--strict") == 1
    assert last_line(capsys).endswith("0 errors, 2 warnings. Contract is valid; warnings fail (strict).")
    (folder / "pyproject.toml").write_text("[tool.pv]\nstrict = true\n")
    assert run() == 1
    assert run("--no-strict") == 0


def test_select_and_ignore(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is left out is counted; lists with commas, repeated options, any case."""
    contract(folder, WARNS)
    assert run("--select", "yaml-006", "--strict") == 1
    assert last_line(capsys).endswith(
        "0 errors, 1 warning (1 warning ignored). Contract is valid; warnings fail (strict)."
    )
    assert run("--select", "BIND,YAML", "--ignore", "YAML-00", "--strict") == 0
    assert last_line(capsys).endswith("0 errors, 0 warnings (2 warnings ignored). Contract is valid.")
    assert run("--select", "BIND", "--select", "STATUS", "--quiet") == 0
    assert capsys.readouterr().out == "2 warnings ignored\n"


def test_what_can_not_be_read_is_told_whatever_is_selected(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The selected rules saw nothing; ignoring names what it hides, and is told."""
    contract(folder, UNREADABLE)
    assert run("--select", "BIND") == 1
    assert " YAML-001 " in capsys.readouterr().out
    assert run("--ignore", "YAML-001") == 0
    assert last_line(capsys).endswith(
        "0 errors, 0 warnings (1 error ignored). Contract is valid but for what is ignored."
    )


def test_the_command_line_beats_pyproject(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths are replaced; a selection of rules replaces both lists, so that what is selected is seen."""
    (folder / "more").mkdir()
    (folder / "more" / "b.yaml").write_text(WARNS)
    contract(folder, VALID)
    (folder / "pyproject.toml").write_text('[tool.pv]\npaths = ["more"]\nignore = ["YAML-006"]\n')
    assert run("--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["files"], report["ignored"]) == (["more/b.yaml"], {"errors": 0, "warnings": 1})
    assert run("contracts") == 0
    assert last_line(capsys).endswith("0 errors, 0 warnings. Contract is valid.")
    assert run("--select", "YAML-006", "--strict") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--select", "YAML-060"], "pv: error: --select YAML-060: no rule or family 'YAML-060'. Did you mean 'YAML-006'? Families: "),
        (["--ignore", "YAML,BINDS"], "pv: error: --ignore BINDS: no rule or family 'BINDS'. Did you mean 'BIND'? Families: "),
        ([], "pv: contracts: no contract found (looked for *.yaml and *.yml); is this the right folder?"),
        (["nowhere"], "pv: nowhere: no such file or folder; name a contract or a folder of contracts"),
    ],
)  # fmt: skip
def test_nothing_to_do_is_exit_code_2(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rule that doesn't exist, an empty folder, a folder that isn't there."""
    assert run(*words) == 2
    done = capsys.readouterr()
    assert done.out == ""
    assert done.err.startswith(message)


def test_a_wrong_table_in_pyproject_is_exit_code_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With file and line."""
    contract(folder, VALID)
    (folder / "pyproject.toml").write_text("[tool.pv]\nstrickt = true\n")
    assert run() == 2
    assert capsys.readouterr().err.startswith(
        "pv: error: pyproject.toml:2: [tool.pv] has no key 'strickt'. Did you mean"
    )


def test_standard_input(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """``-``, shown as ``<stdin>``."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(WRONG.encode())))
    assert run("-") == 1
    first, line, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("<stdin>:1:58: error SCHEMA-001 ")
    assert line.startswith("  1 | metadata: ")


@pytest.mark.parametrize("form", ["json", "sarif", "junit", "github"])
def test_every_format_goes_with_the_same_exit_code(form: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The format says nothing about the verdict."""
    contract(folder, WRONG)
    assert run("--format", form) == 1
    assert "SCHEMA-001" in capsys.readouterr().out
    contract(folder, VALID)
    assert run("--format", form) == 0


def test_what_the_encoding_can_not_hold_is_escaped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output in ASCII is no reason to crash."""
    contract(folder, VALID.replace("d,", "中 café,").replace("[a source]", "[]"))
    out: Any = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert run() == 1
    assert rb"description: \u4e2d caf\xe9, references: []" in out.buffer.getvalue()

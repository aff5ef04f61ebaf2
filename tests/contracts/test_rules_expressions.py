"""The rules for expectations and guards: each with its exact place and sentence, and a near neighbour without it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from aprender.contracts.check import check_content
from tests.toy_project import CONTRACT

ROOT = Path(__file__).parents[2]
EXPECT, GUARD = "- abs(reading - room) < 0.1\n", "- samples >= 2\n"
KNOWN = "names, numbers, + - * / **, ln log2 sqrt abs min max"


def said_of(text: str) -> list[str]:
    found = check_content(text.encode(), "contract.yaml").findings
    expected = ("EXPR-001", "EXPR-002", "EXPR-003")
    return [f"{f.line}:{f.column}: {f.rule} {f.severity}: {f.message}" for f in found if f.rule in expected]


def with_expectation(text: str) -> str:
    assert EXPECT in CONTRACT
    return CONTRACT.replace(EXPECT, f"- {text}\n", 1)


def with_guards(*texts: str) -> str:
    assert GUARD in CONTRACT
    return CONTRACT.replace(GUARD, "".join(f"- {text}\n      " for text in texts).rstrip(" "), 1)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("reading < 1 or room < 1", "22:21: EXPR-001 error: 'or' is not part of the language: there is no 'or'"),
        ("reading < 1 and room < 1", "22:21: EXPR-001 error: 'and' is not part of the language: write one list entry per comparison"),
        ("not reading < 1", "22:9: EXPR-001 error: 'not' is not part of the language: write the opposite comparison"),
        ("0 < reading < 1", "22:21: EXPR-001 error: exactly one of < <= > >= == != is allowed; split it into several entries"),
        ("reading in room", "22:17: EXPR-001 error: exactly one of < <= > >= == != is allowed; split it into several entries"),
        ("reading + 1", "22:9: EXPR-001 error: not a comparison; write e.g. 'val_loss < 4.8'"),
        ("reading = 1", "22:17: EXPR-001 error: not an expression: '=' is not part of the language; write =="),
        ("reading ≤ 1", "22:17: EXPR-001 error: not an expression: '≤' is not part of the language; write <="),
        ("reading < 1 && room < 1", "22:21: EXPR-001 error: not an expression: '&&' is not part of the language; write one list entry per comparison"),
        ("reading.x < 1", f"22:9: EXPR-001 error: 'reading.x' is not part of the language ({KNOWN})"),
        ("1 > reading[0]", f"22:13: EXPR-001 error: 'reading[0]' is not part of the language ({KNOWN})"),
        ("1 > reading ^ 2", f"22:13: EXPR-001 error: 'reading ^ 2' is not part of the language ({KNOWN}; a power is written **)"),
        ("reading < log(room)", "22:19: EXPR-001 error: unknown function 'log'. Did you mean 'log2'?"),
        ("reading < ln(1, 2)", "22:19: EXPR-001 error: ln takes 1 argument(s), not 2"),
        ("reading < (lambda 1)", "22:27: EXPR-001 error: not an expression"),
        ("reading < 1e999", "22:19: EXPR-001 error: a number out of range"),
        ("größe < log(room)", "22:17: EXPR-001 error: unknown function 'log'. Did you mean 'log2'?"),
        ("'reading < log(room)'", "22:20: EXPR-001 error: unknown function 'log'. Did you mean 'log2'?"),
        ('" reading < log(room)"', "22:21: EXPR-001 error: unknown function 'log'. Did you mean 'log2'?"),
        ("&bound reading < log(room)", "22:26: EXPR-001 error: unknown function 'log'. Did you mean 'log2'?"),
        (r'"reading \u003c log(room)"', "22:9: EXPR-001 error: unknown function 'log'. Did you mean 'log2'? (character 11 of the expression)"),
        ("reading <\n        log(room)", "22:9: EXPR-001 error: unknown function 'log'. Did you mean 'log2'? (character 11 of the expression)"),
        (f"reading < {'-' * 70}1", "22:83: EXPR-001 error: nested more than 64 levels deep"),
        (f"reading < {'1 + ' * 130}1", "22:509: EXPR-001 error: 531 characters; an expression has at most 500"),
    ],
)  # fmt: skip
def test_what_is_not_one_comparison(written: str, expected: str) -> None:
    """The place is that of the fault inside of the expression, where the file has it as it reads."""
    assert said_of(with_expectation(written)) == [expected]


@pytest.mark.parametrize(
    "written",
    ["reading < 1", "'reading < log2(room)'", "größe < ln(room)", f"reading < {'-' * 60}1", "min(reading, 2 ** 2.5) != +3"],
)  # fmt: skip
def test_what_is_one_comparison(written: str) -> None:
    """All that the language has, as deep as it may be."""
    assert said_of(with_expectation(written)) == []


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1 < 2", "compares constants: no observation can change the outcome"),
        ("room + 1 == 1 + room", "compares 'room + 1' with itself: no observation can change the outcome"),
        ("reading - reading < 0.1", "the names cancel out: no observation can change the outcome"),
        ("abs(reading - room) >= 0", "holds of every observation: nothing can violate it"),
        ("abs(reading - room) < 0", "holds of no observation: nothing can satisfy it"),
        ("samples > 1", "holds of every observation that passes the guards: nothing can violate it"),
        ("reading < nan", "'nan' is no number here: a bound is finite"),
        ("reading < 1 / 0", "'1 / 0' never has a finite value: the verdict would be ERROR whatever is observed"),
    ],
)
def test_what_is_foregone(written: str, expected: str) -> None:
    """Found when the contract is checked, without any system."""
    assert said_of(with_expectation(written)) == [f"22:9: EXPR-002 error: {expected}"]


@pytest.mark.parametrize("written", ["reading - room < 0.1", "abs(reading - room) > 0", "samples > 2", "reading >= 0"])
def test_what_is_not_foregone(written: str) -> None:
    """One step away from each of these."""
    assert said_of(with_expectation(written)) == []


IDLE = "holds when nothing was measured: ask for at least one (>= 1), or for more than zero"
ALL_IDLE = "every guard holds when nothing was measured (all names zero): add one that does not, such as n >= 1"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["samples >= 0"], [f"24:9: EXPR-003 error: 'samples >= 0' {IDLE}"]),
        (["samples >= 2", "room > -1"], [f"25:9: EXPR-003 error: 'room > -1' {IDLE}"]),
        (["samples < 100"], [f"23:5: EXPR-003 error: {ALL_IDLE}"]),
        (["samples >= room", "room < 50"], [f"23:5: EXPR-003 error: {ALL_IDLE}"]),
        (["samples < 100", "room >= 0"], [f"23:5: EXPR-003 error: {ALL_IDLE}", f"25:9: EXPR-003 error: 'room >= 0' {IDLE}"]),
        (["samples >= 2", "samples < 1"], ["25:9: EXPR-002 error: no observation passes this and 'samples >= 2': the verdict would always be ERROR"]),
        (["abs(samples) >= 0"], ["24:9: EXPR-002 error: holds of every observation: nothing can violate it"]),
        (["samples >"], ["24:18: EXPR-001 error: not an expression: something is missing at its end"]),
    ],
)  # fmt: skip
def test_guards_that_nothing_measured_passes(written: list[str], expected: list[str]) -> None:
    """Zero things measured is ERROR: the guards are what says so."""
    assert said_of(with_guards(*written)) == expected


@pytest.mark.parametrize(
    "written",
    [
        ["samples >= 1"],
        ["samples < 100", "room > 0"],
        ["room >= -273.15", "samples != 0"],
        ["samples >= 2", "samples < 3"],
    ],
)
def test_guards_that_do_their_work(written: list[str]) -> None:
    """One that rejects zeros is enough, and others may say other things."""
    assert said_of(with_guards(*written)) == []


HOSTILE = [
    "max(" * 60 + "a" + ",b)" * 60 + " >= b",
    "(" * 60 + "x" + "*x)" * 60 + " >= 0",
    "min(a,b)*c+d*e/f <= max(a,b)*c+d*e/f+abs(a)",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_file_takes_bounded_time(hostile: str) -> None:
    """However many expressions that are hard to prove: it is refused, or little is tried."""
    started = time.process_time()
    said_of(with_expectation("\n      - ".join([f"'{hostile}'"] * (49_000 // len(hostile)))))
    assert time.process_time() - started < 5


def test_more_expressions_than_a_contract_needs_are_refused() -> None:
    """At the falsifier that is too much; what comes before it is checked."""
    many = with_expectation("\n      - ".join(["reading < 1"] * 5000))
    assert said_of(many) == [
        "13:5: EXPR-001 error: more than 50,000 characters of expressions in one file; no contract needs so many"
    ]


def test_the_old_dialect_has_no_expressions() -> None:
    """There the same words are prose that nothing runs."""
    assert said_of(with_expectation("1 < 2").replace("schema_version: 2\n", "")) == []


def test_the_contract_of_this_repository_has_none_of_them() -> None:
    """Its evidence binds to its words, so they must stay as they are."""
    path = ROOT / "contracts" / "apr-pretrain-cuda-forward-parity-v1.yaml"
    assert said_of(path.read_text("utf-8")) == []


def test_only_a_contract_with_expressions_pays_for_them() -> None:
    """Start-up is part of the interface: the rules import neither the language nor chance nor the module ast."""
    code = "import aprender.contracts.rules.expressions, sys; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "'aprender.contracts.rules.expressions'" in loaded
    for name in ("aprender.contracts.expression", "aprender.contracts.judge_controls", "ast", "random", "dataclasses"):
        assert f"'{name}'" not in loaded


def test_an_expression_brings_no_heavy_modules() -> None:
    """A whole version 2 contract is checked without ast, dataclasses and random."""
    path = ROOT / "contracts" / "apr-pretrain-cuda-forward-parity-v1.yaml"
    code = f"from aprender.contracts.judge_controls import foregone; from aprender.contracts.expression import parse; import sys; foregone(parse('a < b')); print(sorted(sys.modules)); {str(path)!r}"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "'aprender.contracts.judge_controls'" in loaded
    for name in ("ast", "random", "dataclasses", "inspect", "fractions"):
        assert f"'{name}'" not in loaded


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("reading < 1", "reading > 2", "23:9: EXPR-002 error: no observation passes this and 'reading < 1': the verdict would never be GREEN"),
        ("reading == 1", "reading == 2", "23:9: EXPR-002 error: no observation passes this and 'reading == 1': the verdict would never be GREEN"),
        ("reading < room", "reading > room", "23:9: EXPR-002 error: no observation passes this and 'reading < room': the verdict would never be GREEN"),
        ("reading < room", "room >= reading", None),
        ("reading < room", "room > reading", "23:9: EXPR-002 error: says the same as 'reading < room' at 22:9: was something else meant?"),
        ("reading >= 1", "reading <= 1", None),
        ("reading < 2", "reading > 1", None),
    ],
)  # fmt: skip
def test_expectations_beside_each_other(first: str, second: str, expected: str | None) -> None:
    """They must not exclude each other, and none is said twice."""
    said = said_of(with_expectation(f"{first}\n      - {second}"))
    assert said == ([] if expected is None else [expected])

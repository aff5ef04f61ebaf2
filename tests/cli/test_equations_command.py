# ruff: noqa: RUF001 - formulas are written with the characters that they are written with
"""``pv equations``: text, LaTeX and JSON of one contract."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from aprender.cli.pv import main
from tests.linked_contracts import IN_A_CIRCLE, SCALE, SENSOR, write

TEXT = """\
scale-v1: 2 equations

gain  contracts/scale-v1.yaml:4:3
  formula         y_i = α * x_i
  domain          x ∈ ℝ^n, n ≥ 1
  codomain        y ∈ ℝ^n
  invariants      all are finite & real
                  |y| >= 0
  preconditions   x != 0
  postconditions  y != 0

offset  contracts/scale-v1.yaml:12:3
  formula         b
                    = 2 {units}
"""
LATEX = r"""\documentclass{article}
\usepackage{amsmath,amssymb}
\begin{document}
\raggedright\frenchspacing
\section*{scale-v1}
\subsection*{gain}
\begin{description}
\item[formula] $\displaystyle y_{i} = \alpha \cdot x_{i}$
\item[domain] $\displaystyle x \in \mathbb{R}^{n} , n \ge 1$
\item[codomain] $\displaystyle y \in \mathbb{R}^{n}$
\item[invariant] \texttt{all are finite \& real}
\item[invariant] $\displaystyle | y | \ge 0$
\item[precondition] $\displaystyle x \ne 0$
\item[postcondition] $\displaystyle y \ne 0$
\end{description}
\subsection*{offset}
\begin{description}
\item[formula] \texttt{b}\newline
\texttt{\mbox{}~ = 2 \{units\}}
\end{description}
\end{document}
"""
SCALE_WITH_PROSE = SCALE.replace("{units}", "{units of it}")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with contracts in ``contracts``."""
    monkeypatch.chdir(write(tmp_path, {"scale-v1": SCALE, "sensor-v1": SENSOR, **IN_A_CIRCLE}))
    return tmp_path


@pytest.fixture
def pv(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run ``pv equations`` in this process; returns the exit code, standard output and standard error."""

    def run(*words: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["equations", *words])
        return end.value.code, *capsys.readouterr()

    return run


def test_the_equations_as_text(pv: Any) -> None:
    """Every field that is there, formulas with their lines."""
    assert pv("contracts/scale-v1.yaml") == (0, TEXT, "")


def test_the_equations_as_latex(folder: Path, pv: Any) -> None:
    """Mathematics where it surely is, verbatim with its lines and blanks elsewhere."""
    write(folder, {"scale-v1": SCALE_WITH_PROSE})
    expected = LATEX.replace(r"\{units\}", r"\{units of it\}")
    assert pv("contracts/scale-v1.yaml", "--format", "latex") == (0, expected, "")


def test_the_equations_as_json(pv: Any) -> None:
    """Every field, also those that are empty."""
    code, out, err = pv("contracts/scale-v1.yaml", "--json")
    assert (code, out, err) == pv("contracts/scale-v1.yaml", "--format", "json")
    report = json.loads(out)
    assert (report["format_version"], report["file"], report["exit_code"]) == (1, "contracts/scale-v1.yaml", 0)
    assert report["equations"][1] == {
        "name": "offset", "line": 12, "column": 3, "formula": "b\n  = 2 {units}", "domain": "", "codomain": "",
        "invariants": [], "preconditions": [], "postconditions": [],
    }  # fmt: skip


def test_equations_in_a_list_go_by_their_id(pv: Any) -> None:
    """As the old dialect writes them since May."""
    names = [equation["name"] for equation in json.loads(pv("contracts/sensor-v1.yaml", "--json")[1])["equations"]]
    assert names == ["reading", "drift_rate", "noise"]


def test_a_contract_on_standard_input(pv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called ``<stdin>``."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SENSOR.encode())))
    code, out, err = pv("-")
    assert (code, err) == (0, "")
    assert out.splitlines()[:4] == ["<stdin>: 3 equations", "", "reading  <stdin>:3:5", "  formula         r"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("contracts/a-v1.yaml", "pv: contracts/a-v1.yaml states no equation\n"),
        ("contracts", "pv: contracts is a folder; name one contract\n"),
        ("nowhere.yaml", "pv: nowhere.yaml: no such file or folder; name a contract or a folder of contracts\n"),
    ],
)
def test_nothing_to_do(file: str, message: str, pv: Any) -> None:
    """Exit code 2, one sentence."""
    assert pv(file) == (2, "", message)


def test_a_contract_with_errors_is_said_and_printed(folder: Path, pv: Any) -> None:
    """Exit code 1; what can be read is printed all the same."""
    write(folder, {"scale-v1": SCALE.replace("domain: x", "domian: x")})
    code, out, err = pv("contracts/scale-v1.yaml")
    assert code == 1
    assert err.startswith("pv: contracts/scale-v1.yaml:6:5: error SCHEMA-024 unknown key 'domian'")
    assert len(err.splitlines()) == 1
    assert "  codomain        y ∈ ℝ^n\n" in out


def test_a_contract_that_can_not_be_read_prints_nothing(folder: Path, pv: Any) -> None:
    """Only the error."""
    write(folder, {"scale-v1": "equations: {\n"})
    code, out, err = pv("contracts/scale-v1.yaml", "--format", "latex")
    assert (code, out) == (1, "")
    assert "error YAML-001" in err

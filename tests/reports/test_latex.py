# ruff: noqa: RUF001 - formulas are written with the characters that they are written with
"""Formulas as LaTeX: what is surely mathematics is translated, everything else is shown as it is, and all compiles."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aprender.contracts.documents import read_documents
from aprender.contracts.equations import Equation, equations_of
from aprender.reports.colour import plain
from aprender.reports.equations_latex import equations_latex
from aprender.reports.equations_text import equations_text
from aprender.reports.latex import latex_text, latex_verbatim
from aprender.reports.latex_math import latex_formula
from aprender.reports.latex_symbols import (
    CLOSING,
    DIGRAPHS,
    FUNCTIONS,
    LETTERS,
    OPENING,
    OPERANDS,
    OPERATORS,
    PREFIXES,
    SINGLES,
    SUBSCRIPTS,
    SUPERSCRIPTS,
)
from tests.linked_contracts import strange

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
PDFLATEX = shutil.which("pdflatex")

TRANSLATED = [
    ("softmax(x)_i = exp(x_i - max(x)) / sum_j(exp(x_j - max(x)))",
     r"\operatorname{softmax} ( x )_{i} = \exp ( x_{i} - \max ( x ) ) / \sum_{j} ( \exp ( x_{j} - \max ( x ) ) )"),
    ("DCG@k = sum_{i=1}^{k} rel_i / log2(i+1)", r"\mathit{DCG} @ k = \sum_{i = 1}^{k} \mathit{rel}_{i} / \log_{2} ( i + 1 )"),
    ("σ²_w <= 1 -> α ≠ β", r"\sigma_{w}^{2} \le 1 \to \alpha \ne \beta"),
    ("|score_ij| <= √d_k", r"| \mathit{score}_{ij} | \le \sqrt{d_{k}}"),
    ("RMS(x) = √(Σ_i x_i² / n + ε)", r"\operatorname{RMS} ( x ) = \sqrt{\sum_{i} x_{i}^{2} / n + \epsilon}"),
    ("sqrt(1 + d_avg)", r"\sqrt{1 + d_{\mathrm{avg}}}"),
    ("f(x*_{t+1}) <= f(x*_t)", r"f ( x_{t + 1}^{*} ) \le f ( x_{t}^{*} )"),
    ("y = a*b ** 2", r"y = a \cdot b^{2}"),
    ("y = a*b^-2", r"y = a \cdot b^{-2}"),
    ("beta^{(k+1)} = (X^T W^{(k)} X)^{-1}", r"\beta^{( k + 1 )} = ( X^{T} W^{( k )} X )^{- 1}"),
    ("steps = floor(n / batch_size)", r"\mathit{steps} = \lfloor n / \mathit{batch\_size} \rfloor"),
    ("lr(t) = 0.5 * (1 + cos(pi * t)) for t in [0, T)",
     r"\operatorname{lr} ( t ) = 0.5 \cdot ( 1 + \cos ( \pi \cdot t ) ) \text{ for } t \in [ 0 , T )"),
    ("w ∈ ℝ^{n×d}, ||w||_2 > 0", r"w \in \mathbb{R}^{n \times d} , \| w \|_{2} > 0"),
    ("lr = 3e-4", r"\mathit{lr} = 3\mathrm{e}{-4}"),
    ("ŷᵢ = x̂_t", r"\hat{y}_{i} = \hat{x}_{t}"),
    ("S = {i : x_i > 0}", r"S = \{ i : x_{i} > 0 \}"),
    ("y' = theta'", r"y^{\prime} = \theta^{\prime}"),
    ("P(A | B) = p", r"P ( A \mid B ) = p"),
    ("i % 2 == 0", r"i \bmod 2 = 0"),
    ("x >= 15% ", r"x \ge 15 \%"),
    ("forall i: ∃ j", r"\forall i : \exists j"),
    ("y = M @ x.", r"y = M \mathbin{@} x ."),
    ("Σ^{-1} Σ x", r"\Sigma^{- 1} \Sigma x"),
    ("x in S and y in {1}", r"x \text{ in } S \text{ and } y \in \{ 1 \}"),
]  # fmt: skip
VERBATIM = [
    "", "the output is finite", "Output sums to 1", "linear in n", "tokens, positions", "two-loop recursion of H",
    "x = 1 # a comment", 'read("file")', r"\frac{1}{2}", "a <- b", "x << 2", "a // b", "x++", "std::max(a)", "0x3F",
    "y = x. Same for z", "it's 1", "x^2^3", "x^2²", "x_i_{j}", "x_{i", "x_{i) + y", "x}", "sqrt x", "√2π", "x ^", "^2", "_i", "{}",
    "a ~= b", "**x**", "24 bytes", "log of x is y", "x ! y", "5 ?", "漢字 = 1", "x\u0338", "a — b", "x^n_i", "f(x) denotes y",
    "x" * 501 + " = 1", "{" * 30 + "x" + "}" * 30,
]  # fmt: skip


@pytest.mark.parametrize(("text", "latex"), TRANSLATED)
def test_what_is_surely_mathematics_is_translated(text: str, latex: str) -> None:
    """In the order in which it is written."""
    assert latex_formula(text) == latex


@pytest.mark.parametrize("text", VERBATIM)
def test_what_could_be_anything_else_is_not(text: str) -> None:
    """Prose, programs, LaTeX itself, and what means two things."""
    assert latex_formula(text) is None


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        (r"\a{b}$&#%_^~", r"\textbackslash{}a\{b\}\$\&\#\%\_\textasciicircum{}\textasciitilde{}"),
        ("<>|`", r"\textless{}\textgreater{}\textbar{}\`{}"),
        ("--- ''", "-{}-{}- '{}'"),
        ("é x̂ β̂ ≤ ²", r"\'{e} \^{x} \ensuremath{\hat{\beta}} \ensuremath{\le} \ensuremath{^{2}}"),
        ("漢\x1b\n", r"\textbackslash{}u6f22\textbackslash{}x1b\textbackslash{}x0a"),
    ],
)
def test_text_shows_the_same_characters(text: str, latex: str) -> None:
    """What LaTeX has no command for is shown by its code."""
    assert latex_text(text) == latex


def test_verbatim_keeps_lines_and_blanks() -> None:
    """Blanks in a row, at the start of a line too; a tab is four."""
    assert latex_verbatim("a b\n\n   c  d\n\te").split("\\newline\n") == [
        r"\texttt{a b}", r"\texttt{}", r"\texttt{\mbox{}~~ c~ d}", r"\texttt{\mbox{}~ ~ e}",
    ]  # fmt: skip


def is_well_formed(latex: str) -> None:
    """ASCII, braces and dollars in pairs, scripts only in mathematics, nothing that eats the rest of a line."""
    assert latex.isascii()
    assert latex.replace("\n", "").isprintable()
    bare = re.sub(r"\\[{}$&#%_\\^~`'\".=]", "", latex)
    assert not re.search("[#%&^_]", re.sub(r"\$[^$]*\$|\\ensuremath\{.*?\}+", "", bare))
    assert bare.count("$") % 2 == 0
    depth = 0
    for brace in re.findall("[{}]", bare):
        depth += 1 if brace == "{" else -1
        assert depth >= 0, latex
    assert depth == 0, latex


def compiles(latex: str, folder: Path) -> None:
    (folder / "x.tex").write_text(latex, "ascii")
    command = [str(PDFLATEX), "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "x.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:].decode("utf-8", "replace")


PIECES = [
    *OPERANDS, *PREFIXES, *OPERATORS, *OPENING, *CLOSING, *DIGRAPHS, *SINGLES, *SUPERSCRIPTS, *SUBSCRIPTS, *LETTERS, *FUNCTIONS,
    "x", "W_q", "batch_size", "sum_i", "sqrt(", "√", "floor(", "_", "^", "{", "}", "|", "*", "'", "%", ".", "!", "in", "for", "mod",
    "1", "2.5", "1e-3", " ", " ", " ", "ŷ", "x\u0302", "\u0302", "°",
]  # fmt: skip
FORMULAS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def one_equation(text: str) -> Equation:
    return Equation(text, 1, 1, text, text, text, (text,), (text,), (text,))


@given(FORMULAS | st.text())
def test_any_text_gives_well_formed_latex(text: str) -> None:
    """Translated or verbatim."""
    is_well_formed(equations_latex("x.yaml", [one_equation(text)]))


@given(st.integers(0, 2**32))
def test_the_equations_of_any_contract_can_be_printed(seed: int) -> None:
    """Also of a damaged one."""
    for document in strange(seed).documents:
        equations = equations_of(document)
        assert plain(equations_text(document.file, equations)).replace("\n", "").isprintable()
        is_well_formed(equations_latex(document.file, equations))


@pytest.mark.skipif(PDFLATEX is None, reason="LaTeX is not installed")
def test_every_symbol_and_every_refusal_compiles(tmp_path: Path) -> None:
    """All tables in mathematics and in text, and what these tests translate and refuse, in one document."""
    texts = [text for text, _ in TRANSLATED] + VERBATIM + ["\\item[x] \\end{document}", "[a] b", "?`!`,,<<", "\ud800"]
    texts += [f"x = {piece}" for piece in PIECES] + [f"x = y{piece}z" for piece in PIECES]
    compiles(equations_latex("x.yaml", [one_equation(text) for text in texts]), tmp_path)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="../shared/corpus is not on this machine")
def test_the_equations_of_real_contracts(tmp_path: Path) -> None:
    """Well-formed each, compiled together; a third of all formulas is translated."""
    found = [equation for document in read_documents([CORPUS]).documents for equation in equations_of(document)]
    latex = equations_latex("corpus.yaml", found)
    assert len(found) > 500
    assert latex.count("\\item[formula] $") > len(found) / 3
    for equation in found:
        is_well_formed(equations_latex("x.yaml", [equation]))
    if PDFLATEX:
        compiles(latex, tmp_path)

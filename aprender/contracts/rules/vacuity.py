"""Vacuity: falsifiers that can't fail, or measure nothing. Warnings in both dialects, so each must be worth reading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.files import stem
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import Rule, items, key_of, name_of

_MEANINGLESS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "every",
        "each",
        "for",
        "from",
        "in",
        "is",
        "it",
        "its",
        "must",
        "not",
        "of",
        "on",
        "or",
        "shall",
        "should",
        "that",
        "the",
        "this",
        "to",
        "will",
        "with",
    ]
)
_MIN_WORDS = 3  # of a sentence that can be said to restate another
_SHORT = 60  # characters: what is longer says more than "the test passes"
_GOES_WELL = "pass", "passes", "passed", "hold", "holds", "succeed", "succeeds"
_READERS = ("pv validate", "pv lint", "yamllint ", "check-jsonschema ")
_MEASURED = frozenset("0123456789<>=≤≥")  # a prediction with one of these says what value to expect
_LOOKED_AT, _LENGTH = 1000, 500  # tests per file and characters of each: more is no one-line command
_SEARCHES = ("grep ", "egrep ", "fgrep ", "rg ", "ag ", "git grep ")
_IDLE = "true", ":", "exit", "echo ", "printf ", "test -", "[ -", "cat "
_COMMANDS = _READERS + _SEARCHES + _IDLE
_SUSPICIOUS = "(", "=", "<", ">", "||", "--co"  # without one of these, and no such command, a test is prose
_COMPARES = "cosine", "allclose", "isclose", "assert_close", "assert_eq", "array_equal", "max_abs_diff"
_COMPARISON = "cosine|cosine_similarity|(?:assert_)?allclose|isclose|assert_close|assert_eq!?|array_equal|max_abs_diff"
_NUMBER = r"[-+]?[0-9][0-9_.]*(?:[eE][-+]?[0-9]+)?"
_ENDS_A_NUMBER = frozenset("0123456789_.")
_ARGUMENT = rf"(?:\w+\s*=\s*)?{_NUMBER}"
_SUM = rf"{_NUMBER}(?:\s*[-+*/%]\s*{_NUMBER})*"
_ECHO = r"""(?:echo|printf)\s+(?:"[^"`$]*"|'[^']*'|[^\s"'`$|;&<>]+)"""  # one word or quoted: more may be prose
_SOURCES = "rs|py|pyi|c|cc|cpp|cu|cuh|h|hpp|go|js|ts|java|lean|sh|toml|ya?ml|md"
_TWICE_ON_PURPOSE = "determin", "reproduc", "repeat", "idempot", "seed", "twice"  # a thing may well differ from itself
_HELPERS = "verdict", "threshold", "within_tolerance", "is_within", "passes"


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """Compiled when it is first needed: most contracts need none."""
    return re.compile(
        {
            "word": r"\w+",
            "passes": r"(?:(?:the|this|all|every|each) )*(?:(?:tests?|rules?|checks?|falsifiers?|contracts?|it) )?"
            rf"(?:(?:must|should|will|shall) )?(?:{'|'.join(_GOES_WELL)})[.!]?",
            "idle": rf"(?:/bin/)?true|:|exit(?: 0)?|{_ECHO}",
            "forgiven": rf"\|\|\s*(?:(?:/bin/)?true|:|exit 0|{_ECHO})\s*\Z",
            "collects": r"\bpytest\b[^;&|]*\s--(?:collect-only|co)(?![\w-])",
            "is there": r"(?:test|\[) -[efrs] \S+(?: \])?",
            "source": rf"\.(?:{_SOURCES})(?![\w.])",
            "cat to grep": r"cat [^|;&<>]+\|\s*(?:e|f)?grep\b[^|;&]*",
            "output": r"\.(?:log|out|err|stdout|stderr)(?![\w.])",
            "constants": rf"(?:[A-Za-z]+:\s*|assert\s+)?{_SUM}\s*(?:==|<=?|>=?|!=)\s*{_SUM}",
            "helper": rf"(?:{'|'.join(_HELPERS)})\w*\(\s*{_ARGUMENT}(?:\s*,\s*{_ARGUMENT})*\s*\)",
            "same arguments": rf"\b(?:{_COMPARISON})\(\s*((?:[^(),]|\([^()]*\))+?)\s*,\s*\1\s*[,)]",
            "from itself": r"\babs\(\s*((?:[^()\s]|\([^()]*\))+)\s*-\s*\1\s*\)",
            "same sides": r"(?:^|\s)([A-Za-z_][\w.]*(?:\([^()]*\))?)\s*==\s*\1(?![\w.('\u2019\u2032])",
        }[name]
    )


def _restated(document: Document) -> Iterator[Finding]:
    """VACUITY-001: a prediction says what is measured: neither the rule again, nor that all will be well."""
    for path, item in items(document, "falsification_tests"):
        rule = str(item.get(key_of(item, "rule", "description")) or "")
        key = key_of(item, "prediction", "expected")
        prediction = str(item.get(key) or "")
        if not _MEASURED.isdisjoint(prediction):
            continue
        said = prediction.strip().lower()
        if len(prediction) < _SHORT and said.rstrip(".!").endswith(_GOES_WELL) and _pattern("passes").fullmatch(said):
            message = (
                f"{name_of(item)} predicts that it passes: say what is measured, and which value would show it false"
            )
            yield document.finding((*path, key), "VACUITY-001", message, warning=True)
            continue
        if _says_no_more(prediction.lower(), rule.lower()):
            message = (
                f"{name_of(item)} predicts its own rule: say what is measured, and which value would show it false"
            )
            yield document.finding((*path, key), "VACUITY-001", message, warning=True)


def _says_no_more(text: str, than: str) -> bool:
    """Whether every word of ``text`` that means something, and there are a few, is among those of ``than``."""
    words = set()
    for match in _pattern("word").finditer(text):
        word = match[0]
        if word in _MEANINGLESS:
            continue
        if word not in than:  # so it is no word of it either: most texts are told apart by their first words
            return False
        words.add(word)
    return len(words) >= _MIN_WORDS and words <= set(_pattern("word").findall(than))


def _tests(document: Document) -> Iterator[Finding]:
    """VACUITY-002 to 005: a test looks at the code, measures something, and compares it with something else."""
    own = stem(document.file)
    for path, item in islice(items(document, "falsification_tests"), _LOOKED_AT):
        for key in ("test", "command", "test_harness"):
            text = item.get(key)
            if isinstance(text, str) and len(text) <= _LENGTH and (found := _of_test(text, own, item)):
                rule, message = found
                yield document.finding((*path, key), rule, f"{name_of(item)} {message}", warning=True)


def _of_test(text: str, own: str, item: dict[str, Any]) -> tuple[str, str] | None:
    command = text.strip().removeprefix("!").strip()
    if not _names_one(_SUSPICIOUS, command) and not command.startswith(_COMMANDS):
        return None
    alone = "&&" not in command and ";" not in command and "\n" not in command
    reads_yaml = command.startswith(_READERS) or "yaml.safe_load" in command
    if alone and own in command and reads_yaml:
        return "VACUITY-002", "only checks this file: that a contract can be read says nothing of the code"
    if alone and _searches_source(command):
        return "VACUITY-003", "searches source text: a comment can satisfy it, and the code need never run"
    if reason := _cannot_fail(command, alone):
        return "VACUITY-004", reason
    if command[-1:] in _ENDS_A_NUMBER and _pattern("constants").fullmatch(command):
        return "VACUITY-004", "compares constants: nothing is measured"
    if "(" in command and _names_one(_HELPERS, command) and _pattern("helper").search(command):
        return "VACUITY-004", "only feeds numbers to a helper that compares them: nothing is measured"
    if _compares_itself(command):
        meant = f"{item.get(key_of(item, 'rule', 'description'), '')} {command}".lower()
        if not _names_one(_TWICE_ON_PURPOSE, meant):
            return "VACUITY-005", "compares a thing with itself: it holds of every implementation"
    return None


def _searches_source(command: str) -> bool:
    """Whether a command only searches files, other than what a run has put out."""
    if command.startswith("cat "):
        if not _pattern("cat to grep").fullmatch(command):
            return False
    elif not command.startswith(_SEARCHES):
        return False
    return not _pattern("output").search(command) or bool(_pattern("source").search(command))


def _cannot_fail(command: str, alone: bool) -> str | None:
    """What is wrong with a command that succeeds, or says nothing, whatever the code does."""
    if command.startswith(_IDLE) and alone:
        if _pattern("idle").fullmatch(command):
            return "runs nothing and always succeeds: nothing is measured"
        if _pattern("is there").fullmatch(command) and _pattern("source").search(command):
            return "only asks whether a source file is there: nothing is measured"
    if "||" in command and ";" not in command and "\n" not in command and _pattern("forgiven").search(command):
        return "succeeds whatever fails in it: what stands after || has the last word"
    if "--co" in command and _pattern("collects").search(command):
        return "only collects tests: none of them runs"
    return None


def _compares_itself(text: str) -> bool:
    return (
        (_names_one(_COMPARES, text) and bool(_pattern("same arguments").search(text)))
        or ("==" in text and bool(_pattern("same sides").search(text)))
        or ("abs(" in text and "-" in text and bool(_pattern("from itself").search(text)))
    )


def _tolerances(document: Document) -> Iterator[Finding]:
    """VACUITY-006: a tolerance other than 0 has a reason; one without is as wide as it had to be to pass."""
    for path, item in items(document, "proof_obligations"):
        if item.get("tolerance") not in (None, 0) and "tolerance_reason" not in item:
            message = f"the tolerance of {name_of(item)} has no tolerance_reason: why this wide and no wider?"
            yield document.finding((*path, "tolerance"), "VACUITY-006", message, warning=True)


RULES: tuple[Rule, ...] = (_restated, _tests)
OF_VERSION_2: tuple[Rule, ...] = (_tolerances,)


def _names_one(words: tuple[str, ...], text: str) -> bool:
    """Whether a pattern with these words is worth a search, which takes ten times as long as looking for the words."""
    return any(map(text.__contains__, words))

"""Whether the tests that a contract names exist: pytest itself is asked to collect them, once for a project."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from aprender.contracts.findings import did_you_mean

SECONDS = 300
_TAKE_A_VALUE = frozenset(("-c", "-k", "-m", "-n", "-o", "-p", "-W", "--deselect", "--ignore", "--rootdir"))
_SELECT = ("-k", "-m")
_NODE = re.compile(r"[^\s=-][^\s:=]*\.py::\w")
_COULD_NOT = (3, 4)  # pytest's exit codes for an internal and a usage error, such as a conftest that can't be imported
_SHELL = frozenset("&|;<>`$()")  # a command line that does more than calling pytest is left alone

# Deselection by markers comes after collection, so a test that is deselected by default counts.
_COLLECT = """
import json, sys, pytest

class Collected:
    def __init__(self):
        self.tests, self.errors, self.left = [], {}, None
    def pytest_itemcollected(self, item):
        self.tests.append(item.nodeid)
    def pytest_collectreport(self, report):
        if report.failed:
            self.errors[report.nodeid] = str(report.longrepr)
    def pytest_collection_finish(self, session):
        self.left = len(session.items)

options = ["--collect-only", "-q", "-p", "no:cacheprovider", "--rootdir=."]
files, selections = json.loads(sys.argv[2])
collected, status = Collected(), 0
if files:
    status = pytest.main([*options, *files], plugins=[collected])
idle = []
for index, (words, nodes) in enumerate(selections):
    selected = Collected()
    pytest.main([*options, "-m", "", *words, *nodes], plugins=[selected])
    if selected.left == 0 and not selected.errors:
        idle.append(index)
with open(sys.argv[1], "w", encoding="utf-8") as file:
    json.dump({"tests": collected.tests, "errors": collected.errors, "status": int(status), "idle": idle}, file)
"""


class Named(NamedTuple):
    """A test that a command names: its node id, and where in the command it starts (from 1)."""

    node: str
    column: int

    @property
    def file(self) -> str:
        """The file of the test."""
        return self.node.partition("::")[0]


class Selection(NamedTuple):
    """What ``-k`` and ``-m`` of a command choose among the tests that it names, and where the first of them stands."""

    words: tuple[str, ...]
    nodes: tuple[str, ...]
    column: int


def named_tests(command: str) -> list[Named]:
    """The files and node ids that a command line gives to pytest; none where it is another command."""
    found: list[Named] = []
    for before, word in _arguments(command):
        file = word.partition("::")[0]
        if file.endswith(".py") and not word.startswith("-") and before not in _TAKE_A_VALUE:
            found.append(Named(os.path.normpath(file) + word[len(file) :], command.find(word) + 1))
    return found


def selection(command: str) -> Selection | None:
    """What a command line chooses among its tests; None where it chooses nothing, or is no call of pytest."""
    arguments = _arguments(command)
    words = [
        text
        for before, word in arguments
        for text in ((before, word) if before in _SELECT else (word,) if word[:2] in _SELECT and word[2:] else ())
    ]
    if not words:
        return None
    paths = [word for before, word in arguments if not word.startswith("-") and before not in _TAKE_A_VALUE]
    return Selection(tuple(words), tuple(paths), command.find(f" {words[0]}") + 2)


def _arguments(command: str) -> list[tuple[str, str]]:
    """What a command line gives to pytest, each word with the one before it; a bare node id is what pytest is given."""
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    if words and _NODE.match(words[0]):
        words.insert(0, "pytest")
    elif _SHELL & set("".join(words)):
        return []
    if "--pyargs" in words or (start := _after_pytest(words)) is None:
        return []
    return list(zip(words[start - 1 :], words[start:], strict=False))


def _after_pytest(words: list[str]) -> int | None:
    """Where the arguments of pytest begin: ``pytest``, ``python -m pytest``, also after ``uv run`` and the like."""
    for index, word in enumerate(words):
        if word in ("pytest", "py.test") or word.endswith("/pytest"):
            launched = words[:index]
            known = all(
                "=" in w or w in ("uv", "poetry", "hatch", "run", "-m") or Path(w).name.startswith("python")
                for w in launched
            )
            return index + 1 if known else None
    return None


class Collection(NamedTuple):
    """What pytest collected in a project."""

    root: Path
    tests: frozenset[str]
    errors: dict[str, str]
    failure: str | None
    idle: frozenset[Selection] = frozenset()

    def problem(self, named: Named) -> str | None:
        """Why ``named`` is no test, or None."""
        if not (self.root / named.file).is_file():
            folder = (self.root / named.file).parent
            files = [path.relative_to(self.root).as_posix() for path in folder.glob("*.py")] if folder.is_dir() else []
            return f"no file {named.file} in {self.root}.{did_you_mean(named.file, files)}".removesuffix(".")
        if self.failure:
            return f"pytest could not collect: {self.failure}"
        starts = (f"{named.node}::", f"{named.node}[")
        if named.node in self.tests or any(test.startswith(starts) for test in self.tests):
            return None
        if error := self.errors.get(named.file):
            return f"{named.file} can't be collected: {_last_line(error)}"
        beside = (test.partition("[")[0] for test in self.tests if test.startswith(f"{named.file}::"))
        names = sorted({test.partition("::")[2] for test in beside})
        hint = did_you_mean(named.node.partition("::")[2], names)
        return f"pytest collects no test {named.node}.{hint}".removesuffix(".")


def collect(root: Path, named: Iterable[Named], selections: Iterable[Selection] = ()) -> Collection:
    """Ask pytest for the tests in the files of ``named``, in a process of its own: importing tests runs their code."""
    files = sorted({one.file for one in named if (root / one.file).is_file()})
    nothing: frozenset[str] = frozenset()
    chosen = list(dict.fromkeys(selections))
    if not files and not chosen:
        return Collection(root, nothing, {}, None)
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "collected.json"
        command = [sys.executable, "-c", _COLLECT, str(answer), json.dumps([files, [one[:2] for one in chosen]])]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(  # noqa: S603 - our own Python, no shell
                command, cwd=root, env=environment, capture_output=True, text=True, errors="replace", timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            return Collection(root, nothing, {}, f"it took more than {SECONDS} seconds")
        if not answer.exists():
            return Collection(root, nothing, {}, _last_line(done.stderr or done.stdout))
        found = json.loads(answer.read_text("utf-8"))
    failure = _last_line(done.stderr or done.stdout) if found["status"] in _COULD_NOT else None
    idle = frozenset(chosen[index] for index in found["idle"])
    return Collection(root, frozenset(found["tests"]), found["errors"], failure, idle)


def _last_line(text: str) -> str:
    """What an error report comes down to: the last line of it that says something."""
    lines = [line.strip().removeprefix("E ").strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"

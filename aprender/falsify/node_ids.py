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
_NODE_ID = re.compile(r"[\w./-]+\.py::\w\S*\Z")
_COULD_NOT = (3, 4)  # pytest's exit codes for an internal and a usage error, such as a conftest that can't be imported
_SHELL = frozenset("&|;<>`$()")  # a command line that does more than calling pytest is left alone

# Deselection by markers comes after collection, so a test that is deselected by default counts. For each -k pytest
# collects once more in the same process, where the test files are imported already; what -m hides by default is shown.
_COLLECT = """
import json, sys, pytest

class Selected:
    def __init__(self):
        self.tests = []
    def pytest_collection_finish(self, session):
        self.tests = [item.nodeid for item in session.items]

class Collected:
    tests, errors = [], {}
    def pytest_itemcollected(self, item):
        self.tests.append(item.nodeid)
    def pytest_collectreport(self, report):
        if report.failed:
            self.errors[report.nodeid] = str(report.longrepr)

options = ["--collect-only", "-q", "-p", "no:cacheprovider", "--rootdir=."]
asked = json.loads(sys.argv[2])
status = pytest.main([*options, *asked["files"]], plugins=[Collected()])
nothing = []
for keywords, files in asked["selections"]:
    selected = Selected()
    end = pytest.main([*options, "-m", "", "-k", keywords, *files], plugins=[selected])
    if end in (0, 5) and not selected.tests:  # 5: no tests; else it is another fault
        nothing.append([keywords, files])
answer = {"tests": Collected.tests, "errors": Collected.errors, "status": int(status), "nothing": nothing}
with open(sys.argv[1], "w", encoding="utf-8") as file:
    json.dump(answer, file)
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
    """Which of the tests that a command names ``-k`` leaves, and where in the command its value starts (from 1)."""

    keywords: str
    nodes: tuple[str, ...]
    column: int


def named_tests(command: str) -> list[Named]:
    """The files and node ids that a command line gives to pytest; none where it is another command.

    A node id alone is what pytest would be given, too.
    """
    found: list[Named] = []
    arguments = _arguments(command)
    for before, word in zip(["", *arguments], arguments, strict=False):
        file = word.partition("::")[0]
        if file.endswith(".py") and not word.startswith("-") and before not in _TAKE_A_VALUE:
            found.append(Named(os.path.normpath(file) + word[len(file) :], command.find(word) + 1))
    return found


def selection_of(command: str) -> Selection | None:
    """What ``-k`` in a command that names files or node ids selects by; the last one counts."""
    arguments = _arguments(command)
    nodes = tuple(named.node for named in named_tests(command))
    found: str | None = None
    for index, word in enumerate(arguments):
        if word == "-k" and index + 1 < len(arguments):
            found = arguments[index + 1]
        elif word.startswith("-k") and word != "-k":
            found = word[2:].removeprefix("=")
    if not nodes or not found or not found.strip():
        return None
    return Selection(found, nodes, command.rfind(found) + 1)


def _arguments(command: str) -> list[str]:
    """The words that pytest would be given; none where the command is another one."""
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    if _SHELL & set("".join(words)) or "--pyargs" in words:
        return []
    if words and all(_NODE_ID.match(word) for word in words):
        return words
    start = _after_pytest(words)
    return [] if start is None else words[start:]


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
    nothing: frozenset[tuple[str, tuple[str, ...]]] = frozenset()

    def selects_nothing(self, selection: Selection) -> bool:
        """Whether ``-k`` leaves none of the tests."""
        return (selection.keywords, selection.nodes) in self.nothing

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
    if not files:
        return Collection(root, nothing, {}, None)
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "collected.json"
        different = sorted({(one.keywords, one.nodes) for one in selections})
        asked = json.dumps({"files": files, "selections": different})
        command = [sys.executable, "-c", _COLLECT, str(answer), asked]
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
    empty = frozenset((keywords, tuple(nodes)) for keywords, nodes in found["nothing"])
    return Collection(root, frozenset(found["tests"]), found["errors"], failure, empty)


def _last_line(text: str) -> str:
    """What an error report comes down to: the last line of it that says something."""
    lines = [line.strip().removeprefix("E ").strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"

"""From the published dialect to version 2, as edits of the text: comments, order, quotes and blank lines stay.

A file ends as valid version 2, or as it was with the list of what a person must decide. The steps are small and each
reads its text anew: words that were renamed, gaps that the published parser filled, and what it never looked at, which
is put aside under ``x-`` (never dropped).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from aprender.contracts.check import check_content
from aprender.contracts.document import Document, KeyPath
from aprender.contracts.findings import Finding, Position
from aprender.contracts.migrate_edits import CannotEdit, Edits, read_again
from aprender.contracts.migrate_steps import fill_gaps, put_aside, put_words_aside, rename_words
from aprender.contracts.reader import read_bytes
from aprender.contracts.schema_check import is_version_2
from aprender.contracts.syntax import lines_of

BOM = b"\xef\xbb\xbf"
RULE = "MIGRATE"  # no rule of contracts: the command speaks of its own limits
MOST_STEPS = 12  # what is put aside never comes back, so that a few steps always do; this bounds a mistake of ours


class Migration(NamedTuple):
    """What became of one file: ``after`` is ``before`` where nothing was to do, or where ``problems`` say why not."""

    file: str
    before: bytes
    after: bytes
    notes: tuple[str, ...] = ()
    problems: tuple[Finding, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether the file would be written."""
        return self.after != self.before


class Steps(NamedTuple):
    """How far the steps came with one document, what each edited and said, and what stopped them."""

    document: Document
    done: list[Edits]
    notes: list[str]
    stopped: CannotEdit | None


class _Refused(Exception):
    """The file stays as it is; the findings say why."""

    def __init__(self, problems: list[Finding]) -> None:
        self.problems = problems


def migrate(content: bytes, file: str) -> Migration:
    """The version 2 contract that the published-dialect contract in ``content`` is. Never raises."""
    try:
        return _migrate(content, file)
    except _Refused as refused:
        return Migration(file, content, content, problems=tuple(refused.problems))


def _migrate(content: bytes, file: str) -> Migration:
    document, found = read_bytes(content, file)
    if document is None or _errors(found) or not isinstance(document.data, dict) or is_version_2(document.data):
        _refuse(_errors(check_content(content, file).findings))
        return Migration(file, content, content)
    original = document
    document, done, notes, stopped = steps_of(original)
    if stopped is not None:
        problem = document.finding(stopped.path, RULE, str(stopped), key=True)
        _refuse(_in_original([problem], done, original))
    after = (BOM if content.startswith(BOM) else b"") + document.text.encode()
    _refuse(_in_original(_errors(check_content(after, file).findings), done, original))
    return Migration(file, content, after, tuple(notes))


def steps_of(document: Document) -> Steps:
    """Take a document of the published dialect, whose data is a mapping, to version 2, valid or not."""
    done, notes = list[Edits](), list[str]()
    for step in (rename_words, fill_gaps, put_words_aside, *[put_aside] * MOST_STEPS):
        try:
            edits = Edits(document)
            notes += step(edits)
            if not edits.replacements:
                if step is put_aside:
                    break  # it has come to its end
                continue
            document = _reread(edits)
        except CannotEdit as error:
            return Steps(document, done, notes, error)
        done.append(edits)
    return Steps(document, done, notes, None)


def in_original(places: Iterable[Position], done: list[Edits]) -> list[Position]:
    """Where the file that the author has gives rise to what stands at ``places`` after the edits."""
    found = list(places)
    for edits in reversed(done):
        found = edits.origins(found)
    return found


def _errors(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]


def _refuse(problems: list[Finding]) -> None:
    if problems:
        raise _Refused(problems)


def _reread(edits: Edits) -> Document:
    """The changed document. Raises CannotEdit where it does not read as what was meant."""
    document = read_again(edits.applied(), edits.document.file)
    path = () if document is None else _first_difference(document.data, edits.expected())
    if document is None or path is not None:
        message = "an anchor, a merge key or an unusual form hides what must change here: write it out, then migrate"
        raise CannotEdit(path or (), message)
    return document


def _in_original(findings: list[Finding], done: list[Edits], original: Document) -> list[Finding]:
    """The same findings where the file that the author has gives rise to them."""
    places = in_original((Position(finding.line, finding.column) for finding in findings), done)
    lines = lines_of(original.text)
    return [
        finding._replace(line=line, column=column, source=lines[line - 1][:1000])
        for finding, (line, column) in zip(findings, places, strict=True)
    ]


def _first_difference(one: Any, other: Any, path: KeyPath = ()) -> KeyPath | None:
    """The path to the first value that differs; true is not 1, and 1 is not 1.0."""
    if one.__class__ is not other.__class__ or (isinstance(one, dict | list) and len(one) != len(other)):
        return path
    if isinstance(one, dict):
        steps: Any = one
    elif isinstance(one, list):
        steps = range(len(one))
    else:
        return None if one == other else path
    for step in steps:
        if isinstance(one, dict) and step not in other:
            return (*path, step)
        if (found := _first_difference(one[step], other[step], (*path, step))) is not None:
            return found
    return None

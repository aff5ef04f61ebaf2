"""The first stretch of the road: files and folders to findings."""

# No postponed annotations here: NamedTuple would compile each from its text, which costs as much as a small contract.

import gc
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aprender.contracts.across_files import check_set
from aprender.contracts.files import Found, NothingToDo, contract_files, read_content
from aprender.contracts.findings import Finding
from aprender.contracts.plugins import plugins
from aprender.contracts.summary import Checked, Summary

__all__ = ["NothingToDo", "Validation", "validate"]

FILES_PER_PROCESS = 200  # a second process pays for its start from 400 files on
CACHE_FROM = 32  # with fewer files looking them up takes as long as checking them


class Validation(NamedTuple):
    """What ``pv validate`` found: every file looked at, all findings by file and position, the denominators."""

    files: tuple[str, ...]
    findings: tuple[Finding, ...]
    falsifiers: int
    expectations: int
    passed_over: tuple[str, ...] = ()

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """How many findings are warnings."""
        return len(self.findings) - self.errors

    def with_findings(self, findings: Iterable[Finding]) -> "Validation":
        """The same validation with other ``findings``, put in order."""
        places = {file: index for index, file in enumerate(self.files)}
        ordered = sorted(findings, key=lambda f: (places.get(f.file, -1), f.line, f.column, f.rule))
        return self._replace(findings=tuple(ordered))


def validate(paths: Iterable[str | os.PathLike[str]], *, cached: bool = False) -> Validation:
    """Validate all contracts in ``paths``; with ``cached`` unchanged files of many are looked up, not checked again.

    Raises NothingToDo where there is no contract.
    """
    names = [os.fspath(path) for path in paths]
    found = contract_files(names)
    collecting = gc.isenabled()
    gc.disable()  # plain data has no cycles; collecting it over and over costs a third of the time
    try:
        if cached and len(found.files) >= CACHE_FROM and not plugins():
            checked = _check_cached(names, found.files)
        else:
            checked = _check(found.files)
        return _of_set(found, checked)
    finally:
        if collecting:
            gc.enable()


def _of_set(found: Found, checked: Sequence[Checked]) -> Validation:
    summaries = [one.summary for one in checked if one.summary is not None]
    findings = [finding for one in checked for finding in one.findings]
    falsifiers, expectations = (sum(getattr(s, name) for s in summaries) for name in ("falsifiers", "expectations"))
    result = Validation(found.files, (), falsifiers, expectations, found.passed_over)
    return result.with_findings([*findings, *check_set(summaries)])


def _check(files: Sequence[str]) -> list[Checked]:
    if not files:
        return []  # nothing changed: what reads and checks is not even imported
    from aprender.contracts.check import check_file

    processes = min(os.cpu_count() or 1, len(files) // FILES_PER_PROCESS, 8)
    if processes < 2:
        return [check_file(file) for file in files]
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(check_file, files, chunksize=FILES_PER_PROCESS // 4))


def _check_cached(names: Sequence[str], files: Sequence[str]) -> list[Checked]:
    """As ``_check``, but a file whose content was seen before is looked up."""
    from aprender.contracts.cache import Pack, digest

    pack = Pack(names)
    entries: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for file in files:
        content = read_content(file)
        if isinstance(content, bytes):
            keys[file] = digest(content)
            entries[file] = pack.get(keys[file])
    missing = [file for file in files if entries.get(file) is None]
    for file, checked in zip(missing, _check(missing), strict=True):
        findings = [list(finding[1:]) for finding in checked.findings]
        entries[file] = [findings, checked.summary and checked.summary[1:]]
        if file in keys:
            pack.put(keys[file], entries[file])
    pack.write()
    return [
        Checked([Finding(file, *rest) for rest in found], summary and Summary(file, *summary))
        for file, (found, summary) in entries.items()
    ]

"""The project's own Python: which files evidence binds to, and that those are the files that ran."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from aprender.errors import AprenderError
from aprender.falsify.digest import file_digest, files_digest, glob_files, package_files
from aprender.falsify.imports import closure

_TOOL = Path(__file__).parents[1]
# The tool itself is covered by the judge's digest.
_TOOL_PARTS = ("contracts", "falsify", "reports", "cli")


class WrongSources(AprenderError):
    """What was imported is not what would be digested."""


class ProbeFiles(NamedTuple):
    """The sources that a probe may load; ``complete`` is false where it may load others as well."""

    folder: Path
    files: tuple[Path, ...]
    complete: bool

    def digest(self) -> str:
        """One digest of all of them, by their names relative to ``folder``."""
        return files_digest(self.folder, self.files)


def probe_files(root: Path, target: str) -> ProbeFiles:
    """The module of the probe ``target`` and what that imports, directly or not, from the project.

    So what belongs to another probe alone does not concern it. It is the whole package where imports can't be read
    off, or where the package is not the project's. Raises AprenderError where there is none.
    """
    module = target.partition(":")[0]
    folder, package = package_files(root, module.partition(".")[0])
    if folder != root:
        return ProbeFiles(folder, tuple(package), complete=False)
    found = closure(root, module)
    files = {*found.files, *(() if found.complete else package)}
    return ProbeFiles(root, tuple(sorted(file for file in files if not _is_tool(file))), found.complete)


class Sources:
    """Digests of a project's code, taken once, before anything of it is imported.

    ``before`` are the modules that were loaded when the run began, ``probes`` the files of all probes that it has met,
    which every contract's ``Sources`` share.
    """

    def __init__(
        self, root: Path, code_under_contract: Iterable[str], before: frozenset[str], probes: dict[str, ProbeFiles]
    ) -> None:
        self.root = root
        self._globs = tuple(code_under_contract)
        self._before = before
        self._probes = probes
        self._digests: dict[str, str] = {}
        self.code_files = glob_files(root, self._globs)
        self.code = files_digest(root, self.code_files)

    def probe(self, target: str) -> str:
        """A digest of the probe's files as they were at first. Raises AprenderError where there are none."""
        if target not in self._digests:
            self._probes[target] = probe_files(self.root, target)
            self._digests[target] = self._probes[target].digest()
        return self._digests[target]

    def forget_bytecode(self, target: str) -> None:
        """Delete compiled files of what is about to be imported.

        Python believes them by time stamp and size: an edit within one second, or a copy that keeps times, would run
        the old code under the new code's digest.
        """
        _, package = package_files(self.root, target.partition(":")[0].partition(".")[0])
        for file in {*self.code_files, *package, *self._probes[target].files, *self.root.glob("*.py")}:
            with suppress(OSError, NotImplementedError):  # a read-only checkout has not been edited either
                Path(importlib.util.cache_from_source(file)).unlink(missing_ok=True)

    def check_unchanged(self, target: str) -> None:
        """Raise WrongSources where files changed during the run, or where other files than the digested ones ran."""
        top = target.partition(":")[0].partition(".")[0]
        if (
            self.code != files_digest(self.root, glob_files(self.root, self._globs))
            or self.probe(target) != self._probes[target].digest()
        ):
            raise WrongSources("files of the project changed during the run: evidence would be for neither; run again")
        tops = {top, *(file.relative_to(self.root).parts[0].removesuffix(".py") for file in self.code_files)}
        own = {name for name in tops if (self.root / name).is_dir() or (self.root / f"{name}.py").is_file()}
        for module, file in _modules(sys.modules, lambda name, path: name.partition(".")[0] in own):
            if not file.is_relative_to(self.root):
                message = f"'{module}' was imported from {file}, not from {self.root}, whose files evidence would name"
                raise WrongSources(f"{message}; install this project in this Python, and run one project at a time")
        named = {file.resolve() for file in self.code_files if file.suffix == ".py"}
        if named and not named & {file for _, file in self._modules_inside(sys.modules)}:
            raise WrongSources("no file of code_under_contract was imported by the probe; name the code that runs")

    def loaded(self, target: str) -> dict[str, str]:
        """The project's modules that are loaded and that the probe may have used, with their digests.

        A module that this run loaded and that no probe's imports explain counts for every probe.
        """
        own = self._probes[target]
        foreign = {file for probe in self._probes.values() for file in probe.files} if own.complete else set[Path]()
        new = {file for _, file in self._modules_inside(set(sys.modules) - self._before)} - foreign
        files = {file for _, file in self._modules_inside(sys.modules)}.intersection(own.files) | new
        relative = {file.relative_to(self.root): file for file in files if file.suffix == ".py" and not _is_tool(file)}
        return {path.as_posix(): file_digest(relative[path]) for path in sorted(relative)}

    def _modules_inside(self, names: Iterable[str]) -> Iterator[tuple[str, Path]]:
        """Modules from the project's own folders; hidden ones (a virtual environment) are not its own."""
        root = f"{self.root}{os.sep}"
        return _modules(names, lambda _, path: path.startswith(root) and f"{os.sep}." not in path[len(root) - 1 :])


def _modules(names: Iterable[str], wanted: Callable[[str, str], bool]) -> Iterator[tuple[str, Path]]:
    """Loaded modules and the files they came from, where ``wanted(name, path)``; torch.classes only claims a file."""
    for name in list(names):
        path = getattr(sys.modules.get(name), "__file__", None)
        if isinstance(path, str) and os.path.isabs(path) and wanted(name, path) and Path(path).is_file():
            yield name, Path(path).resolve()


def _is_tool(file: Path) -> bool:
    return file.is_relative_to(_TOOL) and file.relative_to(_TOOL).parts[0] in _TOOL_PARTS

"""Which of a project's files a module may load, read from its import statements alone: nothing is imported."""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

_BY_NAME = ("import_module", "__import__")
_UNSEEN = ("exec", "run_path", "run_module", "spec_from_file_location")  # code from anywhere


class Closure(NamedTuple):
    """The files that a module may load, itself among them.

    ``complete`` is false where one of them imports by a name that only running it can tell.
    """

    files: tuple[Path, ...]
    complete: bool


class _Import(NamedTuple):
    """``from {level dots}module import name``; name "*" stands for every module of the package, "" for none."""

    level: int
    module: str
    name: str = ""


class _Imports(NamedTuple):
    found: tuple[_Import, ...]
    complete: bool


def closure(root: Path, module: str) -> Closure:
    """All files under ``root`` that importing ``module``, and all that it imports in turn, may load.

    Imports inside functions and branches count. What lies outside ``root`` is none of the project's and left out.
    """
    waiting, files, names, complete = {module}, set[Path](), set[str](), True
    while waiting:
        names |= waiting
        new = {file for name in waiting for file in _files_of(root, name)} - files
        files |= new
        imports = {file: _imports(file.read_bytes()) for file in new}
        complete = complete and all(found.complete for found in imports.values())
        waiting = {name for file, found in imports.items() for name in _absolute(root, file, found)} - names
    return Closure(tuple(sorted(files)), complete)


def _absolute(root: Path, file: Path, imports: _Imports) -> Iterator[str]:
    """The names of all modules that ``file`` may load, and of what it takes from them, which may be modules too."""
    for level, module, name in imports.found:
        package = file.relative_to(root).parts[:-level] if level else ()
        whole = ".".join((*package, *filter(None, (module,))))
        yield whole
        if name == "*":
            folder = root.joinpath(*whole.split("."))
            yield from (".".join(f.relative_to(root).with_suffix("").parts) for f in folder.rglob("*.py"))
        elif name:
            yield f"{whole}.{name}"


def _files_of(root: Path, module: str) -> Iterator[Path]:
    """The files that ``import module`` runs: of every package above it, and its own."""
    folder = str(root)
    for part in filter(None, module.split(".")):
        folder = os.path.join(folder, part)
        found = [file for file in (f"{folder}.py", os.path.join(folder, "__init__.py")) if os.path.isfile(file)]
        yield from map(Path, found)
        if not found and not os.path.isdir(folder):
            return  # of other packages than the project's nothing else can be there


@cache
def _imports(source: bytes) -> _Imports:
    """What one file imports; a file that does not parse can't be loaded and imports nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are shown where the file is imported
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return _Imports((), True)
    found, complete = list[_Import](), True
    by_name = any(word.encode() in source for word in (*_BY_NAME, *_UNSEEN))
    for node in ast.walk(tree) if by_name else _statements(tree):  # few files need their expressions looked at
        if isinstance(node, ast.Import):
            found += [_Import(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [_Import(node.level, node.module or "", alias.name) for alias in node.names]
            complete = complete and not any(alias.name in _BY_NAME and alias.asname for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in (*_BY_NAME, *_UNSEEN):
            named = _named(node) if _called(node) in _BY_NAME else None
            found += [named] if named else []
            complete = complete and named is not None
    return _Imports(tuple(found), complete)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        for statement in getattr(node, field, ()):
            yield statement
            yield from _statements(statement)


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _named(call: ast.Call) -> _Import | None:
    """What ``import_module("a.b")`` or ``import_module(f"a.{x}")`` may load: a module, or all of a package."""
    first = call.args[0] if call.args else None
    if isinstance(first, ast.Constant) and isinstance(first.value, str) and not first.value.startswith("."):
        return _Import(0, first.value)
    if isinstance(first, ast.JoinedStr) and first.values and isinstance(first.values[0], ast.Constant):
        package, dot, rest = str(first.values[0].value).rpartition(".")
        if package and dot and not rest and len(first.values) == 2:
            return _Import(0, package, "*")
    return None

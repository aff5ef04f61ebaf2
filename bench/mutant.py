"""Mutants of Python source: what mutmut's operators make of every place of a module that computes something.

Left out are annotations, decorators, docstrings, imports, names of types, and refusals: an ``if`` that ends in
``raise``, calls of ``check_...`` and ``require_...``, and the functions of these names. The contracts say what is
computed; what is refused, and in which words, the tests say.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider, WhitespaceInclusivePositionProvider
from mutmut.mutation.mutators import mutation_operators

_REFUSING = ("check_", "_check", "require_")
_UNMUTATED = (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom, cst.Raise, cst.Assert)


class Mutant(NamedTuple):
    """One edit of ``module``, within ``function``: the lines ``before`` became ``after``; ``source`` is all of it."""

    module: str
    function: str
    operator: str
    before: str
    after: str
    occurrence: int  # of the same edit in this function, from 0
    source: str

    @property
    def name(self) -> str:
        """What tells this mutant from all others, in one line."""
        return f"{self.module} {self.function}: {self.operator}: {self.before} -> {self.after} #{self.occurrence}"

    def diff(self, original: str) -> str:
        """A unified diff from the module's ``original`` source."""
        a, b = original.splitlines(keepends=True), self.source.splitlines(keepends=True)
        return "".join(difflib.unified_diff(a, b, f"a/{self.module}", f"b/{self.module}", n=2))


def mutants(module: str, source: str) -> list[Mutant]:
    """Every mutant of ``source`` that Python can parse, and that is another program, in the order of the text."""
    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    ranges = wrapper.resolve(WhitespaceInclusivePositionProvider)
    starts = wrapper.resolve(PositionProvider)
    found: list[Mutant] = []
    edits: dict[tuple[str, str, str], int] = {}
    seen = {_program(source)}
    for node, function in _places(wrapper.module, ""):
        for kind, operator in mutation_operators:
            for other in operator(node) if isinstance(node, kind) else ():
                mutated = _spliced(wrapper.module, source, node, other, ranges[node])
                if (program := _program(mutated)) is None or program in seen:
                    continue
                seen.add(program)
                before, after = _changed(source, mutated, starts[node].start.line)
                occurrence = edits[function, before, after] = edits.get((function, before, after), -1) + 1
                name = operator.__name__.removeprefix("operator_")
                found.append(Mutant(module, function, name, before, after, occurrence, mutated))
    return found


def stratified(by_module: Iterable[list[Mutant]]) -> list[Mutant]:
    """All mutants in an order whose every beginning holds the modules in proportion to their numbers of mutants."""
    placed = [((i + 0.5) / len(of), of[i].module, of[i]) for of in by_module for i in range(len(of))]
    return [mutant for _, _, mutant in sorted(placed, key=lambda place: place[:2])]


def modules_below(folder: Path) -> list[str]:
    """The modules of the CUDA path, relative to ``folder``; what repairs Triton's interpreter is no part of it."""
    found = (path for path in folder.rglob("*.py") if not path.name.startswith("interpreter"))
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _places(node: cst.CSTNode, function: str) -> Iterator[tuple[cst.CSTNode, str]]:
    """Every node that may be mutated, with the name of the function or class that it lies in."""
    if isinstance(node, _UNMUTATED) or _is_text(node) or _is_type(node) or _refuses(node):
        return
    yield node, function
    if isinstance(node, cst.FunctionDef | cst.ClassDef):
        function = f"{function}.{node.name.value}" if function else node.name.value
    for child in node.children:
        yield from _places(child, function)


def _is_text(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Expr) and isinstance(node.value, cst.SimpleString | cst.ConcatenatedString)


def _is_type(node: cst.CSTNode) -> bool:
    """``Name = Some[Type]``, and ``__all__``."""
    if not isinstance(node, cst.Assign) or not isinstance(target := node.targets[0].target, cst.Name):
        return False
    return target.value == "__all__" or (isinstance(node.value, cst.Subscript) and target.value[0].isupper())


def _refuses(node: cst.CSTNode) -> bool:
    match node:
        case cst.FunctionDef(name=cst.Name(value=name)):
            return str(name).startswith(_REFUSING)
        case cst.Expr(value=cst.Call(func=cst.Name(value=name) | cst.Attribute(attr=cst.Name(value=name)))):
            return str(name).startswith(_REFUSING)
        case cst.If(orelse=None, body=cst.IndentedBlock(body=[*_, cst.SimpleStatementLine(body=[cst.Raise()])])):
            return True
    return False


def _spliced(module: cst.Module, source: str, node: cst.CSTNode, other: cst.CSTNode, place: CodeRange) -> str:
    if place.start.line != place.end.line:  # what it is indented by is not the node's own
        return str(module.deep_replace(node, other).code)
    lines = source.splitlines(keepends=True)
    start, end = (sum(map(len, lines[: at.line - 1])) + at.column for at in (place.start, place.end))
    return f"{source[:start]}{module.code_for_node(other)}{source[end:]}"


def _program(source: str) -> str | None:
    """What Python makes of the text, None where it can't parse it."""
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:
        return None


def _changed(source: str, mutated: str, line: int) -> tuple[str, str]:
    """The lines that differ, each without its indentation, joined by blanks."""
    a, b = source.splitlines(), mutated.splitlines()
    first = next(i for i in range(min(line, len(a)) - 1, len(a)) if i >= len(b) or a[i] != b[i])
    last = next(i for i in range(1, len(a) + 1) if a[-i] != b[-i] or min(len(a), len(b)) - i <= first)
    return _joined(a[first : len(a) - last + 1]), _joined(b[first : len(b) - last + 1])


def _joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines)

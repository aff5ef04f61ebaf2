"""The expression language of expectations and guards: one comparison over what a probe observed.

``val_loss < 0.7 * ln(vocab_size)``: names, numbers, ``+ - * / **``, parentheses, ``ln log2 sqrt abs min max``
and exactly one of ``< <= > >= == !=``. There is no ``or``, no attribute access and no other call.
"""

# No postponed annotations here: NamedTuple would compile each from its text, which costs as much as a small contract.

import _ast as ast  # the node classes alone: the module ast costs a validation of one file a tenth of its time
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from aprender.contracts.findings import did_you_mean

MAX_LENGTH = 500
MAX_DEPTH = 64
_ONLY_PARSE = 0x400  # ast.PyCF_ONLY_AST

_COMPARISONS: dict[type[ast.cmpop], tuple[str, Callable[[float, float], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
}
_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
}
_FUNCTIONS: dict[str, tuple[int, Callable[..., float]]] = {
    "ln": (1, math.log),
    "log2": (1, math.log2),
    "sqrt": (1, math.sqrt),
    "abs": (1, abs),
    "min": (2, min),
    "max": (2, max),
}
# What people write from other languages, with what it is here.
_SLIPS = {
    "&&": "write one list entry per comparison", "||": "there is no 'or'", "=<": "write <=", "=>": "write >=",
    "\u2264": "write <=", "\u2265": "write >=", "\u2260": "write !=", "\u00d7": "write *", "\u00f7": "write /",
    "\u2212": "write -", "\u221a": "write sqrt(...)", "<>": "write !=",
}  # fmt: skip


class ExpressionError(ValueError):
    """The text is not one comparison of this language; ``column`` counts from 1 within the text."""

    def __init__(self, message: str, column: int = 1) -> None:
        super().__init__(message)
        self.column = column


class EvaluationError(ArithmeticError):
    """A side of the comparison has no finite value for these observations."""


class Sides(NamedTuple):
    """Both sides of an evaluated comparison, and whether it holds."""

    holds: bool
    left: float
    right: float


class Comparison(NamedTuple):
    """A parsed expectation or guard."""

    text: str
    symbol: str
    names: frozenset[str]
    left: ast.expr
    right: ast.expr
    compare: Callable[[float, float], bool]

    def evaluate(self, values: Mapping[str, float]) -> Sides:
        """Both sides for observed ``values``. Raises EvaluationError where one is not a finite number."""
        left, right = value_of(self.left, values), value_of(self.right, values)
        return Sides(self.compare(left, right), left, right)

    def parts(self) -> Iterator[ast.expr]:
        """Both sides and every part of them, the whole before its parts."""
        yield from _parts(self.left)
        yield from _parts(self.right)

    def side_texts(self) -> tuple[str, str]:
        """The source of the left and the right side."""
        return source_of(self.left), source_of(self.right)


def value_of(node: ast.expr, values: Mapping[str, float]) -> float:
    """The value of a side or a part of one. Raises EvaluationError where it is not a finite number."""
    try:
        value = _evaluate(node, values)
    except (ArithmeticError, ValueError) as error:
        raise EvaluationError(f"'{source_of(node)}' has no value here: {error}") from None
    if not math.isfinite(value):
        raise EvaluationError(f"'{source_of(node)}' is {value}")
    return value


def source_of(node: ast.expr) -> str:
    """A part of a comparison as text, in one way of writing it."""
    from ast import unparse

    return unparse(node)


def _parts(node: ast.expr) -> Iterator[ast.expr]:
    yield node
    for child in children(node):
        yield from _parts(child)


def has_name(node: ast.expr) -> bool:
    """Whether a part asks for anything that is observed."""
    return any(isinstance(part, ast.Name) for part in _parts(node))


def children(node: ast.expr) -> list[ast.expr]:
    """What a part is made of: none for a name or a number."""
    match node:
        case ast.BinOp():
            return [node.left, node.right]
        case ast.UnaryOp():
            return [node.operand]
        case ast.Call():
            return node.args
    return []


def column_of(text: str, node: ast.expr) -> int:
    """Where in the ``text`` that was parsed ``node`` starts, counted from 1 (the parser counts bytes)."""
    return _characters(text, node.col_offset) + 1


def parse(text: str) -> Comparison:
    """Parse one comparison. Raises ExpressionError with the column of what is not understood."""
    if marks := [position for mark in "#\n\r" if (position := text.find(mark) + 1)]:
        raise ExpressionError("comments and line breaks are not part of the language", min(marks))
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"{len(text)} characters; an expression has at most {MAX_LENGTH}", MAX_LENGTH + 1)
    try:
        tree: ast.expr = compile(text.strip(), "<expression>", "eval", _ONLY_PARSE, dont_inherit=True).body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise _not_an_expression(text, error) from None
    try:
        return _comparison(text, tree)
    except ExpressionError as error:
        error.column = _characters(text, error.column - 1) + 1
        raise


def _characters(text: str, offset: int) -> int:
    """How many characters of ``text`` stand before a byte ``offset`` of what is left without the blanks around it."""
    stripped = text.lstrip()
    return len(text) - len(stripped) + len(stripped.encode()[:offset].decode(errors="ignore"))


def _not_an_expression(text: str, error: Exception) -> ExpressionError:
    """The error for what Python can't parse, with advice where the slip is a known one."""
    for slip, advice in _SLIPS.items():
        if slip in text:
            return ExpressionError(
                f"not an expression: '{slip}' is not part of the language; {advice}", text.find(slip) + 1
            )
    without = text
    for symbol in ("==", "!=", "<=", ">="):
        without = without.replace(symbol, "  ")
    if "=" in without:
        return ExpressionError("not an expression: '=' is not part of the language; write ==", without.find("=") + 1)
    if isinstance(error, SyntaxError) and error.offset == 0:
        return ExpressionError("not an expression: something is missing at its end", len(text.rstrip()) + 1)
    offset = error.offset if isinstance(error, SyntaxError) and error.offset else 1
    column = len(text) - len(text.lstrip()) + offset
    return ExpressionError("not an expression", max(1, min(column, len(text))))


def _comparison(text: str, tree: ast.expr) -> Comparison:
    if isinstance(tree, ast.BoolOp):
        word = "or" if isinstance(tree.op, ast.Or) else "and"
        advice = "there is no 'or'" if word == "or" else "write one list entry per comparison"
        at = text.strip().encode().find(word.encode(), tree.values[0].end_col_offset)
        raise ExpressionError(f"'{word}' is not part of the language: {advice}", at + 1)
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        raise ExpressionError("'not' is not part of the language: write the opposite comparison", tree.col_offset + 1)
    if not isinstance(tree, ast.Compare):
        raise ExpressionError("not a comparison; write e.g. 'val_loss < 4.8'", tree.col_offset + 1)
    odd = next((i for i, op in enumerate(tree.ops) if type(op) not in _COMPARISONS), 1)
    if odd < len(tree.ops):
        message = "exactly one of < <= > >= == != is allowed; split it into several entries"
        before = [tree.left, *tree.comparators][odd].end_col_offset or 0
        rest = text.strip().encode()[before:]
        blanks = len(rest) - len(rest.lstrip(b" \t)"))
        raise ExpressionError(message, before + blanks + 1)
    names: set[str] = set()
    for side in (tree.left, tree.comparators[0]):
        _check(side, names, text)
    symbol, compare = _COMPARISONS[type(tree.ops[0])]
    return Comparison(text, symbol, frozenset(names), tree.left, tree.comparators[0], compare)


def _check(node: ast.expr, names: set[str], text: str, depth: int = 1) -> None:
    """Walk one side: collect its names, refuse all that is not in the language; columns are those of the parser."""
    if depth > MAX_DEPTH:
        raise ExpressionError(f"nested more than {MAX_DEPTH} levels deep", node.col_offset + 1)
    match node:
        case ast.Name():
            if node.id in _FUNCTIONS:
                raise ExpressionError(f"'{node.id}' is a function: write {node.id}(...)", node.col_offset + 1)
            names.add(node.id)
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            if not math.isfinite(_number(number)):
                raise ExpressionError("a number out of range", node.col_offset + 1)
        case ast.BinOp() if type(node.op) in _BINARY:
            _check(node.left, names, text, depth + 1)
            _check(node.right, names, text, depth + 1)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            _check(node.operand, names, text, depth + 1)
        case ast.Call(func=ast.Name(id=function)) if not node.keywords:
            _check_call(node, function)
            for argument in node.args:
                _check(argument, names, text, depth + 1)
        case _:
            part = text.strip().encode()[node.col_offset : node.end_col_offset].decode(errors="ignore")
            known = "names, numbers, + - * / **, ln log2 sqrt abs min max"
            power = "; a power is written **" if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor) else ""
            what = f"'{part}' is not part of the language"
            raise ExpressionError(f"{what} ({known}{power})", node.col_offset + 1)


def _check_call(node: ast.Call, function: str) -> None:
    if function not in _FUNCTIONS:
        hint = did_you_mean(function, _FUNCTIONS) or " Known: " + ", ".join(_FUNCTIONS) + "."
        raise ExpressionError(f"unknown function '{function}'.{hint}", node.col_offset + 1)
    arity = _FUNCTIONS[function][0]
    if len(node.args) != arity:
        raise ExpressionError(f"{function} takes {arity} argument(s), not {len(node.args)}", node.col_offset + 1)


def _number(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _evaluate(node: ast.expr, values: Mapping[str, float]) -> float:
    match node:
        case ast.Name():
            return float(values[node.id])
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.BinOp():
            return _BINARY[type(node.op)](_evaluate(node.left, values), _evaluate(node.right, values))
        case ast.UnaryOp():
            value = _evaluate(node.operand, values)
            return -value if isinstance(node.op, ast.USub) else value
        case ast.Call(func=ast.Name(id=function)):
            return float(_FUNCTIONS[function][1](*(_evaluate(argument, values) for argument in node.args)))
        case _:
            raise AssertionError(f"parse() let {node!r} through")

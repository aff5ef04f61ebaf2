"""The expression language of expectations and guards: one comparison over what a probe observed.

``val_loss < 0.7 * ln(vocab_size)``: names, numbers, ``+ - * / **``, parentheses, ``ln log2 sqrt abs min max``
and exactly one of ``< <= > >= == !=``. There is no ``or``, no attribute access and no other call.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aprender.contracts.findings import did_you_mean

MAX_LENGTH = 500

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


class ExpressionError(ValueError):
    """The text is not one comparison of this language; ``column`` counts from 1 within the text."""

    def __init__(self, message: str, column: int = 1) -> None:
        super().__init__(message)
        self.column = column


class EvaluationError(ArithmeticError):
    """A side of the comparison has no finite value for these observations."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides of an evaluated comparison, and whether it holds."""

    holds: bool
    left: float
    right: float


@dataclass(frozen=True)
class Comparison:
    """A parsed expectation or guard."""

    text: str
    symbol: str
    names: frozenset[str]
    left: ast.expr
    right: ast.expr
    compare: Callable[[float, float], bool]

    def evaluate(self, values: Mapping[str, float]) -> Sides:
        """Both sides for observed ``values``. Raises EvaluationError where one is not a finite number."""
        left, right = (self._finite(side, values) for side in (self.left, self.right))
        return Sides(self.compare(left, right), left, right)

    @property
    def constants(self) -> list[float]:
        """Every number that stands in the text, and its neighbours: where the outcome is likely to change."""
        nodes = (node for side in (self.left, self.right) for node in ast.walk(side))
        numbers = [float(n.value) for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, int | float)]
        return [near for number in numbers for near in (number - 1, number, number + 1)]

    def side_texts(self) -> tuple[str, str]:
        """The source of the left and the right side."""
        return ast.unparse(self.left), ast.unparse(self.right)

    def _finite(self, side: ast.expr, values: Mapping[str, float]) -> float:
        try:
            value = _evaluate(side, values)
        except (ArithmeticError, ValueError) as error:
            raise EvaluationError(f"'{ast.unparse(side)}' has no value here: {error}") from None
        if not math.isfinite(value):
            raise EvaluationError(f"'{ast.unparse(side)}' is {value}")
        return value


def parse(text: str) -> Comparison:
    """Parse one comparison. Raises ExpressionError with the column of what is not understood."""
    if "#" in text or "\n" in text:
        raise ExpressionError(
            "comments and line breaks are not part of the language",
            min(position for mark in "#\n" if (position := text.find(mark) + 1)),
        )
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"{len(text)} characters; an expression has at most {MAX_LENGTH}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        column = error.offset if isinstance(error, SyntaxError) and error.offset else 1
        raise ExpressionError("not an expression", column) from None
    if isinstance(tree, ast.BoolOp):
        word = "or" if isinstance(tree.op, ast.Or) else "and"
        advice = "there is no 'or'" if word == "or" else "write one list entry per comparison"
        raise ExpressionError(f"'{word}' is not part of the language: {advice}", tree.col_offset + 1)
    if not isinstance(tree, ast.Compare):
        raise ExpressionError("not a comparison; write e.g. 'val_loss < 4.8'")
    if len(tree.ops) != 1 or type(tree.ops[0]) not in _COMPARISONS:
        raise ExpressionError("exactly one of < <= > >= == != is allowed; split it into several entries")
    names: set[str] = set()
    right = tree.comparators[0]
    for side in (tree.left, right):
        _check(side, names)
    symbol, compare = _COMPARISONS[type(tree.ops[0])]
    return Comparison(text, symbol, frozenset(names), tree.left, right, compare)


def _check(node: ast.expr, names: set[str]) -> None:
    """Walk one side: collect its names, refuse all that is not in the language."""
    match node:
        case ast.Name():
            if node.id in _FUNCTIONS:
                raise ExpressionError(f"'{node.id}' is a function: write {node.id}(...)", node.col_offset + 1)
            names.add(node.id)
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            if not math.isfinite(_number(number)):
                raise ExpressionError("a number out of range", node.col_offset + 1)
        case ast.BinOp() if type(node.op) in _BINARY:
            _check(node.left, names)
            _check(node.right, names)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            _check(node.operand, names)
        case ast.Call(func=ast.Name(id=function)) if not node.keywords:
            _check_call(node, function)
            for argument in node.args:
                _check(argument, names)
        case _:
            what = f"'{ast.unparse(node)}' is not part of the language"
            known = "names, numbers, + - * / **, ln log2 sqrt abs min max"
            raise ExpressionError(f"{what} ({known})", node.col_offset + 1)


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
            raise AssertionError(f"parse() let {ast.dump(node)} through")

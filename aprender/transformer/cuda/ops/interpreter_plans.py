"""What an operation of Triton's language comes to in its interpreter, worked out once for each types of its operands.

Around the few calls that compute, an operation checks types, casts and broadcasts: four fifths of the interpreter's
time. The same Python makes code for a GPU, where no element is known yet. So the calls that it makes depend on types
and constants alone, never on elements: they are written down once as a plan, and then made on other elements.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, NamedTuple

import torch
from triton.language import core

_SPREAD = ("create_splat", "create_broadcast", "create_expand_dims")
# What numpy computes element by element: it spreads operands over one another by itself.
_ELEMENTWISE = (
    *("create_add", "create_sub", "create_mul", "create_min", "create_max", "create_and", "create_or", "create_xor"),
    *("create_fadd", "create_fsub", "create_fmul", "create_fdiv", "create_icmp", "create_fcmp", "create_select"),
    "check_overflow",
)
_EXACT = {"add": operator.add, "sub": operator.sub, "mul": operator.mul}


class Call(NamedTuple):
    """One call of the interpreter's builder: ``name``, and what it was given and returned."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    result: Any


class Plan(NamedTuple):
    """Calls to make on values in numbered places: operands first, then ``rest``: constants, and room for results.

    A step is a function, the places of its arguments and the place of its result. The whole comes to None, or to a
    tensor around the value at place ``result``; ``described`` are its other attributes: type, shape, ...
    """

    rest: tuple[Any, ...]
    steps: tuple[tuple[Callable[..., Any], tuple[int, ...], int], ...]
    result: int | None
    described: dict[str, Any]


class Recorder:
    """The interpreter's builder, with a record of its calls while ``calls`` is a list."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        self.calls: list[Call] | None = None

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.builder, name)
        calls = self.calls
        if calls is None or not callable(value):
            return value

        def recorded(*arguments: Any) -> Any:
            result = value(*arguments)
            calls.append(Call(name, value, arguments, result))
            return result

        return recorded

    def check_overflow(self, x: Any, y: Any, operation: str, lowest: int, highest: int) -> None:
        """Raise OverflowError where a sum, difference or product of integers of up to 32 bits is none of them."""
        if self.calls is not None:
            self.calls.append(Call("check_overflow", self.check_overflow, (x, y, operation, lowest, highest), None))
        exact = _EXACT[operation](x.data.astype("int64"), y.data)
        least, greatest = (exact.item(),) * 2 if exact.size == 1 else (exact.min(), exact.max())
        if least < lowest or greatest > highest:
            raise OverflowError(f"the result of an integer {operation} is not between {lowest} and {highest}")


def planned(operation: Callable[..., Any], interpreter: Any) -> Callable[..., Any]:
    """An operation of the language that makes a plan where its operands' types are new, and else follows one."""
    tensor, semantic = core.tensor, interpreter.interpreter_semantic
    recorder: Recorder = semantic.builder
    plans: dict[Any, Plan | None] = {}

    def made(given: Sequence[Any], names: Sequence[str]) -> tuple[Any, Plan | None]:
        given = [tensor(copy(x.handle), x.type) if type(x) is tensor else x for x in given]  # x * x is any x * y
        count, recorder.calls = len(given) - len(names), []
        try:
            result = operation(*given[:count], _semantic=semantic, **dict(zip(names, given[count:], strict=True)))
            return result, _plan(recorder.calls, [x.handle for x in given if type(x) is tensor], result, interpreter)
        finally:
            recorder.calls = None

    def run(*arguments: Any, _semantic: Any = None, **named: Any) -> Any:
        given = (*arguments, *named.values()) if named else arguments
        key = (*[x.type.name if type(x) is tensor else _constant(x) for x in given], *named)
        if recorder.calls is not None or None in key:  # inside another operation, or given what has no key
            return operation(*arguments, _semantic=semantic, **named)
        if key not in plans:
            result, plans[key] = made(given, list(named))
            return result
        plan = plans[key]
        if plan is None:
            return operation(*arguments, _semantic=semantic, **named)
        values = [*[x.handle for x in given if type(x) is tensor], *plan.rest]
        for function, places, place in plan.steps:
            values[place] = function(*[values[i] for i in places])
        if plan.result is None:
            return None
        found = tensor.__new__(tensor)
        found.__dict__ |= plan.described
        found.handle = values[plan.result]
        return found

    return run


def _constant(value: Any) -> tuple[Any, ...] | None:
    """A key that only equal constants of one kind have; None for what is no constant."""
    kind = type(value)
    if kind is int or kind is str or kind is bool or value is None:
        return kind, value
    if kind is float or kind is slice:
        return kind, repr(value)  # 0.0 and -0.0 are equal, and are two constants
    if kind is list or kind is tuple:
        keys = tuple(map(_constant, value))
        return None if None in keys else (kind, keys)
    if isinstance(value, core.constexpr):
        return _constant(value.value)
    return (core.dtype, value.name) if isinstance(value, core.dtype) else None


def _plan(calls: Sequence[Call], operands: Sequence[Any], result: Any, interpreter: Any) -> Plan | None:
    """The plan of an operation that made ``calls``; None where they don't say where a value or the result is from."""
    known = {id(x) for x in (*operands, *(call.result for call in calls))}
    final = getattr(result, "handle", None)
    if result is not None and (type(result) is not core.tensor or id(final) not in known):
        return None
    values, places, steps = list(operands), {id(x): i for i, x in enumerate(operands)}, []
    for call in _without_spreading(calls, final, interpreter.TensorHandle):
        for x in call.arguments:
            if _holds(x, interpreter.TensorHandle) and id(x) not in known:
                return None
            if id(x) not in places:
                places[id(x)] = len(values)
                values.append(x)
        if not call.name.startswith("get_"):  # those return constants
            steps.append((call.function, tuple(places[id(x)] for x in call.arguments), len(values)))
            places[id(call.result)] = len(values)
            values.append(None)
    rest = tuple(values[len(operands) :])
    if result is None:
        return Plan(rest, tuple(steps), None, {})
    return Plan(rest, tuple(steps), places[id(final)], dict(vars(result))) if id(final) in places else None


def _holds(x: Any, handle: type[Any]) -> bool:
    return isinstance(x, handle) or (isinstance(x, list | tuple) and any(isinstance(y, handle) for y in x))


def _without_spreading(calls: Sequence[Call], final: Any, handle: type[Any]) -> list[Call]:
    """The same calls, without copies of operands spread over a block for calls that spread them anyway."""
    narrow: dict[int, Any] = {}
    kept: list[Call] = []
    for call in calls:
        if call.name in _SPREAD and (call.name != "create_expand_dims" or call.arguments[1] == 0):
            x = call.arguments[call.name == "create_splat"]
            narrow[id(call.result)] = narrow.get(id(x), x)
        arguments = tuple(narrow.get(id(x), x) for x in call.arguments)
        kept.append(call._replace(arguments=arguments) if _spreads(call, arguments, handle) else call)
    used = {id(x) for call in kept for x in call.arguments} | {id(final)}
    return [call for call in kept if call.name not in _SPREAD or id(call.result) in used]


def _spreads(call: Call, arguments: Sequence[Any], handle: type[Any]) -> bool:
    """Whether ``call`` gives a result of the same shape when it is given ``arguments``."""
    shapes = [x.data.shape for x in arguments if isinstance(x, handle)]
    return call.name.startswith(_ELEMENTWISE) and (
        call.result is None or torch.broadcast_shapes(*shapes) == call.result.data.shape  # type: ignore[no-untyped-call]
    )

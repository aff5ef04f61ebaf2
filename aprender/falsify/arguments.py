"""Whether ``with`` fits the probe: its names to the keyword arguments, its values to their annotations."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from aprender.contracts.findings import did_you_mean
from aprender.falsify.probe import Probe

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def misfits(target: str, probe: Probe, arguments: Mapping[str, Any]) -> Iterator[tuple[str | None, str]]:
    """What a call with ``arguments`` would not get past: the argument (None: ``with`` as a whole) and a sentence."""
    everything = list(inspect.signature(probe.function).parameters.values())
    if not everything or everything[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        yield None, f"probe {target} takes no system: its first parameter is the system under contract"
        return
    parameters = {one.name: one for one in everything[1:] if one.kind in _NAMED}  # the first one is the system
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in everything)
    for argument in arguments:
        if argument not in parameters and not takes_any:
            known = f"{did_you_mean(argument, parameters)} It takes: {', '.join(parameters) or 'none'}"
            yield argument, f"probe {target} has no keyword argument '{argument}'.{known}"
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            yield None, f"probe {target} needs the keyword argument '{name}'; add it to 'with:'"


def mistyped(target: str, probe: Probe, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The arguments whose value is not of the type that the probe's annotation names."""
    try:
        hints = get_type_hints(probe.function)
    except Exception:  # noqa: BLE001 - an annotation is the user's code, and need not be importable
        return
    for name, value in arguments.items():
        if name in hints and not _fits(value, hints[name]):
            hint = hints[name]
            wanted = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
            message = f"probe {target} takes {name}: {wanted}, not {value!r} ({type(value).__name__})"
            yield name, message


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value may be meant by ``hint``; what is not known to be wrong fits."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Annotated:
        return _fits(value, inner[0])
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    kind = origin or hint
    if kind is NoneType:
        return value is None
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if kind in (bool, str):
        return isinstance(value, kind)
    if kind is dict or kind is Mapping:
        return isinstance(value, dict)
    if kind in (list, tuple, Sequence):
        of_one_type = kind is not tuple and len(inner) == 1
        return isinstance(value, list) and (not of_one_type or all(_fits(one, inner[0]) for one in value))
    return True

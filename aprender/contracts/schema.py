"""Runs the packaged JSON Schema: compiled once to closures, applied to plain data.

The schema file is the only place that says which shape a contract has. ``jsonschema`` is the reference for this engine
(tests hold both to identical violations over thousands of mutated contracts); it is not used here because importing it
takes longer than validating a hundred contracts. Only the keywords below are known: another one in the schema is an
error when it is compiled, never passed over.
"""

# No postponed annotations here: NamedTuple would compile each from its text, which costs as much as a small contract.

import json
import os
import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

KeyPath = tuple[str | int, ...]
FILE = os.path.join(os.path.dirname(__file__), "schema", "contract.schema.json")


class Violation(NamedTuple):
    """One keyword that a value does not satisfy. ``branches`` holds, for anyOf, what each alternative said."""

    path: KeyPath
    keyword: str
    value: Any
    schema: dict[str, Any]
    branches: tuple[tuple["Violation", ...], ...] = ()


Check = Callable[[Any, KeyPath, list[Violation]], None]

_ANNOTATIONS = frozenset(
    ("$schema", "$id", "$defs", "$comment", "title", "description", "default", "examples", "deprecated")
)
# The classes whose every value is of the type; a float may be an integer, so it is looked at.
_CLASSES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "null": (type(None),),
    "number": (int, float), "integer": (int,),
}  # fmt: skip
_NO_CLASSES = frozenset[type]()


@cache
def contract_schema() -> dict[str, Any]:
    """The packaged JSON Schema of both dialects."""
    with open(FILE, encoding="utf-8") as file:
        loaded: dict[str, Any] = json.load(file)
    return loaded


@cache
def _contract_check() -> Check:
    return Compiler(contract_schema()).check


def violations(data: Any) -> list[Violation]:
    """Every violation of the contract schema by ``data``, in the order of the schema."""
    found: list[Violation] = []
    _contract_check()(data, (), found)
    return found


class Compiler:
    """Turns one schema document into a check."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root
        self.references: dict[str, Check] = {}
        self.check = self.compile(root)

    def compile(self, schema: dict[str, Any] | bool) -> Check:
        """One check for all keywords of ``schema``. Raises ValueError for a keyword that is not known."""
        if schema is True or schema == {}:
            return _accept
        if not isinstance(schema, dict):
            raise ValueError("'false' as a schema: this engine takes it only under additionalProperties")
        if "$ref" in schema:
            beside = schema.keys() - _ANNOTATIONS - {"$ref"}
            if beside:
                raise ValueError(f"{', '.join(sorted(beside))} beside $ref: this engine would not apply it")
            return self._reference(schema["$ref"])
        checks = [
            getattr(self, f"_{keyword.lower()}")(schema)
            for keyword in schema
            if keyword not in _NOT_ALONE and _known(keyword)
        ]
        if schema.keys() & _TOGETHER:
            checks.append(self._object(schema))
        checks = [check for check in checks if check is not None]
        return checks[0] if len(checks) == 1 else _all_of(checks)

    def _reference(self, name: str) -> Check:
        """A check that is compiled when it is first needed: an old contract never compiles version 2."""
        target: Check | None = None

        def check(value: Any, path: KeyPath, found: list[Violation]) -> None:
            nonlocal target
            if target is None:
                target = self._target(name)
            target(value, path, found)

        return check

    def _target(self, name: str) -> Check:
        if name not in self.references:
            schema: Any = self.root
            for step in name.removeprefix("#/").split("/"):
                schema = schema[step]
            self.references[name] = self.compile(schema)
        return self.references[name]

    def _if(self, schema: dict[str, Any]) -> Check:
        condition = self.compile(schema["if"])
        then, otherwise = self.compile(schema.get("then", {})), self.compile(schema.get("else", {}))

        def check(value: Any, path: KeyPath, found: list[Violation]) -> None:
            outcome: list[Violation] = []
            condition(value, path, outcome)
            (otherwise if outcome else then)(value, path, found)

        return check

    def _object(self, schema: dict[str, Any]) -> Check:
        properties = schema.get("properties", {})
        right = {key: _certainly_right(value) for key, value in properties.items()}
        known = {key: self.compile(value) for key, value in properties.items()}
        patterns = [(re.compile(key).search, self.compile(v)) for key, v in schema.get("patternProperties", {}).items()]
        additional = schema.get("additionalProperties", True)
        other = None if additional is False else self.compile(additional)

        def check(value: Any, path: KeyPath, found: list[Violation]) -> None:
            if value.__class__ is not dict:
                return
            unknown = False
            for key, entry in value.items():
                if entry.__class__ in right.get(key, _NO_CLASSES):
                    continue
                if (of_key := known.get(key)) is not None:
                    of_key(entry, (*path, key), found)
                elif patterns and (fitting := [of_pattern for matches, of_pattern in patterns if matches(key)]):
                    for of_pattern in fitting:
                        of_pattern(entry, (*path, key), found)
                elif other is None:
                    unknown = True
                else:
                    other(entry, (*path, key), found)
            if unknown:
                found.append(Violation(path, "additionalProperties", value, schema))

        return check

    def _items(self, schema: dict[str, Any]) -> Check:
        right, of_item = _certainly_right(schema["items"]), self.compile(schema["items"])

        def check(value: Any, path: KeyPath, found: list[Violation]) -> None:
            if value.__class__ is list:
                for index, item in enumerate(value):
                    if item.__class__ not in right:
                        of_item(item, (*path, index), found)

        return check

    def _anyof(self, schema: dict[str, Any]) -> Check:
        alternatives = [self.compile(alternative) for alternative in schema["anyOf"]]

        def check(value: Any, path: KeyPath, found: list[Violation]) -> None:
            branches = []
            for alternative in alternatives:
                said: list[Violation] = []
                alternative(value, path, said)
                if not said:
                    return
                branches.append(tuple(said))
            found.append(Violation(path, "anyOf", value, schema, tuple(branches)))

        return check

    def _type(self, schema: dict[str, Any]) -> Check:
        right, whole = _certainly_right({"type": schema["type"]}), "integer" in schema["type"]

        def check(value: Any, path: KeyPath, found: list[Violation]) -> None:
            if value.__class__ not in right and not (whole and value.__class__ is float and value.is_integer()):
                found.append(Violation(path, "type", value, schema))

        return check

    def _required(self, schema: dict[str, Any]) -> Check:
        required = schema["required"]

        def check(value: Any, path: KeyPath, found: list[Violation]) -> None:
            if value.__class__ is dict:
                for key in required:
                    if key not in value:
                        found.append(Violation((*path, key), "required", value, schema))  # noqa: PERF401 - it is rare

        return check

    def _enum(self, schema: dict[str, Any]) -> Check:
        words = frozenset(allowed for allowed in schema["enum"] if isinstance(allowed, str))
        others = [allowed for allowed in schema["enum"] if allowed not in words]

        def accepts(value: Any) -> bool:
            return value in words if value.__class__ is str else any(_equal(value, allowed) for allowed in others)

        return _simple("enum", schema, accepts)

    def _const(self, schema: dict[str, Any]) -> Check:
        return _simple("const", schema, lambda value: _equal(value, schema["const"]))

    def _pattern(self, schema: dict[str, Any]) -> Check:
        matches = re.compile(schema["pattern"]).search
        return _simple("pattern", schema, lambda value: value.__class__ is not str or matches(value) is not None)

    def _maxlength(self, schema: dict[str, Any]) -> Check:
        most = schema["maxLength"]
        return _simple("maxLength", schema, lambda value: value.__class__ is not str or len(value) <= most)

    def _minitems(self, schema: dict[str, Any]) -> Check:
        least = schema["minItems"]
        return _simple("minItems", schema, lambda value: value.__class__ is not list or len(value) >= least)

    def _minimum(self, schema: dict[str, Any]) -> Check:
        least, numbers = schema["minimum"], _CLASSES["number"]
        return _simple("minimum", schema, lambda value: value.__class__ not in numbers or value >= least)

    def _maximum(self, schema: dict[str, Any]) -> Check:
        most, numbers = schema["maximum"], _CLASSES["number"]
        return _simple("maximum", schema, lambda value: value.__class__ not in numbers or value <= most)


_TOGETHER = frozenset(("properties", "patternProperties", "additionalProperties", "then", "else"))
_NOT_ALONE = _ANNOTATIONS | _TOGETHER
_KNOWN = frozenset(
    (
        "if",
        "items",
        "anyOf",
        "type",
        "required",
        "enum",
        "const",
        "pattern",
        "maxLength",
        "minItems",
        "minimum",
        "maximum",
    )
)


def _known(keyword: str) -> bool:
    if keyword not in _KNOWN:
        raise ValueError(f"the contract schema uses '{keyword}', which this engine does not know")
    return True


def _certainly_right(schema: dict[str, Any] | bool) -> frozenset[type]:
    """The classes of values that need no look: all that ``schema`` says is their type."""
    if not isinstance(schema, dict) or schema.keys() - _ANNOTATIONS - {"type"}:
        return frozenset()
    names = schema.get("type", tuple(_CLASSES))
    return frozenset().union(*(_CLASSES[name] for name in ([names] if isinstance(names, str) else names)))


def _equal(value: Any, allowed: Any) -> bool:
    """Equality of JSON: true is not 1."""
    return bool(value == allowed) and (value.__class__ is bool) == (allowed.__class__ is bool)


def _accept(value: Any, path: KeyPath, found: list[Violation]) -> None:
    pass


def _all_of(checks: list[Check]) -> Check:
    def check(value: Any, path: KeyPath, found: list[Violation]) -> None:
        for one in checks:
            one(value, path, found)

    return check


def _simple(keyword: str, schema: dict[str, Any], accepts: Callable[[Any], bool]) -> Check:
    def check(value: Any, path: KeyPath, found: list[Violation]) -> None:
        if not accepts(value):
            found.append(Violation(path, keyword, value, schema))

    return check

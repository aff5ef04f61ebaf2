"""Typed look-ups in a checkpoint's key-value data that gather every problem before anything is refused."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping

from aprender.errors import FormatError

MAX_LAYERS = 10_000


class Fields:
    """The values of one file. A look-up that fails notes why and returns a placeholder; ``check`` then raises.

    Nothing here has a default: a key that is absent or null is missing. Read all fields, call ``check``, and
    only then use what was read.
    """

    def __init__(self, where: str, values: Mapping[str, object]) -> None:
        self._where = where
        self._values = values
        self._missing: list[str] = []
        self._problems: list[str] = []

    def __contains__(self, key: str) -> bool:
        return self.value(key) is not None

    def value(self, key: str) -> object:
        """Whatever stands there, None for nothing."""
        return self._values.get(key)

    def keys_after(self, prefix: str) -> list[str]:
        """The keys that begin with ``prefix`` and have a value."""
        return [key for key, value in self._values.items() if key.startswith(prefix) and value is not None]

    def integer(self, key: str) -> int:
        """A whole number; a boolean or 1.0 is none."""
        value = self.value(key)
        if _is_integer(value):
            return value  # type: ignore[return-value]  # narrowed by _is_integer
        self._note(key, value, "a whole number")
        return 0

    def layers(self, key: str) -> int:
        """A number of layers, bounded: what is said of each layer is written down for each."""
        value = self.integer(key)
        if value <= MAX_LAYERS:
            return value
        self.refuse(f"{key} is {value}, more than any model has (at most {MAX_LAYERS} are read); the file is corrupt")
        return 0

    def number(self, key: str) -> float:
        """A whole or decimal number that a float can hold; a boolean is none."""
        value = self.value(key)
        if isinstance(value, float):
            return value
        if _is_integer(value):
            try:
                return float(value)  # type: ignore[arg-type]  # narrowed by _is_integer
            except OverflowError:
                self._note(key, value, "a number below 1e308")
                return 0.0
        self._note(key, value, "a number")
        return 0.0

    def boolean(self, key: str) -> bool:
        """True or false; 0 and 1 are neither."""
        value = self.value(key)
        if isinstance(value, bool):
            return value
        self._note(key, value, "true or false")
        return False

    def text(self, key: str) -> str:
        """A string."""
        value = self.value(key)
        if isinstance(value, str):
            return value
        self._note(key, value, "a string")
        return ""

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        value = self.value(key)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        self._note(key, value, "a list of strings")
        return []

    def integers(self, key: str) -> list[int]:
        """A list of whole numbers."""
        value = self.value(key)
        if isinstance(value, list) and all(_is_integer(item) for item in value):
            return value
        self._note(key, value, "a list of whole numbers")
        return []

    def refuse(self, problem: str) -> None:
        """Note a problem that the caller found."""
        self._problems.append(problem)

    def check(self) -> None:
        """Raise one FormatError that names every missing key and every other problem, if there is any."""
        problems = [f"missing {', '.join(self._missing)}"] if self._missing else []
        problems += self._problems
        if problems:
            raise FormatError(f"{self._where}: {'; '.join(problems)}")

    def _note(self, key: str, value: object, wanted: str) -> None:
        if value is None:
            self._missing.append(key)
        else:
            self._problems.append(f"{key} is {reprlib.repr(value)}, must be {wanted}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

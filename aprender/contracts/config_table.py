"""The table ``[tool.pv]``: what may stand in it, and the line of what may not."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from typing import Any

from aprender.contracts.findings import did_you_mean
from aprender.contracts.selection import check_selectors
from aprender.errors import AprenderError

KEYS = ("paths", "select", "ignore", "strict")
TABLE = "[tool.pv]"


def config_table(text: str, file: str) -> dict[str, Any] | None:
    """The table as keyword arguments of Config, None where ``text`` has none. Raises AprenderError."""
    try:
        tool = tomllib.loads(text).get("tool")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise AprenderError(f"{file}: not valid TOML: {error}") from error
    table = tool.get("pv") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise AprenderError(f"{file}: tool.pv must be a table: {TABLE}")
    return None if table is None else _Checker(file, text).checked(table)


class _Checker:
    """What may stand in the table, with the line of what may not."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.lines = file, text.splitlines()

    def checked(self, table: dict[str, Any]) -> dict[str, Any]:
        for key in table:
            if key not in KEYS:
                hint = did_you_mean(key, KEYS)
                raise self.error(key, f"{TABLE} has no key '{key}'.{hint} Keys: {', '.join(KEYS)}")
        strict = table.get("strict", False)
        if not isinstance(strict, bool):
            raise self.error("strict", f"strict must be true or false, not {_name(strict)}")
        checked: dict[str, Any] = {key: self.names(key, table[key]) for key in KEYS[:3] if key in table}
        if "paths" in checked:
            folder = os.path.dirname(self.file)
            checked["paths"] = tuple(os.path.normpath(os.path.join(folder, path)) for path in checked["paths"])
        return {**checked, "strict": strict}

    def names(self, key: str, value: Any) -> tuple[str, ...]:
        """``value`` as a list of texts; rules are in upper case and exist."""
        if not isinstance(value, list) or not all(isinstance(entry, str) and entry.strip() for entry in value):
            example = '["contracts"]' if key == "paths" else '["SCHEMA-013"]'
            raise self.error(key, f"{key} must be a list of texts, such as {example}, not {_name(value)}")
        if key == "paths":
            if not value:
                raise self.error(key, "paths is empty: name a contract or a folder of contracts")
            return tuple(value)
        check_selectors((entry.upper() for entry in value), lambda selector: self.place(key, selector))
        return tuple(entry.upper() for entry in value)

    def error(self, key: str, message: str) -> AprenderError:
        return AprenderError(f"{self.place(key)}: {message}")

    def place(self, key: str, entry: str | None = None) -> str:
        """``file:line`` of ``key``, or of ``entry`` in its list. tomllib knows no lines, so they are looked for."""
        quoted = re.escape(key)
        in_table = rf"\s*[\"']?{quoted}[\"']?\s*[.=]|\s*\[+\s*tool\s*\.\s*pv\s*\.\s*[\"']?{quoted}\b"
        elsewhere = rf".*\bpv\b.*\b{quoted}\b"  # pv.strict = 1, or pv = {strict = 1}
        header = _first(r"\s*\[\s*tool\s*\.\s*pv\b", self.lines, 0)
        line = _first(in_table, self.lines, header or 0)
        if line is None:
            line = _first(elsewhere, self.lines, 0)
        if line is not None and entry is not None:
            line = _first(rf"(?i).*[\"']{re.escape(entry)}[\"']", self.lines, line) or line
        found = line if line is not None else header
        return self.file if found is None else f"{self.file}:{found + 1}"


def _first(pattern: str, lines: Iterable[str], start: int) -> int | None:
    """The index of the first line from ``start`` on that begins with ``pattern``."""
    begins = re.compile(pattern).match
    return next((index for index, line in enumerate(lines) if index >= start and begins(line)), None)


def _name(value: Any) -> str:
    """``value`` in the words of TOML."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "this list", dict: "a table"}
    return names.get(type(value), "a date or time")

"""``[tool.pv]`` in the nearest pyproject.toml that has it, looked for upwards until the top of the repository.

Reading costs next to nothing where there is no such table: tomllib is imported only for a text that mentions it. What
is wrong with the table is one AprenderError that names the line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from aprender.contracts.findings import did_you_mean
from aprender.contracts.selection import check_selectors
from aprender.errors import AprenderError

FILE = "pyproject.toml"
TABLE = "[tool.pv]"


class Config(NamedTuple):
    """What a project says once, so that nobody has to say it on every command line, which beats it."""

    paths: tuple[str, ...] = ("contracts",)
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    strict: bool = False


def read_config(start: str = ".") -> Config:
    """The configuration for a command that is run in ``start``; paths in it are relative to the folder of its file.

    Raises AprenderError where the table has an unknown key, a value of the wrong type, or a rule that does not exist.
    """
    folder, real = start, os.path.abspath(start)
    while True:
        file = os.path.normpath(os.path.join(folder, FILE))
        text = _text(file)
        if "pv" in text and ("tool.pv" in text or "[tool]" in text):
            table = _table(text, file)
            if table is not None:
                return _Checker(file, text).config(table)
        above = os.path.dirname(real)
        if above == real or os.path.exists(os.path.join(folder, ".git")):
            return Config()
        folder, real = os.path.join(folder, os.pardir), above


def _text(file: str) -> str:
    """The text of ``file``, empty where there is none; bytes that are no UTF-8 do no harm in a comment."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""
    except OSError as error:
        raise AprenderError(f"{file}: can't be read: {error.strerror}") from error


def _table(text: str, file: str) -> dict[str, Any] | None:
    import tomllib  # takes longer than checking a contract, and most projects have no such table

    try:
        tool = tomllib.loads(text).get("tool")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise AprenderError(f"{file}: not valid TOML: {error}") from error
    table = tool.get("pv") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise AprenderError(f"{file}: tool.pv must be a table: {TABLE}")
    return table


class _Checker:
    """Table to Config, with the line of what is wrong."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.lines = file, text.splitlines()

    def config(self, table: dict[str, Any]) -> Config:
        for key in table:
            if key not in Config._fields:
                hint = did_you_mean(key, Config._fields)
                raise self.error(key, f"{TABLE} has no key '{key}'.{hint} Keys: {', '.join(Config._fields)}")
        strict = table.get("strict", False)
        if not isinstance(strict, bool):
            raise self.error("strict", f"strict must be true or false, not {_name(strict)}")
        names = {key: self.names(key, table[key]) for key in ("paths", "select", "ignore") if key in table}
        if "paths" in names:
            folder = os.path.dirname(self.file)
            names["paths"] = tuple(os.path.normpath(os.path.join(folder, path)) for path in names["paths"])
        return Config(**names, strict=strict)

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

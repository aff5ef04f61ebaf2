"""``[tool.pv]`` in the nearest pyproject.toml that has it, looked for upwards until the top of the repository.

Reading costs next to nothing where there is no such table: what parses and checks it is imported only for a text that
mentions it.
"""

# No postponed annotations here: NamedTuple would compile each from its text, which costs as much as a small contract.

import os
from typing import NamedTuple

from aprender.errors import AprenderError

FILE = "pyproject.toml"
_SQUEEZED = str.maketrans("", "", " \t\"'")


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
        if "pv" in text and _may_have_the_table(text):
            from aprender.contracts.config_table import config_table

            table = config_table(text, file)
            if table is not None:
                return Config(**table)
        above = os.path.dirname(real)
        if above == real or os.path.exists(os.path.join(folder, ".git")):
            return Config()
        folder, real = os.path.join(folder, os.pardir), above


def _may_have_the_table(text: str) -> bool:
    """TOML has many spellings: ``[ tool . "pv" ]``, ``pv = ...`` below ``[tool]``, ``tool = {pv = ...}``."""
    squeezed = text.translate(_SQUEEZED)
    return any(spelling in squeezed for spelling in ("tool.pv", "[tool]", "tool={"))


def _text(file: str) -> str:
    """The text of ``file``, empty where there is none; bytes that are no UTF-8 do no harm in a comment."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""
    except OSError as error:
        raise AprenderError(f"{file}: can't be read: {error.strerror}") from error

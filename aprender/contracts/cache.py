"""What was found in files that have not changed: one file per set of paths in the user's cache folder.

An entry goes by the digest of a file's bytes; the whole goes by the digest of this tool (its code, schema, version),
the Python that runs it and today's date (some rules ask whether a date has passed). A pack that is damaged, of another
version or unreadable is as good as none: the files are validated again. Writing is atomic; the last of several
concurrent runs wins, and any of them is right.
"""

from __future__ import annotations

import json
import os
import sys
import time
from _blake2 import blake2b  # hashlib would import OpenSSL
from collections.abc import Sequence
from typing import Any

from aprender import __version__

KEPT_DAYS = 30
_HERE = os.path.dirname(__file__)


def cache_folder() -> str:
    """Where packs are kept: XDG_CACHE_HOME (its specification: a relative one is ignored), or the platform's place."""
    if os.path.isabs(folder := os.environ.get("XDG_CACHE_HOME", "")):
        base = folder
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    elif os.name == "nt":
        base = os.environ.get("LOCALAPPDATA", os.path.expanduser("~"))
    else:
        base = os.path.expanduser("~/.cache")
    return os.path.join(base, "aprender", "validate")


def digest(content: bytes) -> str:
    """What an entry goes by."""
    return blake2b(content, digest_size=20).hexdigest()


class Pack:
    """The entries of one set of paths. ``entries`` maps the digest of a content to plain data."""

    def __init__(self, paths: Sequence[str]) -> None:
        where = "\0".join(map(os.path.abspath, paths))
        self.file = os.path.join(cache_folder(), f"{digest(where.encode(errors='surrogateescape'))}.json")
        self.tool = _tool_digest()
        self.entries: dict[str, Any] = {}
        self.used: dict[str, Any] = {}
        self._read()

    def get(self, key: str) -> Any | None:
        """The entry for ``key``, or None."""
        entry = self.entries.get(key)
        if entry is not None:
            self.used[key] = entry
        return entry

    def put(self, key: str, entry: Any) -> None:
        """Keep ``entry`` under ``key``."""
        self.used[key] = entry

    def write(self) -> None:
        """Write what this run used, where it differs from what is there. A cache that can't be written is no error."""
        if self.used.keys() == self.entries.keys():
            return
        body = json.dumps(self.used, ensure_ascii=True, separators=(",", ":"))
        temporary = f"{self.file}.{os.getpid()}"
        try:
            os.makedirs(os.path.dirname(self.file), mode=0o700, exist_ok=True)
            _remove_old(os.path.dirname(self.file))
            with open(temporary, "w", encoding="ascii") as file:
                file.write(f"{self._seal(body)}\n{body}")
            os.replace(temporary, self.file)
        except OSError:
            return

    def _read(self) -> None:
        try:
            with open(self.file, encoding="ascii") as file:
                seal, _, body = file.read().partition("\n")
        except (OSError, ValueError):
            return
        if seal == self._seal(body):
            self.entries = json.loads(body)

    def _seal(self, body: str) -> str:
        return digest(f"{self.tool}\n{body}".encode())


def _tool_digest() -> str:
    """Changes when any file that a finding depends on does."""
    parts = [__version__, sys.version, time.strftime("%Y-%m-%d", time.gmtime())]
    for folder, folders, names in os.walk(_HERE):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            status = os.stat(os.path.join(folder, name))
            parts.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return digest("\n".join(parts).encode())


def _remove_old(folder: str) -> None:
    for entry in os.scandir(folder):
        if entry.stat().st_mtime < time.time() - KEPT_DAYS * 86400:
            os.unlink(entry.path)

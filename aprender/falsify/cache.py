"""Observations kept from earlier runs, so that nothing is measured twice while nothing changed.

An entry holds raw observations, never verdicts: the judge judges anew each time. Its key is the digest of all that
an observation depends on; the input files (weights, texts) are checked against their digests on every use.
Deleting the folder is always safe.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aprender.falsify.digest import digest, file_digest


class ObservationCache:
    """A folder of JSON files, one per observation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file_digests: dict[str, str | None] = {}

    def get(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The entry stored under ``key``, or None where there is none, it is corrupt, or an input file changed."""
        try:
            entry = json.loads(self._path(key).read_text("utf-8"))
            payload: dict[str, Any] = entry["payload"]
            intact = entry["sha256"] == digest(payload)
            unchanged = all(self._digest_now(file) == known for file, known in payload["inputs"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return payload if intact and unchanged else None

    def put(self, key: Mapping[str, Any], payload: dict[str, Any]) -> None:
        """Store ``payload`` atomically. A full or read-only disk costs only the saved work, so it passes silently."""
        path = self._path(key)
        text = json.dumps({"payload": payload, "sha256": digest(payload)})
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                Path(temporary).replace(path)
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise

    def _path(self, key: Mapping[str, Any]) -> Path:
        return self.folder / f"{digest(key)}.json"

    def _digest_now(self, file: str) -> str | None:
        if file not in self._file_digests:
            path = Path(file)
            self._file_digests[file] = file_digest(path) if path.is_file() else None
        return self._file_digests[file]

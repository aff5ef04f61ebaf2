"""Observations kept from earlier runs, so that nothing is measured twice while nothing changed.

An entry holds raw observations, never verdicts: the judge judges anew each time. Its key is all that an observation
depends on; the files it depends on are checked against their digests on every use. Deleting the folder is always safe.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aprender.errors import AprenderError
from aprender.falsify.digest import digest, file_digest


class ObservationCache:
    """A folder of JSON files under a project's root, one per observation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".pv" / "observations"

    def get(self, key: Mapping[str, Any], valid_for: timedelta | None) -> dict[str, Any] | None:
        """The entry stored under ``key``, or None.

        None, too, where it is corrupt or another key's, older than ``valid_for`` or from the future, or where a file
        that it depends on is no longer what it was.
        """
        try:
            entry = json.loads(self._path(key).read_text("utf-8"))
            payload: dict[str, Any] = entry["payload"]
            intact = entry["sha256"] == digest({"key": key, "payload": payload})
            age = datetime.now(UTC) - datetime.fromisoformat(payload["observed_at"])
            fresh = timedelta(0) <= age and (valid_for is None or age <= valid_for)
            unchanged = all(self._digest_now(file) == known for file, known in payload["inputs"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, AprenderError):
            return None
        return payload if intact and fresh and unchanged else None

    def put(self, key: Mapping[str, Any], payload: dict[str, Any]) -> None:
        """Store ``payload`` atomically. A full or read-only disk costs only the saved work, so it passes silently."""
        path = self._path(key)
        text = json.dumps({"payload": payload, "sha256": digest({"key": key, "payload": payload})})
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
        path = self.root / file  # an absolute path stays what it is
        return file_digest(path) if path.is_file() else None

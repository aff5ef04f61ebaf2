"""A contract of the published dialect as the version 2 that ``pv migrate`` makes of it: only then is it compared."""

from __future__ import annotations

from aprender.contracts.document import Document, KeyPath
from aprender.contracts.findings import Position
from aprender.contracts.migrate import Steps, in_original, steps_of


class Migrated(Document):
    """The data of version 2 with the places of the text that the author has.

    ``aside`` are, for each mapping by its path, the keys that version 2 does not look at: there they are called ``x-``.
    """

    __slots__ = ("aside", "steps")

    def __init__(self, steps: Steps) -> None:
        document = steps.document
        super().__init__(document.file, document.text)
        self.roots, self.places, self.data = document.roots, document.places, document.data
        self.containers, self.steps = document.containers, steps
        self.aside: dict[KeyPath, set[str]] = {}
        for edits in steps.done:
            for path, name in edits.keys.items():
                if name == f"x-{path[-1]}":
                    self.aside.setdefault(path[:-1], set()).add(str(path[-1]))

    def position(self, path: KeyPath) -> Position:
        """Where what stands at ``path`` in version 2 came from."""
        return in_original([super().position(path)], self.steps.done)[0]


def as_version_2(old: Document, new: Document) -> Document:
    """OLD, or what ``pv migrate`` makes of it where NEW is version 2 and OLD says no version."""
    if "schema_version" in old.data or new.data.get("schema_version") != 2:
        return old
    return Migrated(steps_of(old))

"""What ``pv migrate`` prints: one line per file, what it could not decide, and with --check a diff."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from aprender.contracts.migrate import Migration

NO_NEWLINE = "\\ No newline at end of file"


def migration_text(migration: Migration, *, check: bool) -> str:
    """What became of one file."""
    file = migration.file
    if migration.problems:
        listed = (f"{f.file}:{f.line}:{f.column}: {f.rule} {f.message}" for f in migration.problems)
        what = f"{file}: not migrated and not changed; mend this first"
        return "\n".join([*listed, f"{what} ({len(migration.problems)} in all)"])
    if not migration.changed:
        return f"{file}: is version 2, nothing to do"
    notes = "".join(f"\n  {note}" for note in migration.notes)
    return f"{file}: {'would be migrated' if check else 'migrated'} to version 2{notes}"


def migration_summary(migrations: Sequence[Migration], *, check: bool) -> str:
    """The denominators."""
    changed = sum(one.changed for one in migrations)
    refused = sum(bool(one.problems) for one in migrations)
    verb = "would be migrated" if check else "migrated"
    before = len(migrations) - changed - refused
    return f"{len(migrations)} files: {changed} {verb}, {refused} not, {before} version 2 before"


def migration_diff(migration: Migration) -> str:
    """A unified diff from the file to what it would be."""
    file = migration.file.lstrip("/")
    lines = difflib.unified_diff(_lines(migration.before), _lines(migration.after), f"a/{file}", f"b/{file}")
    return "".join(line if line.endswith("\n") else f"{line}\n{NO_NEWLINE}\n" for line in lines).rstrip("\n")


def _lines(content: bytes) -> list[str]:
    """The lines as diffs know them: str.splitlines breaks at form feeds and the like, too."""
    return [line for line in re.split(r"(?<=\n)", content.decode("utf-8-sig")) if line]

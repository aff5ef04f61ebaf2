"""``pv migrate``: contracts of the published dialect become version 2; comments, order and quotes stay."""

from __future__ import annotations

import argparse
import os
import tempfile

from aprender.cli.console import complain, say
from aprender.contracts.files import STANDARD_INPUT, contract_files, read_content
from aprender.contracts.findings import Finding
from aprender.contracts.migrate import Migration, migrate
from aprender.errors import AprenderError
from aprender.reports.migration_text import migration_diff, migration_summary, migration_text

HOLDS, NOT_MIGRATED = 0, 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = (
        "A file becomes valid version 2 or stays as it is, with the list of what a person must decide. "
        "Exit codes: 0 every file is version 2 now; 1 one is not, or with --check one would change."
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="contracts, or folders of them")
    parser.add_argument("--check", action="store_true", help="write nothing, print what would change as a diff")


def run(arguments: argparse.Namespace) -> int:
    """Migrate each file, write it, and say what was done."""
    if STANDARD_INPUT in arguments.files:
        raise AprenderError("pv migrate changes files in place; name a file instead of -")
    migrations = [_migration(file) for file in contract_files(arguments.files).files]
    for migration in migrations:
        if arguments.check and migration.changed:
            say(migration_diff(migration))
        elif migration.changed:
            _write(migration.file, migration.after)
        say(migration_text(migration, check=arguments.check))
    complain(migration_summary(migrations, check=arguments.check))
    undone = any(one.problems or (arguments.check and one.changed) for one in migrations)
    return NOT_MIGRATED if undone else HOLDS


def _migration(file: str) -> Migration:
    content = read_content(file)
    return Migration(file, b"", b"", (), (content,)) if isinstance(content, Finding) else migrate(content, file)


def _write(file: str, content: bytes) -> None:
    """Replace the file's content at once: nobody ever sees half of it, and a link stays a link."""
    target = os.path.realpath(file)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=f".{os.path.basename(target)}.")
    try:
        with open(handle, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), os.stat(target).st_mode & 0o7777)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise

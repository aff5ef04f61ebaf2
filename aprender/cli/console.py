"""What the commands print, and how they end: reports to standard output, one sentence per problem to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from aprender.contracts.files import NothingToDo
from aprender.errors import AprenderError
from aprender.reports.colour import plain

NOTHING_TO_DO, NOT_PROVEN, INTERRUPTED = 2, 3, 130  # as aprender.falsify.verdict, which is not imported for this


def say(text: str) -> None:
    """Print to standard output; colour only on a terminal, and not where NO_COLOR is set.

    What the encoding of standard output can't hold is escaped: a contract or the name of a file may hold anything.
    """
    encoding = sys.stdout.encoding
    shown = text if _takes_colour() else plain(text)
    sys.stdout.write(f"{shown.encode(encoding, 'backslashreplace').decode(encoding)}\n")


def complain(text: str, program: str = "pv") -> None:
    """Print one problem to standard error."""
    if sys.stderr is not None:  # it is None where the caller closed it
        sys.stderr.write(f"{program}: {text}\n")


def exit_status(
    command: Callable[[], int], program: str = "pv", refused: int = NOTHING_TO_DO, failed: int = NOT_PROVEN
) -> int:
    """Run ``command``; what goes wrong becomes one sentence and a documented exit code, never a traceback.

    ``refused`` is the code where something that was given can't be used, ``failed`` where the machine or we failed.
    """
    if sys.stdout is None:
        complain("error: standard output is closed; there is nowhere to print to", program)
        return failed
    try:
        status = command()
        sys.stdout.flush()
    except NothingToDo as error:
        complain(str(error), program)
        status = NOTHING_TO_DO
    except AprenderError as error:
        complain(f"error: {error}", program)
        status = refused
    except KeyboardInterrupt:
        kept = "; finished observations are kept and will be reused" if program == "pv" else ""
        complain(f"interrupted{kept}", program)
        status = INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        _detach_standard_output()
        status = failed
    except OSError as error:
        complain(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror}", program)
        _detach_standard_output()
        status = failed
    except Exception as error:  # noqa: BLE001 - a fault of ours must not exit with the code of RED
        import traceback

        frame = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
        complain(f"internal error, please report it: {what}", program)
        status = failed
    return status


def _takes_colour() -> bool:
    return not os.environ.get("NO_COLOR") and sys.stdout.isatty()


def _detach_standard_output() -> None:
    """The interpreter flushes standard output when it ends; what can't be written must not fail there again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

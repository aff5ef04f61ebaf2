"""Progress of long work on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aprender.contracts.contract import Falsifier

OnStep = Callable[[Falsifier, str], None]


@contextmanager
def shown(steps: int, *, quiet: bool) -> Iterator[OnStep]:
    """Yield the callback that advances the display; ``quiet`` shows nothing unless there is a terminal."""
    if sys.stderr.isatty():
        with _bar(steps) as on_step:
            yield on_step
    elif quiet:
        yield lambda falsifier, step: None
    else:
        yield _line


def _line(falsifier: Falsifier, step: str) -> None:
    if step == "clean run":
        classes = len(falsifier.defect_classes)
        sys.stderr.write(f"{falsifier.id}: clean run, then {classes} planted defect{'' if classes == 1 else 's'}\n")


@contextmanager
def _bar(steps: int) -> Iterator[OnStep]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=steps)
        done = -1

        def on_step(falsifier: Falsifier, step: str) -> None:
            nonlocal done
            done += 1
            bar.update(task, completed=done, description=f"{falsifier.id}: {step}")

        yield on_step

"""A progress bar on a terminal, and none anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with each amount done; the bar is on standard error and vanishes at the end."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # only where something is drawn
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda amount: progress.advance(task, amount)

"""How many threads torch computes on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def threads(count: int) -> Generator[None]:
    """Torch on ``count`` threads, for the time of a ``with`` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` with torch on one thread: so small a model is faster so, and sums are in one order on every host."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with threads(1):
            return function(*args, **kwargs)

    return run

"""How defects are planted in the oracle: functions of its modules replaced by wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import ModuleType
from typing import Any

from falsifiers.oracle_system import OracleUnderContract

Planting = Generator[None]


def wrong(
    system: OracleUnderContract, owner: ModuleType | type, name: str, make: Callable[[Callable[..., Any]], Any]
) -> Planting:
    """Replace the function ``name`` of ``owner`` by ``make(original)`` until the planting is undone."""
    with system.replaced(owner, name, make(getattr(owner, name))):
        yield

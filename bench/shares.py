"""How far a share that was counted may be from the true one."""

from __future__ import annotations


def interval(hits: int, of: int) -> tuple[float, float, float]:
    """The share ``hits`` of ``of`` with its 95% interval (Wilson 1927): low, share, high."""
    if not of:
        return 0.0, 0.0, 1.0
    share, z2 = hits / of, 1.959964**2
    middle = share + z2 / (2 * of)
    wide = (z2 * (share * (1 - share) / of + z2 / (4 * of * of))) ** 0.5
    return (middle - wide) / (1 + z2 / of), share, (middle + wide) / (1 + z2 / of)

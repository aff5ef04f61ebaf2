"""Days as numbers, and today."""

from __future__ import annotations

import re
import time
from typing import Any

MAX_DAYS = 180  # how long a comparison is good for, and how far ahead any date may lie


def day_number(value: Any) -> int | None:
    """The number of the day that an ISO date (``2026-11-22``) names; None for everything else."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value.strip()):
        return None
    from datetime import date

    try:
        return date.fromisoformat(value.strip()).toordinal()
    except ValueError:
        return None


def today() -> int:
    """The number of today, in UTC."""
    from datetime import date

    now = time.gmtime()
    return date(now.tm_year, now.tm_mon, now.tm_mday).toordinal()

"""How many findings the selection of rules left out: what is hidden is always counted."""

# No postponed annotations here: NamedTuple would compile each from its text, which costs as much as a small contract.

from typing import NamedTuple


class Hidden(NamedTuple):
    """What ``--select`` and ``--ignore`` left out. False where that is nothing."""

    errors: int = 0
    warnings: int = 0

    def __bool__(self) -> bool:
        return bool(self.errors or self.warnings)

    def __str__(self) -> str:
        counts = ((self.errors, "error"), (self.warnings, "warning"))
        return ", ".join(f"{count:,} {word}{'' if count == 1 else 's'}" for count, word in counts if count)


NOTHING_HIDDEN = Hidden()

"""What stands before the place where reading had to stop: it is checked, too.

Next to a syntax error nobody knows where an entry was meant to end, so that the one that the error is in is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aprender.contracts.document import Document

# A container that is open: its key in the one around it (None in a list, and where the key stood there before), the
# marks of that key and of itself, and itself.
Open = tuple[Any, tuple[Any, Any], Any]


def before_error(document: Document, path: Sequence[Open]) -> Document | None:
    """The ``document`` before a syntax error, without the entry of a block that was open; None if it is no mapping.

    ``path`` holds what was open, the outermost first.
    """
    if path and not document.roots:
        _, (_, mark), root = path[0]
        document.roots.append(root)
        document.places[id(document.roots)].append(mark)
    if not document.roots or not isinstance(document.roots[0], dict):
        return None
    document.data, document.open_block = document.roots[0], ()
    if len(path) > 1 and path[1][0] is not None:
        document.open_block, place, block = path[1]
        document.data[document.open_block] = block
        document.places[id(document.data)][document.open_block] = place
    if len(path) in (1, 2):
        _drop_last(path[-1][2], scalar=True)  # it may be more, or less, than was meant
    return document


def before_line(document: Document) -> Document | None:
    """The ``document`` of a file's first lines without its last entry, which may go on after them."""
    data = document.data
    if not isinstance(data, dict) or not data:
        return None
    document.open_block = next(reversed(data))
    last = data[document.open_block]
    _drop_last(last if isinstance(last, dict | list) and last else data)
    return document


def _drop_last(container: Any, *, scalar: bool = False) -> None:
    """Remove the last entry of ``container``; with ``scalar`` only one that is no container itself."""
    if container:
        last = len(container) - 1 if isinstance(container, list) else next(reversed(container))
        if not scalar or not isinstance(container[last], dict | list):
            del container[last]

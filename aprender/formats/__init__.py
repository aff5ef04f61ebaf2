"""Loading of weights: Hugging Face safetensors folders and GGUF files become a ``Checkpoint``, or are refused.

Importing this package imports neither torch, numpy nor tokenizers: ``source_files`` and ``sha256_of`` serve
commands that only need digests. ``load_checkpoint`` imports them when it is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aprender.formats.digest import sha256_of
from aprender.formats.sources import source_files

if TYPE_CHECKING:
    from aprender.formats.checkpoint import Checkpoint

__all__ = ["load_checkpoint", "sha256_of", "source_files"]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read the checkpoint at ``path``: see ``aprender.formats.load.load_checkpoint``."""
    from aprender.formats import load

    return load.load_checkpoint(path)

"""``hf:ORG/NAME[@REVISION]``: models of the Hugging Face hub, from the local cache first."""

from __future__ import annotations

import re
from pathlib import Path

from aprender.errors import FormatError

_SCHEME = "hf:"
_NAME = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?")
_FILES = ("*.json", "*.safetensors", "*.jinja")  # no pickles, whatever else is there


def resolve(path: Path) -> Path:
    """The folder that ``path`` names: itself, or the hub's snapshot of the model after ``hf:``.

    A snapshot in the local cache is used as it is, without asking the network; else it is downloaded. Raises
    FormatError where the name is none, or the model is neither there nor to be had.
    """
    if not str(path).startswith(_SCHEME):
        return path
    match = _NAME.fullmatch(str(path).removeprefix(_SCHEME))
    if not match:
        raise FormatError(f"{path}: is no model of the hub; give hf:ORG/NAME or hf:ORG/NAME@REVISION")
    return _snapshot(path, match["repo"], match["revision"])


def _snapshot(path: Path, repo: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise FormatError(f"{path}: needs the package huggingface_hub; install aprender[torch]") from error
    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
        if (folder / "config.json").exists():  # else only some other file of the model was ever fetched
            return folder
    except (LocalEntryNotFoundError, ValueError, OSError):
        pass  # not in the cache
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(_FILES)))
    except Exception as error:  # the library and its network stack raise many kinds
        first_line = str(error).strip().partition("\n")[0] or type(error).__name__
        raise FormatError(
            f"{path}: is not in the local hub cache and can't be downloaded ({first_line}); "
            f"fetch it where there is a network ('hf download {repo}'), or give a model folder"
        ) from error

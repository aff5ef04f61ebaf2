"""Which files a checkpoint is read from, decided without importing torch, numpy or tokenizers."""

from __future__ import annotations

from pathlib import Path

from aprender.errors import FormatError
from aprender.formats import apr_header, gguf_header
from aprender.formats.files import open_file, unreadable
from aprender.formats.hub import resolve
from aprender.formats.safetensors_header import INDEX, SINGLE, weight_files
from aprender.formats.usage import OPTIONAL_FILES

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
FOLDER_FILES = (CONFIG, SINGLE, TOKENIZER)

_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_ZIP_MAGIC = b"PK\x03\x04"  # torch.save has written a zip archive of pickles since torch 1.6
_PICKLE_MAGICS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_CONVERT = "a pickle can run any code when it is opened, so none is; convert it to safetensors and load that"


def source_files(path: Path) -> tuple[Path, ...]:
    """The files that the checkpoint at ``path`` (or ``hf:ORG/NAME``) is read from, in a fixed order.

    A folder gives its config.json, its weights (model.safetensors, or index and shards), its tokenizer.json and what
    else there is of generation_config.json, tokenizer_config.json and chat_template.jinja; a GGUF or .apr file gives
    itself. Only names and the first bytes are looked at. Raises FormatError when ``path`` is missing or isn't a
    checkpoint.
    """
    path = resolve(path)
    try:
        if path.is_dir():
            return _folder_files(path)
        _check_single_file(path)
    except OSError as error:
        raise unreadable(path, error) from error
    return (path,)


def _folder_files(folder: Path) -> tuple[Path, ...]:
    has_index = (folder / INDEX).is_file()
    missing = [name for name in FOLDER_FILES if not (folder / name).is_file() and not (name == SINGLE and has_index)]
    if missing:
        hint = "; ".join(_folder_hints(folder, missing))
        raise FormatError(f"{folder}: has no {' and no '.join(missing)}; {hint}")
    optional = (folder / name for name in OPTIONAL_FILES if (folder / name).is_file())
    files = (folder / CONFIG, *weight_files(folder), folder / TOKENIZER, *optional)
    for file in files:
        if file.stat().st_size == 0:
            raise FormatError(f"{file}: is empty; fetch the file again")
    return files


def _folder_hints(folder: Path, missing: list[str]) -> list[str]:
    """What to do about the missing files, most specific first."""
    hints = []
    if SINGLE in missing and (pickles := sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLE_SUFFIXES)):
        hints.append(f"{pickles[0]} holds pickled weights: {_CONVERT}")
    if CONFIG in missing and (files := sorted(p.name for p in folder.iterdir() if p.suffix in (".gguf", ".apr"))):
        hints.append(f"to load a GGUF or .apr file, give the file itself, such as {folder / files[0]}")
    if TOKENIZER in missing and (folder / "tokenizer.model").exists():
        hints.append("tokenizer.model is not read; convert it to tokenizer.json")
    return hints or [f"a model folder holds {', '.join(FOLDER_FILES)}"]


def _check_single_file(path: Path) -> None:
    with open_file(path) as file:
        head = file.read(4)
    if not head:
        raise FormatError(f"{path}: is empty; fetch the file again")
    if head in (gguf_header.MAGIC, apr_header.MAGIC):
        return
    refuse_pickle(path, head)
    if path.suffix == ".safetensors":
        raise FormatError(
            f"{path}: is one file of a model folder; give the folder that holds {', '.join(FOLDER_FILES)}"
        )
    for suffix, name in ((".gguf", "GGUF"), (".apr", "APR")):
        if path.suffix == suffix:
            raise FormatError(
                f"{path}: does not begin with the bytes {name}, so it is no {suffix} file; fetch it again"
            )
    raise FormatError(
        f"{path}: is no known model file; give a GGUF file, an .apr file or a folder with {', '.join(FOLDER_FILES)}"
    )


def refuse_pickle(path: Path, head: bytes) -> None:
    """Raise FormatError where the first four bytes, or the name, are those of pickled weights."""
    if head == _ZIP_MAGIC or head[:2] in _PICKLE_MAGICS or path.suffix in _PICKLE_SUFFIXES:
        raise FormatError(f"{path}: looks like pickled weights: {_CONVERT}")

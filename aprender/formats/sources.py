"""Which files a checkpoint is read from, decided without importing torch, numpy or tokenizers."""

from __future__ import annotations

from pathlib import Path

from aprender.errors import FormatError

FOLDER_FILES = ("config.json", "model.safetensors", "tokenizer.json")
GGUF_MAGIC = b"GGUF"

_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_ZIP_MAGIC = b"PK\x03\x04"  # torch.save has written a zip archive of pickles since torch 1.6
_PICKLE_MAGICS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_CONVERT = "a pickle can run any code when it is opened, so none is; convert it to safetensors and load that"


def source_files(path: Path) -> tuple[Path, ...]:
    """The files that the checkpoint at ``path`` is read from, in a fixed order.

    A folder gives its config.json, model.safetensors and tokenizer.json; a GGUF file gives itself. Only names
    and the first bytes are looked at. Raises FormatError when ``path`` is missing or isn't a checkpoint.
    """
    try:
        if path.is_dir():
            return _folder_files(path)
        if not path.exists():
            raise FormatError(f"{path}: there is no such file or folder; check the path")
        if not path.is_file():
            raise FormatError(f"{path}: is neither a file nor a folder; give a model folder or a .gguf file")
        _check_single_file(path)
    except OSError as error:
        raise FormatError(f"{path}: can't be read ({error.strerror}); check the path and its permissions") from error
    return (path,)


def _folder_files(folder: Path) -> tuple[Path, ...]:
    missing = [name for name in FOLDER_FILES if not (folder / name).is_file()]
    if missing:
        hint = "; ".join(_folder_hints(folder, missing))
        raise FormatError(f"{folder}: has no {' and no '.join(missing)}; {hint}")
    for name in FOLDER_FILES:
        if (folder / name).stat().st_size == 0:
            raise FormatError(f"{folder / name}: is empty; fetch the file again")
    return tuple(folder / name for name in FOLDER_FILES)


def _folder_hints(folder: Path, missing: list[str]) -> list[str]:
    """What to do about the missing files, most specific first."""
    hints = []
    if "model.safetensors" in missing:
        if (folder / "model.safetensors.index.json").exists():
            hints.append("weights sharded over several files can't be read yet; merge them into one model.safetensors")
        elif pickles := sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLE_SUFFIXES):
            hints.append(f"{pickles[0]} holds pickled weights: {_CONVERT}")
    if "config.json" in missing and (files := sorted(p.name for p in folder.iterdir() if p.suffix == ".gguf")):
        hints.append(f"to load a GGUF file, give the file itself, such as {folder / files[0]}")
    if "tokenizer.json" in missing and (folder / "tokenizer.model").exists():
        hints.append("tokenizer.model is not read; convert it to tokenizer.json")
    return hints or [f"a model folder holds {', '.join(FOLDER_FILES)}"]


def _check_single_file(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        raise FormatError(f"{path}: is empty; fetch the file again")
    if head == GGUF_MAGIC:
        return
    if head == _ZIP_MAGIC or head[:2] in _PICKLE_MAGICS or path.suffix in _PICKLE_SUFFIXES:
        raise FormatError(f"{path}: looks like pickled weights: {_CONVERT}")
    if path.suffix == ".safetensors":
        raise FormatError(
            f"{path}: is one file of a model folder; give the folder that holds {', '.join(FOLDER_FILES)}"
        )
    if path.suffix == ".gguf":
        raise FormatError(f"{path}: does not begin with the bytes GGUF, so it is no GGUF file; fetch it again")
    raise FormatError(f"{path}: is no known model file; give a GGUF file or a folder with {', '.join(FOLDER_FILES)}")

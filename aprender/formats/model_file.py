"""A model on disk, opened and understood but not read: configuration, use, tokenizer, and each tensor in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from aprender.errors import FormatError
from aprender.formats import apr_header, apr_metadata, gguf_header, gguf_metadata
from aprender.formats.accounting import Plan, StoredTensor
from aprender.formats.gguf_tokenizer import tokenizer_from_metadata
from aprender.formats.huggingface import read_config
from aprender.formats.row_order import half_split_rows, heads_of
from aprender.formats.safetensors_header import folder_entries
from aprender.formats.sources import source_files
from aprender.formats.stored import TensorFiles
from aprender.formats.tensor_table import TensorEntry
from aprender.formats.tokenizer_file import read_tokenizer, tokenizer_from_json
from aprender.formats.usage import Usage, folder_usage, gguf_usage
from aprender.transformer.config import TransformerConfig

INTERLEAVED = ("llama",)  # the GGUF architectures whose rows of Q and K are in llama.cpp's order

# What else general.* says (name, license, ...) is for people.
_GGUF_READ = {f"general.{key}" for key in ("architecture", "alignment", "file_type", "quantization_version", "type")}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """``plan`` knows which tensor becomes which parameter; ``tokenizer`` builds the tokenizer, which takes a while.

    ``unread`` names what the model says and nothing here understands: no mathematics, but a license may be there.
    """

    where: str
    config: TransformerConfig
    usage: Usage
    plan: Plan
    tokenizer: Callable[[], Tokenizer]
    unread: tuple[str, ...]


def open_model(path: Path, files: TensorFiles) -> ModelFile:
    """Open the model at ``path``: a Hugging Face folder, a GGUF file or an .apr file; ``files`` will hold it open.

    Raises FormatError where it is corrupt, incomplete or of an unsupported kind. What is wrong with tensors is in
    the plan's ``problems``.
    """
    if path.is_dir():
        return _open_folder(path, files)
    with path.open("rb") as file:
        magic = file.read(4)
    return _open_apr(path, files) if magic == apr_header.MAGIC else _open_gguf(path, files)


def _open_folder(folder: Path, files: TensorFiles) -> ModelFile:
    config = read_config(folder / "config.json")
    usage = folder_usage(folder)
    entries = folder_entries(folder)
    files.open(entries)
    stored = [_stored(entry, files.read) for entry in entries]
    where = str(entries[0].path if len({entry.path for entry in entries}) == 1 else folder)
    plan = Plan(where, config, stored, lambda name: name, _is_buffer)
    read = {path.name for path in source_files(folder)}
    unread = sorted(path.name for path in folder.iterdir() if path.name not in read)
    return ModelFile(where, config, usage, plan, lambda: read_tokenizer(folder / "tokenizer.json"), tuple(unread))


def _is_buffer(name: str) -> bool:
    """Frequencies that old checkpoints carry; they follow from rope_theta."""
    return name.endswith("rotary_emb.inv_freq")


def _open_gguf(path: Path, files: TensorFiles) -> ModelFile:
    where = str(path)
    header = gguf_header.read_header(path)
    files.open(header.entries)
    factors = next((entry for entry in header.entries if entry.name == gguf_metadata.ROPE_FACTORS), None)
    config = gguf_metadata.config_from_metadata(
        where,
        header.metadata,
        {entry.name: entry.shape for entry in header.entries},
        None if factors is None else _few_values(where, factors, files),
    )
    interleaved = header.metadata["general.architecture"] in INTERLEAVED
    names = {gguf_metadata.gguf_name(name): name for name in _bounded_names(where, config, header.entries)}
    read = _reader(config, files, names) if interleaved else files.read
    stored = [_stored(entry, read) for entry in header.entries]
    plan = Plan(where, config, stored, gguf_metadata.gguf_name, lambda name: name == gguf_metadata.ROPE_FACTORS)
    usage = gguf_usage(where, header.metadata, str(header.metadata["general.architecture"]))
    unread = [key for key in header.metadata if key.startswith("general.") and key not in _GGUF_READ]
    return ModelFile(where, config, usage, plan, lambda: tokenizer_from_metadata(where, header.metadata), tuple(unread))


def _open_apr(path: Path, files: TensorFiles) -> ModelFile:
    where = str(path)
    header = apr_header.read_header(path)
    apr_header.verify_footer(path)
    files.open(header.entries)
    has_head = any(entry.name == "lm_head.weight" and entry.size for entry in header.entries)
    config = apr_metadata.config_from_metadata(where, header.metadata, has_head=has_head)
    interleaved = apr_metadata.is_interleaved(where, header.metadata)
    names = {name: name for name in _bounded_names(where, config, header.entries)}
    read = _reader(config, files, names) if interleaved else files.read
    plan = Plan(where, config, [_stored(entry, read) for entry in header.entries], lambda name: name)
    usage = apr_metadata.usage_from_metadata(where, header.metadata)
    text = header.metadata.get(apr_metadata.TOKENIZER_KEY)
    unread = [key for key in header.metadata if not apr_metadata.is_known(key)]
    return ModelFile(where, config, usage, plan, lambda: tokenizer_from_json(where, text), tuple(unread))


def _bounded_names(where: str, config: TransformerConfig, entries: list[TensorEntry]) -> list[str]:
    """The parameters' names, unless a corrupt number of layers would make that a long list: the plan refuses then."""
    return list(config.tensor_shapes()) if config.num_hidden_layers <= len(entries) else []


def _stored(entry: TensorEntry, read: Callable[[TensorEntry], torch.Tensor]) -> StoredTensor:
    return StoredTensor(entry.name, entry.dtype, entry.shape, lambda: read(entry))


def _reader(
    config: TransformerConfig, files: TensorFiles, names: dict[str, str]
) -> Callable[[TensorEntry], torch.Tensor]:
    """Reads tensors of a file whose Q and K rows are interleaved; ``names`` are Hugging Face's by the file's."""

    def read(entry: TensorEntry) -> torch.Tensor:
        tensor = files.read(entry)
        heads = heads_of(names.get(entry.name, "."), config)
        return tensor if heads is None else half_split_rows(tensor, heads)

    return read


def _few_values(where: str, entry: TensorEntry, files: TensorFiles) -> list[float]:
    if len(entry.shape) != 1 or entry.shape[0] > 4096:
        raise FormatError(f"{where}: {entry.name} has shape {list(entry.shape)}, must be one factor to a frequency")
    try:
        return files.read(entry).double().tolist()
    except FormatError as error:
        raise FormatError(f"{where}: {entry.name} {error}") from error

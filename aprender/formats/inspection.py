"""What the headers of a model say, without reading its data: for people, and for programs as plain data.

Imports neither torch nor numpy.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aprender.errors import FormatError
from aprender.formats import apr_header, apr_metadata, gguf_header, gguf_metadata
from aprender.formats.families import GGUF_ARCHITECTURES
from aprender.formats.files import open_file, read_file
from aprender.formats.hub import resolve
from aprender.formats.huggingface import read_config
from aprender.formats.json_text import parse_json_object
from aprender.formats.safetensors_header import folder_entries, read_entries, weight_files
from aprender.formats.sources import CONFIG, TOKENIZER, refuse_pickle, source_files
from aprender.formats.tensor_table import TensorEntry, shape_problems
from aprender.formats.usage import OPTIONAL_FILES, Usage, folder_usage, gguf_usage
from aprender.transformer.config import TransformerConfig

T = TypeVar("T")

_MAX_TOKENIZER = 32 << 20


@dataclass(frozen=True, slots=True)
class Inspection:
    """One model as its headers have it. ``problems`` say why it can't be loaded as it stands, if it can't.

    Of a single file of a folder, ``config`` is None and nothing is held against it.
    """

    path: Path
    kind: str
    files: tuple[Path, ...]
    config: TransformerConfig | None
    usage: Usage | None
    tokenizer: str | None
    entries: list[TensorEntry]
    problems: tuple[str, ...]


def inspect_model(path: Path) -> Inspection:
    """Inspect a model folder, a GGUF or .apr file, one safetensors file, or ``hf:ORG/NAME``.

    Raises FormatError where a header is corrupt or nothing of the kind is there. What else is wrong with the model is
    in ``problems``.
    """
    path = resolve(path)
    if path.is_dir():
        return _folder(path)
    with open_file(path) as file:
        magic = file.read(4)
    if magic == gguf_header.MAGIC:
        return _gguf(path)
    if magic == apr_header.MAGIC:
        return _apr(path)
    refuse_pickle(path, magic)
    return Inspection(path, "safetensors", (path,), None, None, None, read_entries(path), ())


def _folder(folder: Path) -> Inspection:
    problems = _Problems()
    files = [file for name in (CONFIG, TOKENIZER, *OPTIONAL_FILES) if (file := folder / name).is_file()]
    if not weight_files(folder)[0].exists():
        source_files(folder)  # refuses, with what to do
    entries = folder_entries(folder)
    config = problems.of(lambda: read_config(folder / CONFIG))
    usage = problems.of(lambda: folder_usage(folder)) if config else None
    tokenizer = problems.of(lambda: _describe_json(read_file(folder / TOKENIZER, _MAX_TOKENIZER), folder / TOKENIZER))
    if config:
        stored = {entry.name: entry.shape for entry in entries if not entry.name.endswith("rotary_emb.inv_freq")}
        problems.of_shapes(config, stored, lambda name: name)
    return Inspection(
        folder,
        "safetensors",
        (*weight_files(folder), *files),
        config,
        usage,
        tokenizer,
        entries,
        tuple(problems.found),
    )


def _gguf(path: Path) -> Inspection:
    problems = _Problems()
    header = gguf_header.read_header(path)
    shapes = {entry.name: entry.shape for entry in header.entries}
    factors = next((entry for entry in header.entries if entry.name == gguf_metadata.ROPE_FACTORS), None)
    config = problems.of(
        lambda: gguf_metadata.config_from_metadata(
            str(path), header.metadata, shapes, None if factors is None else _floats(factors)
        )
    )
    architecture = header.metadata.get("general.architecture")
    usage = problems.of(lambda: gguf_usage(str(path), header.metadata, str(architecture)))
    if config and architecture in GGUF_ARCHITECTURES:
        stored = {name: shape for name, shape in shapes.items() if name != gguf_metadata.ROPE_FACTORS}
        problems.of_shapes(config, stored, gguf_metadata.gguf_name)
    return Inspection(
        path, "gguf", (path,), config, usage, _describe_gguf(header.metadata), header.entries, tuple(problems.found)
    )


def _apr(path: Path) -> Inspection:
    problems = _Problems()
    header = apr_header.read_header(path)
    shapes = {entry.name: entry.shape for entry in header.entries}
    has_head = any(entry.name == "lm_head.weight" and entry.size for entry in header.entries)
    config = problems.of(lambda: apr_metadata.config_from_metadata(str(path), header.metadata, has_head=has_head))
    problems.of(lambda: apr_metadata.is_interleaved(str(path), header.metadata))
    usage = problems.of(lambda: apr_metadata.usage_from_metadata(str(path), header.metadata))
    text = header.metadata.get(apr_metadata.TOKENIZER_KEY)
    tokenizer = problems.of(lambda: _describe_json(str(text).encode(), path)) if text is not None else None
    if text is None:
        problems.found.append(f"{path}: has no {apr_metadata.TOKENIZER_KEY}")
    if config:
        problems.of_shapes(config, shapes, lambda name: name)
    return Inspection(path, "apr", (path,), config, usage, tokenizer, header.entries, tuple(problems.found))


class _Problems:
    """Gathers what is wrong instead of ending at the first."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def of(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except FormatError as error:
            self.found.append(str(error))
            return None

    def of_shapes(
        self, config: TransformerConfig, stored: Mapping[str, tuple[int, ...]], name_in_file: Callable[[str], str]
    ) -> None:
        if config.num_hidden_layers > len(stored):
            self.found.append(f"{config.num_hidden_layers} layers, but only {len(stored)} tensors")
            return
        head = name_in_file("lm_head.weight")
        tied_copy = {head} if config.tie_word_embeddings else set()
        expected = {name_in_file(name): shape for name, shape in config.tensor_shapes().items()}
        self.found += shape_problems(expected, {n: shape for n, shape in stored.items() if n not in tied_copy})


def _describe_json(text: bytes, path: Path) -> str:
    values: dict[str, Any] = parse_json_object(str(path), text)
    try:
        model, added = values["model"], values["added_tokens"]
        special = sum(token["special"] for token in added)
        ids = {*model["vocab"].values(), *(token["id"] for token in added)}
        return f"{model['type']}, {len(ids)} tokens, {len(added)} of them added, {special} of those special"
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: is no readable tokenizer; fetch the file again") from error


def _describe_gguf(metadata: Mapping[str, object]) -> str | None:
    tokens, types = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, list):
        return None
    special = types.count(3) if isinstance(types, list) else 0
    kind, pre = (json.dumps(metadata.get(f"tokenizer.ggml.{key}")).strip('"') for key in ("model", "pre"))
    return f"{kind}, split as {pre}, {len(tokens)} tokens, {special} of them special"


def _floats(entry: TensorEntry) -> list[float]:
    """The few values of a float32 tensor."""
    if entry.dtype != "F32" or entry.size > 1 << 14:
        raise FormatError(f"{entry.path}: {entry.name} is no short list of F32 values")
    with open_file(entry.path) as file:
        file.seek(entry.start)
        return list(struct.unpack(f"<{entry.size // 4}f", file.read(entry.size)))

"""Converting a model from one format to another: nothing lost unsaid, whole or not at all, and read back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from aprender.errors import FormatError
from aprender.formats.accounting import same_bits
from aprender.formats.apr_write import metadata_values, write_apr
from aprender.formats.atomic import new_file, new_folder
from aprender.formats.gguf_vocabulary import vocabulary_of
from aprender.formats.gguf_write import architecture_of, write_gguf
from aprender.formats.hub import resolve
from aprender.formats.model_file import ModelFile, open_model
from aprender.formats.row_order import heads_of, interleaved_rows
from aprender.formats.safetensors_header import SINGLE
from aprender.formats.safetensors_write import FILES, write_folder_texts, write_safetensors
from aprender.formats.sources import source_files
from aprender.formats.stored import TensorFiles
from aprender.formats.tensor_table import FLOATS
from aprender.formats.usage import Usage
from aprender.transformer.config import TransformerConfig

Progress = Callable[[int], None]
_SAMPLES = (
    "Hello, world!\n\n\tdef f(x):  return x**2  # 1234 IT'S  12  x ",
    "na\u00efve cafe\u0301 \u4e2d\u6587 \N{SLIGHTLY SMILING FACE} \x00\x7f",
)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was written: ``notes`` name each difference that the target's format made necessary."""

    target: Path
    kind: str
    tensors: int
    size: int
    notes: tuple[str, ...]


def convert(source: Path, target: Path, *, force: bool, progress: Progress = lambda _: None) -> Conversion:
    """Write the model at ``source`` to ``target``: a .gguf file, an .apr file, or else a safetensors folder.

    Tensors keep their dtype; quantized ones become float32. What was written is read back and compared, bit for bit,
    before it gets its name. ``progress`` is told of every parameter's elements twice: written, and compared. Raises
    FormatError where the source is unsound, where the target's format has no place for something, or where
    ``target`` is there and ``force`` isn't given.
    """
    source = resolve(source)
    source_files(source)  # what it refuses is refused in its words
    kind = kind_of(target)
    new: AbstractContextManager[Path] = (
        new_folder(target, force=force, replaceable=FILES) if kind == "safetensors" else new_file(target, force=force)
    )
    with new as temporary:
        with TensorFiles() as files:
            model = open_model(source, files)
            model.plan.refuse(model.plan.problems)
            try:
                notes = _write(kind, temporary, model, progress)
            except FormatError as error:
                said = str(error).replace(str(temporary), str(target))
                raise FormatError(said if said.startswith(model.where) else f"{target}: {said}") from error
        _verify(kind, source, temporary, progress)
        paths = list(temporary.iterdir()) if temporary.is_dir() else [temporary]
        size = sum(path.stat().st_size for path in paths)
    return Conversion(target, kind, len(model.plan.shapes), size, tuple(notes))


def kind_of(target: Path) -> str:
    """The format that a path's suffix asks for."""
    if target.suffix == ".safetensors":
        raise FormatError(f"{target}: is one file of a model folder; give the folder's name")
    return {".gguf": "gguf", ".apr": "apr"}.get(target.suffix, "safetensors")


def _write(kind: str, target: Path, model: ModelFile, progress: Progress) -> list[str]:
    tokenizer = model.tokenizer()
    tensors = {name: (_dtype(kind, model, name), shape) for name, shape in model.plan.shapes.items()}

    def data(name: str) -> bytes | memoryview:
        tensor = _as_written(kind, model.config, name, model.plan.read(name))
        progress(tensor.numel())
        return tensor.reshape(-1).view(torch.uint8).numpy().data

    if kind == "gguf":
        vocabulary = vocabulary_of(tokenizer, model.config.vocab_size)
        write_gguf(
            target, model.config, model.usage, vocabulary, tensors, lambda name: np.frombuffer(data(name), np.uint8)
        )
    elif kind == "apr":
        write_apr(target, metadata_values(model.config, model.usage, tokenizer.to_str()), tensors, data)
    else:
        dtypes = model.plan.dtypes()
        write_folder_texts(target, model.config, model.usage, tokenizer.to_str(), dtypes)
        write_safetensors(target / SINGLE, tensors, data)
    return [*_notes(kind, model), *_left_behind(model)]


def _dtype(kind: str, model: ModelFile, name: str) -> str:
    """The dtype in the target: the source's own where that is a float, float32 where it is quantized.

    Vectors are float32 in all GGUF files, because llama.cpp computes with nothing else.
    """
    dtype = model.plan.dtype(name)
    return dtype if dtype in FLOATS and not (kind == "gguf" and len(model.plan.shapes[name]) == 1) else "F32"


def _as_written(kind: str, config: TransformerConfig, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The parameter as the target's format wants it."""
    if kind != "gguf":
        return tensor
    if tensor.ndim == 1:
        tensor = tensor.float()
    heads = heads_of(name, config) if architecture_of(config) == "llama" else None
    return tensor if heads is None else interleaved_rows(tensor, heads)


def _notes(kind: str, model: ModelFile) -> list[str]:
    notes = []
    if quantized := sorted(set(model.plan.dtypes()) - set(FLOATS)):
        notes.append(f"{', '.join(quantized)} became F32: the values are the same, the file is larger")
    if kind != "gguf":
        return notes
    if any(len(shape) == 1 and model.plan.dtype(name) in ("F16", "BF16") for name, shape in model.plan.shapes.items()):
        notes.append("vectors became F32, as llama.cpp wants them: the values are the same")
    narrow = _in_float32(model.config)
    for key, value in asdict(model.config).items():
        if value != (rounded := asdict(narrow)[key]):
            notes.append(f"{key} is float32 in GGUF: {rounded} for {value}")
    if architecture_of(model.config) != model.config.family:
        notes.append(f"a {model.config.family} model is called {architecture_of(model.config)} in GGUF")
    if len(model.usage.eos_ids) > 2:
        notes.append(f"of the ids that end a text, GGUF has no place for {model.usage.eos_ids[2:]}")
    return notes


def _left_behind(model: ModelFile) -> list[str]:
    return [f"not carried over: {', '.join(model.unread)}"] if model.unread else []


def _in_float32(config: TransformerConfig) -> TransformerConfig:
    """The configuration after a way through GGUF's float32 numbers."""
    scaling: Any = config.rope_scaling
    narrow = {
        key: float(np.float32(value)) if isinstance(value, float) else value
        for key, value in (asdict(scaling) if scaling else {}).items()
    }
    return replace(
        config,
        rms_norm_eps=float(np.float32(config.rms_norm_eps)),
        rope_theta=float(np.float32(config.rope_theta)),
        rope_scaling=scaling and replace(scaling, **narrow),
    )


def _verify(kind: str, source: Path, written: Path, progress: Progress) -> None:
    """Read both anew and compare everything. Raises FormatError where anything differs: a fault of the writer."""
    with TensorFiles() as files, TensorFiles() as other_files:
        model, again = open_model(source, files), open_model(written, other_files)
        again.plan.refuse(again.plan.problems)
        differing = [*_differing_facts(kind, model, again), *_differing_tokens(model.tokenizer(), again.tokenizer())]
        for name in model.plan.shapes:
            expected, tensor = model.plan.read(name), again.plan.read(name)
            if kind == "gguf" and expected.ndim == 1:
                expected = expected.float()
            if not same_bits(expected, tensor):
                differing.append(name)
            progress(tensor.numel())
        model.plan.account(model.plan.shapes)
        again.plan.account(again.plan.shapes)
    if differing:
        raise FormatError(f"{written}: what was written differs in {', '.join(differing[:10])}; nothing was kept")


def _differing_facts(kind: str, model: ModelFile, again: ModelFile) -> list[str]:
    config, usage = model.config, model.usage
    if kind == "gguf":
        config, usage = _in_float32(config), replace(usage, eos_ids=usage.eos_ids[:2])
        family = "mistral" if config.windows[0] is not None else architecture_of(config)
        config = replace(config, family=family)
    pairs: list[tuple[TransformerConfig | Usage, TransformerConfig | Usage]] = [
        (config, again.config),
        (usage, again.usage),
    ]
    return [
        key
        for one, other in pairs
        for key, value in asdict(one).items()
        if key != "rope_scaling" and value != asdict(other)[key]
    ] + _differing_scaling(config, again.config)


def _differing_scaling(config: TransformerConfig, again: TransformerConfig) -> list[str]:
    """Factors go through float32 and back in GGUF: equal to its precision."""
    one, other = config.rope_scaling, again.rope_scaling
    if type(one) is not type(other):
        return ["rope_scaling"]
    if one is None or other is None:
        return []
    return [
        f"rope_scaling.{key}"
        for key, value in asdict(one).items()
        if abs(value - asdict(other)[key]) > 1e-6 * abs(value)
    ]


def _differing_tokens(tokenizer: Tokenizer, again: Tokenizer) -> list[str]:
    """The vocabularies, but for what fills GGUF's up, and the ids of texts with every added token in them."""
    ours, theirs = tokenizer.get_vocab(with_added_tokens=True), again.get_vocab(with_added_tokens=True)
    added = "x".join(str(token.content) for token in tokenizer.get_added_tokens_decoder().values())
    same_ids = all(tokenizer.encode(text).ids == again.encode(text).ids for text in (*_SAMPLES, added))
    return [] if ours.items() <= theirs.items() and same_ids else ["the tokenizer"]

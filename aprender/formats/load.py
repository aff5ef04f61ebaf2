"""One call from a path to a Checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from aprender.errors import FormatError
from aprender.formats.checkpoint import Checkpoint
from aprender.formats.digest import sha256_of
from aprender.formats.gguf_file import read_gguf
from aprender.formats.huggingface import read_config
from aprender.formats.safetensors_folder import read_tokenizer, read_weights
from aprender.formats.sources import source_files


def load_checkpoint(path: Path) -> Checkpoint:
    """Read the checkpoint at ``path``: a Hugging Face safetensors folder or a GGUF file.

    Tensors come as float32 on the CPU, whatever they were stored as; ``sha256`` goes by file name. Raises
    FormatError for anything that isn't a complete checkpoint of a supported family.
    """
    sha256 = {file.name: sha256_of(file) for file in source_files(path)}
    if path.is_dir():
        config = read_config(path / "config.json")
        tokenizer = read_tokenizer(path / "tokenizer.json")
        tensors = read_weights(path / "model.safetensors", config)
    else:
        config, tensors, tokenizer = read_gguf(path)
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if largest >= config.vocab_size:
        raise FormatError(
            f"{path}: the tokenizer has ids up to {largest}, but the embedding has only {config.vocab_size} rows; "
            "tokenizer and weights belong to different models"
        )
    return Checkpoint(config, MappingProxyType(tensors), tokenizer, path, MappingProxyType(sha256))

"""One call from a path to a Checkpoint."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

from aprender.errors import FormatError
from aprender.formats.accounting import take_tensors
from aprender.formats.checkpoint import Checkpoint
from aprender.formats.files import identity_of
from aprender.formats.hub import resolve
from aprender.formats.model_file import open_model
from aprender.formats.sources import source_files
from aprender.formats.stored import TensorFiles


def load_checkpoint(path: Path) -> Checkpoint:
    """Read the checkpoint at ``path``: a Hugging Face folder, a GGUF file, an .apr file, or ``hf:ORG/NAME``.

    Tensors come on the CPU as they are stored, quantized ones as float32. Raises FormatError for anything that isn't
    a complete checkpoint of a supported family.
    """
    path = resolve(path)
    identities = {file: identity_of(file) for file in source_files(path)}
    with TensorFiles() as files, ThreadPoolExecutor(1) as beside:
        model = open_model(path, files)
        coming = beside.submit(model.tokenizer)  # takes a second for a large vocabulary, while tensors are read
        tensors, account = take_tensors(model.plan)
        tokenizer = coming.result()
    config = model.config
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if largest >= config.vocab_size:
        raise FormatError(
            f"{path}: the tokenizer has ids up to {largest}, but the embedding has only {config.vocab_size} rows; "
            "tokenizer and weights belong to different models"
        )
    if any(identity_of(file) != identity for file, identity in identities.items()):
        raise FormatError(f"{path}: changed while it was loaded; load it again")
    return Checkpoint(
        config, MappingProxyType(tensors), tokenizer, model.usage, account, path, MappingProxyType(identities)
    )

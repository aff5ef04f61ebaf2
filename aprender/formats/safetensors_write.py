"""Writing Hugging Face folders: config.json, model.safetensors, tokenizer.json and what else there is to say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aprender.errors import FormatError
from aprender.formats.huggingface_values import config_values
from aprender.formats.safetensors_header import SINGLE
from aprender.formats.sources import CONFIG, TOKENIZER
from aprender.formats.tensor_table import DTYPES, stored_size
from aprender.formats.usage import TEMPLATE, Usage
from aprender.transformer.config import TransformerConfig

FILES = frozenset({CONFIG, SINGLE, TOKENIZER, TEMPLATE})
_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write_folder_texts(
    folder: Path, config: TransformerConfig, usage: Usage, tokenizer_json: str, dtypes: Mapping[str, int]
) -> None:
    """Everything but the weights. ``dtypes`` counts the tensors by dtype: the commonest is the model's."""
    commonest = max(dtypes, key=lambda dtype: dtypes[dtype])
    values: dict[str, Any] = config_values(config) | {"dtype": _NAMES[commonest]}
    if usage.context_length is not None:
        values["max_position_embeddings"] = usage.context_length
    values["bos_token_id"] = usage.bos_id
    values["eos_token_id"] = list(usage.eos_ids) if len(usage.eos_ids) > 1 else next(iter(usage.eos_ids), None)
    (folder / CONFIG).write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    (folder / TOKENIZER).write_text(tokenizer_json, "utf-8")
    if usage.chat_template is not None:
        (folder / TEMPLATE).write_bytes(usage.chat_template.encode())


def write_safetensors(
    path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]], data: Callable[[str], bytes | memoryview]
) -> None:
    """Write the safetensors file ``path``: ``tensors`` gives dtype and shape by name, ``data`` the bytes of one.

    As the library orders them: wide dtypes first, so that every tensor is aligned, then by name. Unlike the library,
    this holds one tensor in memory at a time.
    """
    names = sorted(tensors, key=lambda name: (-DTYPES[tensors[name][0]][1], name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        dtype, shape = tensors[name]
        start, end = end, end + stored_size(dtype, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            raw = data(name)
            if len(raw) != stored_size(*tensors[name]):
                raise FormatError(f"{path}: {name} has {len(raw)} bytes, must have {stored_size(*tensors[name])}")
            file.write(raw)

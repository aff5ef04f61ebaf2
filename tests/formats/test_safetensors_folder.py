"""Hugging Face folders: exact casts, complete accounting, and one sentence for what can't be read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aprender.errors import FormatError
from aprender.formats import load_checkpoint
from aprender.transformer.config import TransformerConfig
from tests.formats.tiny_checkpoints import (
    LLAMA,
    QWEN2,
    TOKENS,
    config_json,
    random_tensors,
    tiny_tokenizer,
    write_folder,
)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    integer = {4: torch.int32, 2: torch.int16}[a.dtype.itemsize]
    return a.dtype == b.dtype and torch.equal(a.view(integer), b.view(integer))


def refusal(folder: Path) -> str:
    with pytest.raises(FormatError) as caught:
        load_checkpoint(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refusal_of_tensors(tmp_path: Path, tensors: dict[str, torch.Tensor], config: TransformerConfig = QWEN2) -> str:
    return refusal(write_folder(tmp_path / "model", config, tensors))


@pytest.mark.parametrize("config", [QWEN2, LLAMA], ids=["qwen2", "llama"])
def test_round_trip(tmp_path: Path, config: TransformerConfig) -> None:
    """Every tensor comes back bit for bit, under its name, with configuration and tokenizer."""
    tensors = random_tensors(config)
    checkpoint = load_checkpoint(write_folder(tmp_path / "model", config, tensors))
    assert checkpoint.config == config
    assert checkpoint.source == tmp_path / "model"
    assert list(checkpoint.tensors) == list(config.tensor_shapes())
    assert all(same_bits(checkpoint.tensors[name], tensors[name]) for name in tensors)
    assert all(tensor.is_contiguous() for tensor in checkpoint.tensors.values())
    assert checkpoint.tokenizer.encode("hello 12").ids == tiny_tokenizer().encode("hello 12").ids


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_precision_value_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    """All finite bit patterns come back as they are stored, in the dtype that they are stored in."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    values = values[values.isfinite()]
    config = replace(QWEN2, vocab_size=-(-len(values) // 32))
    tensors = random_tensors(config, dtype)
    tensors["model.embed_tokens.weight"].view(-1)[: len(values)] = values
    loaded = load_checkpoint(write_folder(tmp_path / "model", config, tensors))
    assert all(same_bits(loaded.tensors[name], tensors[name]) for name in tensors)
    assert loaded.account.dtypes == {"F16" if dtype == torch.float16 else "BF16": len(tensors)}


def test_each_tensor_keeps_its_own_dtype(tmp_path: Path) -> None:
    """Folders may mix dtypes, and a tensor that isn't aligned in the file for its dtype is read all the same."""
    dtypes = (torch.bfloat16, torch.float32, torch.float16)
    tensors = {name: tensor.to(dtypes[index % 3]) for index, (name, tensor) in enumerate(random_tensors(QWEN2).items())}
    folder = write_folder(tmp_path / "model", QWEN2, tensors)
    write_in_order(folder / "model.safetensors", tensors | {"model.norm.weight": tensors["model.norm.weight"]})
    loaded = load_checkpoint(folder)
    assert all(same_bits(loaded.tensors[name], tensors[name]) for name in tensors)
    assert sum(loaded.account.dtypes.values()) == len(tensors)


def write_in_order(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A file whose tensors lie in the given order after a blank of one byte, so that most are not aligned."""
    header: dict[str, object] = {}
    data = b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().view(torch.uint8).numpy().tobytes()
        dtype = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}[tensor.dtype]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (1 - len(text) % 2)  # an odd length
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_a_file_may_be_replaced_after_loading(tmp_path: Path) -> None:
    """A new file under the old name changes nothing that was loaded, and digests aren't given for it."""
    tensors = random_tensors(QWEN2)
    folder = write_folder(tmp_path / "model", QWEN2, tensors)
    checkpoint = load_checkpoint(folder)
    other = tmp_path / "other"
    other.write_bytes(b"\xff" * (folder / "model.safetensors").stat().st_size)
    other.replace(folder / "model.safetensors")
    assert all(same_bits(checkpoint.tensors[name], tensors[name]) for name in tensors)
    with pytest.raises(FormatError, match="changed since it was loaded"):
        _ = checkpoint.sha256


def test_writing_into_a_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    """Tensors lie in a private mapping of the file."""
    folder = write_folder(tmp_path / "model", QWEN2, random_tensors(QWEN2))
    before = (folder / "model.safetensors").read_bytes()
    load_checkpoint(folder).tensors["model.norm.weight"].zero_()
    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.float8_e4m3fn])
def test_other_dtypes_are_refused_by_name(tmp_path: Path, dtype: torch.dtype) -> None:
    """A dtype that isn't one of weights is refused."""
    tensors = random_tensors(QWEN2)
    tensors["model.norm.weight"] = torch.ones(32).to(dtype)
    message = refusal_of_tensors(tmp_path, tensors)
    name = {torch.float64: "F64", torch.int8: "I8", torch.float8_e4m3fn: "F8_E4M3"}[dtype]
    assert f"model.norm.weight is stored as {name}, which can't be read: F32, F16, BF16" in message


def test_dropped_biases_are_missing(tmp_path: Path) -> None:
    """The founding defect: a qwen2 checkpoint without Q, K and V biases is refused, naming each."""
    tensors = {name: tensor for name, tensor in random_tensors(QWEN2).items() if not name.endswith("bias")}
    message = refusal_of_tensors(tmp_path, tensors)
    assert "6 problems" in message
    for layer in range(2):
        for projection in ("q_proj", "k_proj", "v_proj"):
            assert f"missing model.layers.{layer}.self_attn.{projection}.bias" in message


def test_biases_that_have_no_place_are_unexpected(tmp_path: Path) -> None:
    """A llama checkpoint that carries biases isn't loaded without them."""
    biases = {name: tensor for name, tensor in random_tensors(QWEN2).items() if name.endswith("bias")}
    message = refusal_of_tensors(tmp_path, random_tensors(LLAMA) | biases, LLAMA)
    assert "6 problems" in message
    assert "unexpected model.layers.1.self_attn.k_proj.bias" in message


def test_all_problems_come_together(tmp_path: Path) -> None:
    """Missing, misnamed, misshapen, transposed, unreadable and non-finite tensors are all in one message."""
    tensors = random_tensors(QWEN2)
    del tensors["model.norm.weight"]
    tensors["model.layers.0.self_attn.q_prj.bias"] = tensors.pop("model.layers.0.self_attn.q_proj.bias")
    down = "model.layers.1.mlp.down_proj.weight"
    tensors[down] = tensors[down].T.contiguous()
    tensors["lm_head.weight"] = tensors["lm_head.weight"].double()
    tensors["model.layers.0.input_layernorm.weight"][3] = float("nan")
    tensors["model.embed_tokens.weight"][5, 1:3] = torch.tensor([float("inf"), float("-inf")])
    message = refusal_of_tensors(tmp_path, tensors)
    assert "model.safetensors: 7 problems: " in message
    for part in (
        "missing model.norm.weight",
        "missing model.layers.0.self_attn.q_proj.bias",
        "unexpected model.layers.0.self_attn.q_prj.bias (did you mean model.layers.0.self_attn.q_proj.bias?)",
        f"{down} has shape [64, 32], must be [32, 64]",
        "lm_head.weight is stored as F64",
        "model.layers.0.input_layernorm.weight has 1 value not finite",
        "model.embed_tokens.weight has 2 values not finite",
    ):
        assert part in message


def test_the_same_number_of_elements_is_not_the_same_shape(tmp_path: Path) -> None:
    """A tensor with the right count of elements in another shape is refused."""
    tensors = random_tensors(QWEN2)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].view(1, 32)
    message = refusal_of_tensors(tmp_path, tensors)
    assert "1 problem: model.norm.weight has shape [1, 32], must be [32]" in message


def test_a_tied_copy_of_the_embedding_is_dropped(tmp_path: Path) -> None:
    """A tied model may carry lm_head.weight if it equals the embedding."""
    tensors = random_tensors(LLAMA)
    copy = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    checkpoint = load_checkpoint(write_folder(tmp_path / "model", LLAMA, tensors | copy))
    assert "lm_head.weight" not in checkpoint.tensors


@pytest.mark.parametrize("change", ["one value", "sign of zero", "shape", "dtype"])
def test_a_tied_head_that_differs_is_an_error(tmp_path: Path, change: str) -> None:
    """If the head isn't the embedding bit for bit, the model isn't tied."""
    tensors = random_tensors(LLAMA)
    tensors["model.embed_tokens.weight"][0, 0] = 0.0
    head = tensors["model.embed_tokens.weight"].clone()
    if change == "one value":
        head[-1, -1] += 1
    elif change == "sign of zero":
        head[0, 0] = -0.0
    else:
        head = head[:-1].clone() if change == "shape" else head.half()
    message = refusal_of_tensors(tmp_path, tensors | {"lm_head.weight": head}, LLAMA)
    assert "lm_head.weight differs from model.embed_tokens.weight" in message


def test_rotary_buffers_are_ignored(tmp_path: Path) -> None:
    """Old checkpoints carry inv_freq buffers, which follow from rope_theta."""
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(5)}
    checkpoint = load_checkpoint(write_folder(tmp_path / "model", LLAMA, random_tensors(LLAMA) | buffer))
    assert set(checkpoint.tensors) == set(LLAMA.tensor_shapes())


def test_an_absurd_number_of_layers_is_refused_at_once(tmp_path: Path) -> None:
    """A corrupt num_hidden_layers is refused before anything is enumerated."""
    folder = write_folder(tmp_path / "model", QWEN2, random_tensors(QWEN2))
    (folder / "config.json").write_text(json.dumps(config_json(QWEN2) | {"num_hidden_layers": 10**15}))
    assert "num_hidden_layers is 1000000000000000, more than any model has" in refusal(folder)


def test_every_truncation_is_one_sentence(tmp_path: Path) -> None:
    """A safetensors file cut off anywhere is refused."""
    folder = write_folder(tmp_path / "model", QWEN2, random_tensors(QWEN2))
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for length in [*range(1, 20), *range(20, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert "truncated or corrupt" in refusal(folder)


@pytest.mark.parametrize(
    "content", ["{", "not json", "[]", "{}", '{"version": "1.0", "model": {"type": "BPE", "vocab": 1}}']
)
def test_corrupt_tokenizer(tmp_path: Path, content: str) -> None:
    """A tokenizer.json that isn't a tokenizer is named."""
    folder = write_folder(tmp_path / "model", QWEN2, random_tensors(QWEN2))
    (folder / "tokenizer.json").write_text(content)
    assert "is no readable tokenizer" in refusal(folder)


def test_a_tokenizer_with_more_ids_than_rows(tmp_path: Path) -> None:
    """A tokenizer whose ids reach past the embedding belongs to another model."""
    config = replace(QWEN2, vocab_size=len(TOKENS) - 1)
    folder = write_folder(tmp_path / "model", config, random_tensors(config))
    assert f"ids up to {len(TOKENS) - 1}, but the embedding has only {len(TOKENS) - 1} rows" in refusal(folder)
    save_file(random_tensors(QWEN2), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config_json(QWEN2)))
    assert load_checkpoint(folder).config.vocab_size > len(TOKENS)

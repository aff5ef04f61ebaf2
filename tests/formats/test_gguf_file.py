"""GGUF files: names, shapes, dequantization, the order of Q and K rows, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize

from aprender.errors import FormatError
from aprender.formats import load_checkpoint
from aprender.formats.row_order import half_split_rows, interleaved_rows
from aprender.transformer.config import TransformerConfig
from tests.formats.tiny_checkpoints import LLAMA, QWEN2, TOKENS, gguf_metadata, gguf_tensors, random_tensors, write_gguf

QWEN2_TIED = replace(QWEN2, tie_word_embeddings=True)
# float32 in the file; the configuration holds what the file states
QWEN2_IN_FILE = replace(QWEN2, rms_norm_eps=float(np.float32(1e-6)))
LLAMA_IN_FILE = replace(LLAMA, rms_norm_eps=float(np.float32(1e-6)))


def write(tmp_path: Path, config: TransformerConfig = QWEN2, **metadata: Any) -> Path:
    """A sound file but for the ``metadata`` given, whose keys have ``__`` for the dot; None leaves a key out."""
    values = gguf_metadata(config)
    for key, value in metadata.items():
        values[key.replace("__", ".").replace("ARCH", config.family)] = value
    values = {key: value for key, value in values.items() if value is not None}
    return write_gguf(tmp_path / "m.gguf", config.family, values, gguf_tensors(random_tensors(config)))


def refusal(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def refusal_of_tensors(tmp_path: Path, tensors: dict[str, np.ndarray], **stored_as: Any) -> str:
    return refusal(write_gguf(tmp_path / "m.gguf", "qwen2", gguf_metadata(QWEN2), tensors, **stored_as))


def interleaved_by_hand(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Row by row into the file's order: a head's halves are shuffled into pairs."""
    out = torch.empty_like(weight)
    head_dim = len(weight) // heads
    for head in range(heads):
        for j in range(head_dim // 2):
            for half in range(2):
                out[head * head_dim + 2 * j + half] = weight[head * head_dim + half * head_dim // 2 + j]
    return out


def test_the_two_orders_of_rows_are_inverses() -> None:
    """Interleaving is what it is by hand, and putting halves together undoes it; vectors go like matrices."""
    for rows in (torch.randn(30, 7), torch.randn(30)):
        assert torch.equal(interleaved_rows(rows, 3), interleaved_by_hand(rows, 3))
        assert torch.equal(half_split_rows(interleaved_rows(rows, 3), 3), rows)


def test_qwen2_round_trip(tmp_path: Path) -> None:
    """Every tensor comes back bit for bit in the order it has in the file: qwen2's rows aren't permuted."""
    tensors = random_tensors(QWEN2)
    checkpoint = load_checkpoint(write(tmp_path))
    assert checkpoint.config == QWEN2_IN_FILE
    assert list(checkpoint.tensors) == list(QWEN2.tensor_shapes())
    assert all(torch.equal(checkpoint.tensors[name], tensors[name]) for name in tensors)
    assert all(t.dtype == torch.float32 and t.is_contiguous() for t in checkpoint.tensors.values())
    assert checkpoint.tokenizer.encode("hello").tokens == ["hello"]
    assert list(checkpoint.sha256) == ["m.gguf"]


def test_llama_rows_are_put_back(tmp_path: Path) -> None:
    """Q and K of a llama-architecture file come back in half-split order; everything else is untouched."""
    tensors = random_tensors(LLAMA)
    in_file = dict(tensors)
    for layer in range(LLAMA.num_hidden_layers):
        for projection, heads in (("q_proj", 6), ("k_proj", 2)):
            name = f"model.layers.{layer}.self_attn.{projection}.weight"
            in_file[name] = interleaved_by_hand(tensors[name], heads)
    path = write_gguf(tmp_path / "m.gguf", "llama", gguf_metadata(LLAMA), gguf_tensors(in_file))
    checkpoint = load_checkpoint(path)
    assert checkpoint.config == LLAMA_IN_FILE
    assert all(torch.equal(checkpoint.tensors[name], tensors[name]) for name in tensors)


def test_put_back_rows_attend_alike() -> None:
    """Half-split RoPE on the rows put back gives the scores of interleaved RoPE on the rows as stored."""
    heads, head_dim, width, theta = 3, 10, 7, 500.0
    generator = torch.Generator().manual_seed(1)
    q_in_file, k_in_file = torch.randn(2, heads * head_dim, width, dtype=torch.float64, generator=generator)
    x = torch.randn(5, width, dtype=torch.float64, generator=generator)
    frequency = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle = torch.arange(5, dtype=torch.float64)[:, None, None] * frequency

    def interleaved(weight: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex((x @ weight.T).view(5, heads, head_dim // 2, 2))
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(2)

    def half_split(weight: torch.Tensor) -> torch.Tensor:
        first, second = (x @ weight.T).view(5, heads, head_dim).chunk(2, dim=-1)
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    def scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return torch.einsum("qhd,khd->hqk", q, k)

    stored = scores(interleaved(q_in_file), interleaved(k_in_file))
    put_back = scores(half_split(half_split_rows(q_in_file, heads)), half_split(half_split_rows(k_in_file, heads)))
    torch.testing.assert_close(put_back, stored, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(scores(half_split(q_in_file), half_split(k_in_file)), stored)


def test_tied_embeddings_are_those_without_output(tmp_path: Path) -> None:
    """A file without output.weight is tied, whatever its architecture."""
    assert load_checkpoint(write(tmp_path, QWEN2_TIED)).config.tie_word_embeddings


def test_absent_key_length_is_the_quotient(tmp_path: Path) -> None:
    """GGUF defines an absent key_length as embedding_length / head_count."""
    config = replace(QWEN2, num_attention_heads=8, head_dim=4)
    assert load_checkpoint(write(tmp_path, config, ARCH__attention__key_length=None)).config.head_dim == 4


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q8_0])
def test_dequantization(tmp_path: Path, kind: Kind) -> None:
    """Matrices are dequantized as the gguf package does it, also when they have more rows than one portion."""
    config = replace(QWEN2, vocab_size=2500)
    tensors = gguf_tensors(random_tensors(config))
    stored_as = {name: kind for name, array in tensors.items() if array.ndim == 2 and array.shape[1] % 32 == 0}
    path = write_gguf(tmp_path / "m.gguf", "qwen2", gguf_metadata(config), tensors, stored_as)
    loaded = load_checkpoint(path).tensors["model.embed_tokens.weight"]
    expected = dequantize(quantize(tensors["token_embd.weight"], kind), kind)
    assert torch.equal(loaded, torch.from_numpy(expected))


def test_all_missing_metadata_is_named(tmp_path: Path) -> None:
    """A file with nothing but its architecture is refused with the whole list of what it lacks."""
    tensors = gguf_tensors(random_tensors(QWEN2))
    message = refusal(write_gguf(tmp_path / "m.gguf", "qwen2", {}, tensors))
    for key in gguf_metadata(QWEN2):
        assert (key in message) == (key.startswith("qwen2.") and not key.endswith("key_length"))


@pytest.mark.parametrize(
    ("metadata", "part"),
    [
        ({"ARCH__rope__freq_base": "1e6"}, "rope.freq_base is '1e6', must be a number"),
        ({"ARCH__block_count": 2.0}, "block_count is 2.0, must be a whole number"),
        ({"ARCH__attention__head_count": [6, 6]}, "head_count is [6, 6], must be a whole number"),
        ({"ARCH__block_count": 4_000_000_000}, "block_count is 4000000000, more than any model has"),
        ({"ARCH__attention__head_count_kv": 4}, "query heads can't be grouped"),
        ({"ARCH__attention__key_length": None}, "is no multiple of head_count"),
        ({"ARCH__attention__value_length": 12}, "value_length differs from the heads' width 10"),
        ({"ARCH__rope__dimension_count": 8}, "dimension_count differs from the heads' width 10"),
        ({"ARCH__vocab_size": 271}, "vocab_size is 271, but token_embd.weight has 270 rows"),
        (
            {"ARCH__rope__scaling__type": "yarn"},
            "missing qwen2.rope.scaling.factor, qwen2.rope.scaling.original_context_length",
        ),
        ({"ARCH__rope__scaling__type": "longrope"}, "rope.scaling.type is 'longrope', which is not supported"),
        ({"ARCH__rope__scaling__factor": 4.0}, "rope.scaling.type doesn't say how to scale"),
        ({"ARCH__attention__sliding_window": 4096}, "sliding_window is 4096, which is not supported"),
        ({"split__count": 3}, "split.count is 3, which is not supported"),
        ({"tokenizer__ggml__model": "llama"}, "only gpt2 is supported"),
    ],
)
def test_metadata_that_can_not_be_used_is_refused(tmp_path: Path, metadata: dict[str, Any], part: str) -> None:
    """Wrong types, contradictions and unsupported features are named."""
    assert part in refusal(write(tmp_path, **metadata))


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    """A token without a row in the embedding could be looked up only out of bounds."""
    extra = [f"x{i}" for i in range(271 - len(TOKENS))]
    path = write(tmp_path, tokenizer__ggml__tokens=[*TOKENS, *extra], tokenizer__ggml__token_type=[1] * 271)
    assert "ids up to 270, but the embedding has only 270 rows" in refusal(path)


def test_unscaled_rope_may_say_so(tmp_path: Path) -> None:
    """A scaling type of none, dimension_count of the whole head and a full vocab_size are fine."""
    path = write(tmp_path, ARCH__rope__scaling__type="none", ARCH__rope__dimension_count=10, ARCH__vocab_size=270)
    assert load_checkpoint(path).config == QWEN2_IN_FILE


@pytest.mark.parametrize("architecture", ["gemma", "phi3", "mistral"])
def test_other_architectures_are_refused(tmp_path: Path, architecture: str) -> None:
    """An architecture is refused by name, however similar it looks."""
    path = write_gguf(tmp_path / "m.gguf", architecture, gguf_metadata(QWEN2), gguf_tensors(random_tensors(QWEN2)))
    assert f"general.architecture is '{architecture}'; supported are llama, qwen2 and qwen3" in refusal(path)


def test_rope_factors_are_refused(tmp_path: Path) -> None:
    """Llama 3.1's factors would change every angle: they aren't skipped."""
    tensors = gguf_tensors(random_tensors(QWEN2)) | {"rope_freqs.weight": np.ones(5, np.float32)}
    assert "rope_freqs.weight rescales RoPE" in refusal_of_tensors(tmp_path, tensors)


def test_all_problems_of_tensors_come_together(tmp_path: Path) -> None:
    """Missing, misnamed, misshapen and non-finite tensors are named as in the file, in one message."""
    tensors = gguf_tensors(random_tensors(QWEN2))
    del tensors["output_norm.weight"]
    tensors["blk.1.attn_qq.bias"] = tensors.pop("blk.1.attn_q.bias")
    tensors["blk.0.ffn_up.weight"] = np.ascontiguousarray(tensors["blk.0.ffn_up.weight"].T)
    tensors["blk.0.attn_norm.weight"] = np.full(32, np.nan, np.float32)
    tensors["blk.1.ffn_norm.weight"] = np.ones(32, np.float64)
    message = refusal_of_tensors(tmp_path, tensors)
    assert "6 problems" in message
    for part in (
        "missing output_norm.weight",
        "missing blk.1.attn_q.bias",
        "unexpected blk.1.attn_qq.bias (did you mean blk.1.attn_q.bias?)",
        "blk.0.ffn_up.weight has shape [32, 64], must be [64, 32]",
        "blk.0.attn_norm.weight has 32 values not finite, the first is nan at [0]",
        "blk.1.ffn_norm.weight is stored as F64, which can't be read",
    ):
        assert part in message


def test_missing_embedding(tmp_path: Path) -> None:
    """Without an embedding there is no vocabulary size."""
    tensors = gguf_tensors(random_tensors(QWEN2))
    del tensors["token_embd.weight"]
    assert "token_embd.weight is missing" in refusal_of_tensors(tmp_path, tensors)


def test_an_infinite_scale_is_found(tmp_path: Path) -> None:
    """A quantized tensor with a corrupt scale dequantizes to infinity or NaN, and is refused by name."""
    tensors = gguf_tensors(random_tensors(QWEN2))
    path = write_gguf(tmp_path / "m.gguf", "qwen2", gguf_metadata(QWEN2), tensors, {"blk.0.ffn_gate.weight": Kind.Q8_0})
    block = quantize(tensors["blk.0.ffn_gate.weight"], Kind.Q8_0)[0].tobytes()
    path.write_bytes(path.read_bytes().replace(block, b"\x00\x7c" + block[2:]))  # 0x7c00 is float16's infinity
    assert "blk.0.ffn_gate.weight has 32 values not finite" in refusal(path)


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    """An offset that points into another tensor's bytes is corrupt, though every value is plausible."""
    path = write(tmp_path)
    content = bytearray(path.read_bytes())
    name = b"blk.0.ffn_norm.weight"
    offset_at = content.index(name) + len(name) + 4 + 8 + 4  # past the number of dimensions, one size, the type
    content[offset_at : offset_at + 8] = bytes(8)
    path.write_bytes(content)
    assert "overlap" in refusal(path)


@pytest.mark.parametrize("version", [1, 4, 3 << 24])
def test_other_versions_are_refused(tmp_path: Path, version: int) -> None:
    """Unknown versions and big-endian files are refused by their number."""
    path = write(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + version.to_bytes(4, "little") + content[8:])
    assert f"states GGUF version {version}; versions 2 and 3" in refusal(path)


def test_every_truncation_is_one_sentence(tmp_path: Path) -> None:
    """A file cut off anywhere, in header, metadata, tensor records or data, is refused."""
    path = write(tmp_path)
    whole = path.read_bytes()
    used = len(whole.rstrip(b"\0"))  # the writer pads the end
    for length in [*range(4, 40), *range(40, used, used // 60), used - 1]:
        path.write_bytes(whole[:length])
        assert "truncated or corrupt" in refusal(path)


def test_corrupt_bytes_are_refused_or_harmless(tmp_path: Path) -> None:
    """Whatever byte is hit, the result is a checkpoint or a FormatError: no other exception, no endless loop."""
    path = write(tmp_path)
    whole = path.read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(150):
        content = bytearray(whole)
        content[rng.integers(4, len(whole) // 8)] = rng.integers(256)
        path.write_bytes(content)
        try:
            load_checkpoint(path)
        except FormatError:
            refused += 1
    assert refused > 10  # so the bytes that matter were hit


def test_an_absurd_array_length_is_refused_at_once(tmp_path: Path) -> None:
    """The number of entries of an array is held against the file's size instead of being counted through."""
    path = write(tmp_path)
    key = b"tokenizer.ggml.token_type"
    content = bytearray(path.read_bytes())
    length_at = content.index(key) + len(key) + 4 + 4
    content[length_at : length_at + 8] = (2**60).to_bytes(8, "little")
    path.write_bytes(content)
    assert "truncated or corrupt" in refusal(path)

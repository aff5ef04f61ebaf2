"""Conversion between the three formats: nothing lost unsaid, whole or not at all, and read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, processors

from aprender.errors import FormatError
from aprender.formats import convert as conversion
from aprender.formats import load_checkpoint
from aprender.formats.convert import convert
from aprender.transformer.config import LinearScaling, Llama3Scaling, TransformerConfig, YarnScaling
from falsifiers.weight_checkpoints import config_json, new_config_json, seeded, write_folder
from tests.formats.tiny_checkpoints import LLAMA, QWEN2

CONFIGS = {
    "qwen2": QWEN2,
    "llama3": replace(LLAMA, hidden_size=36, rope_scaling=Llama3Scaling(8.0, 1.0, 4.0, 8192)),
    "mistral": replace(LLAMA, hidden_size=36, family="mistral", windows=(6, 6), tie_word_embeddings=False),
    "qwen3": replace(QWEN2, family="qwen3", qkv_bias=False, qk_norm=True, tie_word_embeddings=True),
    "linear": replace(LLAMA, hidden_size=36, rope_scaling=LinearScaling(2.5)),
    "yarn": replace(QWEN2, rope_scaling=YarnScaling(4.0, 24.0, 2.0, 1.2, True, 4096)),
}


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[TransformerConfig, Path]:
    """A folder with tensors in all three float dtypes."""
    config = with_room(CONFIGS[request.param])
    return config, write_folder(tmp_path / "source", config_json(config), seeded(config))


def with_room(config: TransformerConfig) -> TransformerConfig:
    return replace(config, vocab_size=300)  # the tokenizer of these folders has 280


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a, b))


def test_around_all_formats(model: tuple[TransformerConfig, Path], tmp_path: Path) -> None:
    """Folder to .apr to folder gives the very model; through GGUF, vectors are float32 and numbers are rounded."""
    config, source = model
    tensors = seeded(config)
    convert(source, tmp_path / "a.apr", force=False)
    convert(tmp_path / "a.apr", tmp_path / "folder", force=False)
    for path in (tmp_path / "a.apr", tmp_path / "folder"):
        again = load_checkpoint(path)
        assert again.config == config
        assert again.usage == load_checkpoint(source).usage
        assert all(same(again.tensors[name], tensors[name]) for name in tensors)
    convert(tmp_path / "folder", tmp_path / "m.gguf", force=False)
    through = load_checkpoint(tmp_path / "m.gguf")
    rounded = replace(
        config,
        rope_scaling=None,
        rms_norm_eps=float(np.float32(config.rms_norm_eps)),
        rope_theta=float(np.float32(config.rope_theta)),
    )
    assert replace(through.config, rope_scaling=None) == rounded
    assert type(through.config.rope_scaling) is type(config.rope_scaling)
    for name, tensor in tensors.items():
        assert same(through.tensors[name], tensor.float() if tensor.ndim == 1 else tensor)


def test_the_gguf_package_reads_what_is_written(model: tuple[TransformerConfig, Path], tmp_path: Path) -> None:
    """Names, shapes and interleaved rows are where llama.cpp looks for them."""
    config, source = model
    convert(source, tmp_path / "m.gguf", force=False)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    stored = {tensor.name: tensor for tensor in reader.tensors}
    q = seeded(config)["model.layers.0.self_attn.q_proj.weight"]
    assert stored["blk.0.attn_q.weight"].tensor_type.name == {torch.float32: "F32", torch.float16: "F16"}.get(
        q.dtype, "BF16"
    )
    raw = torch.from_numpy(np.ascontiguousarray(stored["blk.0.attn_q.weight"].data).view(np.uint8).copy())
    rows = raw.view(q.dtype).view(q.shape)
    second = config.head_dim // 2 if config.family in ("llama", "mistral") else 1
    assert same(rows[1], q[second])
    assert all(tensor.tensor_type.name == "F32" for tensor in reader.tensors if len(tensor.shape) == 1)
    assert ("rope_freqs.weight" in stored) == isinstance(config.rope_scaling, Llama3Scaling)


def test_transformers_loads_what_is_written(model: tuple[TransformerConfig, Path], tmp_path: Path) -> None:
    """A written folder is one for transformers, too: the same parameters, nothing missing and nothing left."""
    transformers = pytest.importorskip("transformers")
    config, source = model
    convert(source, tmp_path / "m.apr", force=False)
    convert(tmp_path / "m.apr", tmp_path / "folder", force=False)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "folder", dtype=torch.float32, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    parameters = theirs.state_dict()
    assert all(same(parameters[name], tensor.float()) for name, tensor in seeded(config).items())


def test_quantized_tensors_become_float32(tmp_path: Path) -> None:
    """What was dequantized is written as float32, and said to be."""
    from falsifiers import weight_gguf
    from falsifiers.weight_checkpoints import QUANTIZED

    blocks, _ = weight_gguf.quantized_blocks(QUANTIZED, seeded(QUANTIZED, torch.float32))
    source = weight_gguf.write_gguf(tmp_path / "q.gguf", QUANTIZED, seeded(QUANTIZED, torch.float32), blocks)
    done = convert(source, tmp_path / "m.apr", force=False)
    assert any("became F32: the values are the same" in note for note in done.notes)
    before, after = load_checkpoint(source).tensors, load_checkpoint(tmp_path / "m.apr").tensors
    assert all(same(before[name], after[name]) for name in before)


def test_notes_name_what_changes(tmp_path: Path) -> None:
    """Rounded numbers, widened vectors, another family's name and files left behind are each said."""
    config = with_room(CONFIGS["mistral"])
    source = write_folder(tmp_path / "source", config_json(config) | {"eos_token_id": [4, 5, 6]}, seeded(config))
    (source / "LICENSE").write_text("mine")
    notes = "\n".join(convert(source, tmp_path / "m.gguf", force=False).notes)
    for part in (
        "vectors became F32",
        "rms_norm_eps is float32 in GGUF: 9.999999974752427e-07 for 1e-06",
        "a mistral model is called llama in GGUF",
        "of the ids that end a text, GGUF has no place for (6,)",
        "not carried over: LICENSE",
    ):
        assert part in notes
    assert convert(source, tmp_path / "m.apr", force=False).notes == ("not carried over: LICENSE",)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (replace(QWEN2, windows=(None, 5)), "GGUF has no way to give a qwen2 model the windows"),
        (replace(QWEN2, rope_scaling=Llama3Scaling(8.0, 1.0, 4.0, 8192)), "GGUF has no place for llama3 scaling"),
        (replace(QWEN2, rope_scaling=YarnScaling(4.0, 32.0, 1.0, 1.1, False, 4096)), "with truncate false"),
    ],
)
def test_what_gguf_can_not_say_is_refused(tmp_path: Path, config: TransformerConfig, part: str) -> None:
    """A model that would come back as another isn't written, and nothing is left behind."""
    config = with_room(config)
    source = write_folder(tmp_path / "source", new_config_json(config), seeded(config))
    with pytest.raises(FormatError, match=part):
        convert(source, tmp_path / "m.gguf", force=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_tokenizers_that_gguf_can_not_say(tmp_path: Path) -> None:
    """A tokenizer that adds tokens to the text, or splits it in another way, is refused by name."""
    config = with_room(QWEN2)
    source = write_folder(tmp_path / "source", config_json(config), seeded(config))
    sound = Tokenizer.from_file(str(source / "tokenizer.json"))
    sound.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", sound.token_to_id("<|im_start|>"))]
    )
    sound.save(str(source / "tokenizer.json"))
    with pytest.raises(FormatError, match="which tokens the tokenizer adds to a text"):
        convert(source, tmp_path / "m.gguf", force=False)
    sound = Tokenizer.from_str(sound.to_str().replace("{1}", "{1,3}").replace(r"|\\p{N}| ?", r"|\\p{N}{1,3}| ?"))
    sound.post_processor = processors.ByteLevel()
    sound.save(str(source / "tokenizer.json"))
    with pytest.raises(FormatError, match="only where it splits text as"):
        convert(source, tmp_path / "m.gguf", force=False)


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    """A file stays as it is, and --force replaces it whole."""
    config = with_room(QWEN2)
    source = write_folder(tmp_path / "source", config_json(config), seeded(config))
    target = tmp_path / "m.apr"
    target.write_text("precious")
    with pytest.raises(FormatError, match="is there already; --force replaces it"):
        convert(source, target, force=False)
    assert target.read_text() == "precious"
    convert(source, target, force=True)
    assert load_checkpoint(target).config == config


def test_only_a_models_folder_is_replaced(tmp_path: Path) -> None:
    """With --force a folder is replaced if nothing but a model is in it: not somebody's home."""
    config = with_room(QWEN2)
    source = write_folder(tmp_path / "source", config_json(config), seeded(config))
    target = tmp_path / "target"
    convert(source, target, force=False)
    convert(source, target, force=True)
    assert load_checkpoint(target).config == config
    (target / "diary.txt").write_text("precious")
    with pytest.raises(FormatError, match=r"holds diary\.txt, too, so it isn't replaced"):
        convert(source, target, force=True)
    assert (target / "diary.txt").read_text() == "precious"
    (tmp_path / "x.apr").mkdir()
    with pytest.raises(FormatError, match="is a folder, and a file is to be written"):
        convert(source, tmp_path / "x.apr", force=True)


def test_a_fault_of_the_writer_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is read back: a wrong byte means that nothing gets the name."""
    config = with_room(QWEN2)
    source = write_folder(tmp_path / "source", config_json(config), seeded(config))
    original = conversion._as_written
    monkeypatch.setattr(conversion, "_as_written", lambda *args: original(*args) * (2 if "norm" in args[2] else 1))
    with pytest.raises(FormatError, match=r"what was written differs in .*norm\.weight.*; nothing was kept"):
        convert(source, tmp_path / "m.apr", force=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends in the middle leaves neither half a file nor a temporary one."""
    config = with_room(QWEN2)
    source = write_folder(tmp_path / "source", config_json(config), seeded(config))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "_verify", interrupted)
    for target in ("m.apr", "m.gguf", "folder"):
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / target, force=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize(
    ("target", "part"),
    [("m.safetensors", "give the folder's name"), ("no/such/folder/m.apr", "there is no such folder; make it first")],
)
def test_targets_that_can_not_be(tmp_path: Path, target: str, part: str) -> None:
    """A single safetensors file has no place for a configuration; folders on the way aren't made."""
    config = with_room(QWEN2)
    source = write_folder(tmp_path / "source", config_json(config), seeded(config))
    with pytest.raises(FormatError, match=part):
        convert(source, tmp_path / target, force=False)

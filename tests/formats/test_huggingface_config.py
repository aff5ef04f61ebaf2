"""config.json is read whole or refused; nothing in it is guessed or ignored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aprender.errors import FormatError
from aprender.formats.huggingface import read_config
from aprender.transformer.config import TransformerConfig
from tests.formats.tiny_checkpoints import LLAMA, QWEN2, config_json


def read(tmp_path: Path, values: object) -> TransformerConfig:
    path = tmp_path / "config.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return read_config(path)


def refusal(tmp_path: Path, values: object) -> str:
    with pytest.raises(FormatError) as caught:
        read(tmp_path, values)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'config.json'}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("config", [QWEN2, LLAMA], ids=["qwen2", "llama"])
def test_both_families_are_read(tmp_path: Path, config: TransformerConfig) -> None:
    """Every field comes from the file, and only qwen2 gets biases."""
    assert read(tmp_path, config_json(config)) == config


def test_theta_at_the_top_level_is_read(tmp_path: Path) -> None:
    """Folders written before transformers 5 state rope_theta at the top level, with a null rope_scaling."""
    values = config_json(QWEN2) | {"rope_theta": 1e6, "rope_scaling": None, "use_sliding_window": False}
    del values["rope_parameters"]
    assert read(tmp_path, values) == QWEN2


def test_what_transformers_writes_is_read(tmp_path: Path) -> None:
    """A configuration saved by transformers itself is complete as it stands."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    transformers.Qwen2Config(**sizes, **heads, tie_word_embeddings=True).save_pretrained(tmp_path / "q")
    transformers.LlamaConfig(**sizes, **heads).save_pretrained(tmp_path / "l")
    qwen2, llama = read_config(tmp_path / "q" / "config.json"), read_config(tmp_path / "l" / "config.json")
    assert (qwen2.family, qwen2.head_dim, qwen2.tie_word_embeddings, qwen2.qkv_bias) == ("qwen2", 6, True, True)
    assert (llama.family, llama.head_dim, llama.tie_word_embeddings, llama.qkv_bias) == ("llama", 6, False, False)


@pytest.mark.parametrize("absent", ["absent", "null"])
def test_absent_head_dim_is_the_quotient(tmp_path: Path, absent: str) -> None:
    """Hugging Face defines an absent head_dim as hidden_size / num_attention_heads."""
    values = config_json(QWEN2) | {"hidden_size": 48, "head_dim": None}
    if absent == "absent":
        del values["head_dim"]
    assert read(tmp_path, values) == replace(QWEN2, hidden_size=48, head_dim=8)


def test_absent_head_dim_must_divide(tmp_path: Path) -> None:
    """A quotient with a remainder is no head_dim."""
    values = config_json(QWEN2) | {"head_dim": None}
    assert "hidden_size (32) is no multiple of num_attention_heads (6)" in refusal(tmp_path, values)


def test_every_missing_key_is_named_at_once(tmp_path: Path) -> None:
    """A file with nothing but its type is refused with the whole list of what it lacks."""
    message = refusal(tmp_path, {"model_type": "llama"})
    for key in config_json(LLAMA).keys() - {"model_type", "head_dim", "rope_parameters"}:
        assert key in message
    assert "rope_theta" in message


@pytest.mark.parametrize("key", sorted(config_json(LLAMA).keys() - {"model_type", "head_dim", "rope_parameters"}))
def test_nothing_has_a_default(tmp_path: Path, key: str) -> None:
    """Each key that is absent, or null, is an error on its own."""
    values = config_json(LLAMA)
    assert f"missing {key}" in refusal(tmp_path, values | {key: None})
    del values[key]
    assert f"missing {key}" in refusal(tmp_path, values)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("hidden_size", "32", "a whole number"),
        ("hidden_size", True, "a whole number"),
        ("hidden_size", 32.0, "a whole number"),
        ("head_dim", [8], "a whole number"),
        ("rms_norm_eps", "1e-6", "a number"),
        ("rms_norm_eps", 10**400, "a number below 1e308"),
        ("tie_word_embeddings", 1, "true or false"),
        ("hidden_act", 3, "a string"),
        ("rope_parameters", "default", "an object"),
        ("rope_parameters", {"rope_theta": True, "rope_type": "default"}, "a number"),
    ],
)
def test_wrong_types_are_refused(tmp_path: Path, key: str, value: Any, wanted: str) -> None:
    """A value of the wrong JSON type is named, never converted."""
    message = refusal(tmp_path, config_json(QWEN2) | {key: value})
    assert key in message
    assert wanted in message


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("qwen2", "hidden_act", "gelu"),
        ("qwen2", "layer_types", ["full_attention", "sliding_attention"]),
        ("qwen2", "partial_rotary_factor", 0.5),
        ("qwen2", "rope_scaling", {"type": "yarn", "factor": 4.0}),
        ("llama", "rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
        ("llama", "rope_parameters", {"rope_theta": 1e4, "rope_type": "dynamic", "factor": 2.0}),
        ("llama", "sliding_window", 4096),
        ("llama", "layer_types", ["sliding_attention", "full_attention"]),
        ("llama", "attention_bias", True),
        ("llama", "mlp_bias", True),
        ("llama", "attention_bias", "false"),
    ],
)
def test_unsupported_features_are_refused(tmp_path: Path, family: str, key: str, value: Any) -> None:
    """What the transformer doesn't compute is refused by name."""
    config = QWEN2 if family == "qwen2" else LLAMA
    assert key in refusal(tmp_path, config_json(config) | {key: value})


@pytest.mark.parametrize("model_type", ["gemma3", "phi3", None, ["qwen2"]])
def test_other_model_types_are_refused(tmp_path: Path, model_type: Any) -> None:
    """Other families are refused, however similar they look."""
    assert "supported are llama, mistral, qwen2 and qwen3" in refusal(
        tmp_path, config_json(QWEN2) | {"model_type": model_type}
    )


def test_problems_of_all_kinds_come_together(tmp_path: Path) -> None:
    """A missing key, a wrong type and an unsupported feature are all in the one message."""
    message = refusal(tmp_path, config_json(LLAMA) | {"vocab_size": None, "hidden_size": "32", "attention_bias": True})
    assert "missing vocab_size" in message
    assert "hidden_size is '32'" in message
    assert "attention_bias is True" in message


def test_two_thetas_must_agree(tmp_path: Path) -> None:
    """A file that states theta twice and differently can't be right."""
    assert "differ" in refusal(tmp_path, config_json(QWEN2) | {"rope_theta": 1e4})


def test_absent_rope_type_is_missing(tmp_path: Path) -> None:
    """rope_parameters without its type doesn't say that RoPE is unscaled."""
    values = config_json(QWEN2) | {"rope_parameters": {"rope_theta": 1e6}}
    assert "missing rope_parameters.rope_type" in refusal(tmp_path, values)


def test_impossible_values_name_the_file(tmp_path: Path) -> None:
    """What TransformerConfig refuses is reported with the path as well."""
    assert "num_key_value_heads" in refusal(tmp_path, config_json(QWEN2) | {"num_key_value_heads": 4})
    assert "rms_norm_eps is nan" in refusal(tmp_path, config_json(QWEN2) | {"rms_norm_eps": float("nan")})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ('{"vocab_size": ' + "1" * 5000 + "}", "is not valid JSON"),
        ('{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        ("[]", "holds no JSON object"),
        ("null", "holds no JSON object"),
    ],
)
def test_other_than_a_json_object_is_refused(tmp_path: Path, text: str, part: str) -> None:
    """Text that isn't one JSON object is one sentence, whatever is wrong with it."""
    assert part in refusal(tmp_path, text)


def test_other_than_utf8_is_refused(tmp_path: Path) -> None:
    """Bytes that aren't UTF-8 aren't JSON."""
    path = tmp_path / "config.json"
    path.write_bytes(b'{"model_type": "\xff\xfe\xff"}')
    with pytest.raises(FormatError, match="is not valid JSON"):
        read_config(path)

"""Configurations of all families mean here what they mean to transformers, in the old form and in the new."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aprender.errors import FormatError
from aprender.formats.huggingface import config_from_values, read_config
from aprender.formats.huggingface_values import config_values
from aprender.transformer.config import LinearScaling, Llama3Scaling, TransformerConfig, YarnScaling
from tests.formats.tiny_checkpoints import LLAMA, QWEN2, config_json

transformers = pytest.importorskip("transformers")

SIZES = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 5}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
CLASSES = {"llama": "LlamaConfig", "mistral": "MistralConfig", "qwen2": "Qwen2Config", "qwen3": "Qwen3Config"}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}


def theirs_and_ours(tmp_path: Path, family: str, **values: Any) -> tuple[Any, TransformerConfig]:
    """A configuration made and saved by transformers, as it stands there and as it is read here."""
    theirs = getattr(transformers, CLASSES[family])(**SIZES, **HEADS, max_position_embeddings=131072, **values)
    theirs.save_pretrained(tmp_path)
    return theirs, read_config(tmp_path / "config.json")


def refusal(family: str, **values: Any) -> str:
    with pytest.raises(FormatError) as caught:
        config_from_values("config.json", base(family) | values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def base(family: str) -> dict[str, Any]:
    """A plain configuration in the form before transformers 5."""
    values = config_json(LLAMA) | {"model_type": family, "rope_theta": 1e4, "max_position_embeddings": 131072}
    del values["rope_parameters"]
    return values | ({"sliding_window": None} if family == "mistral" else {})


def scaling_of(**rope: Any) -> Any:
    return config_from_values("config.json", base("llama") | {"rope_scaling": rope}).rope_scaling


@pytest.mark.parametrize("family", CLASSES)
def test_what_transformers_saves_is_read(tmp_path: Path, family: str) -> None:
    """Sizes, eps, theta, tie and the families' own features are what transformers holds."""
    extra: dict[str, Any] = {"head_dim": 10} if family == "qwen3" else {}
    theirs, ours = theirs_and_ours(tmp_path, family, rms_norm_eps=3e-5, tie_word_embeddings=True, **extra)
    assert all(getattr(ours, key) == value for key, value in (SIZES | HEADS).items())
    assert ours.head_dim == (10 if family == "qwen3" else 6)
    assert (ours.family, ours.rms_norm_eps, ours.tie_word_embeddings) == (family, 3e-5, True)
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]
    assert ours.rope_scaling is None
    assert (ours.qkv_bias, ours.qk_norm) == (family == "qwen2", family == "qwen3")


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize(
    "values",
    [
        {"use_sliding_window": False, "sliding_window": 7, "max_window_layers": 2},
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0},
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 28},
        {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 2},
        {
            "use_sliding_window": True,
            "sliding_window": 9,
            "layer_types": [f"{kind}_attention" for kind in ("full", "sliding", "full", "full", "sliding")],
        },
    ],
)
@pytest.mark.parametrize("states_types", [True, False])
def test_windows_are_transformers_own(tmp_path: Path, family: str, values: dict[str, Any], states_types: bool) -> None:
    """Each layer has the window that transformers gives it, with layer_types stated or derived."""
    theirs, ours = theirs_and_ours(tmp_path, family, head_dim=10, **values)
    expected = tuple(theirs.sliding_window if kind == "sliding_attention" else None for kind in theirs.layer_types)
    if not states_types and "layer_types" not in values:
        saved = json.loads((tmp_path / "config.json").read_text()) | values
        del saved["layer_types"]
        ours = config_from_values("config.json", saved)
    assert ours.windows == expected


@pytest.mark.parametrize("window", [None, 12])
def test_mistral_has_one_window_or_none(tmp_path: Path, window: int | None) -> None:
    """Mistral's sliding_window holds for all layers; null says that there is none."""
    theirs, ours = theirs_and_ours(tmp_path, "mistral", sliding_window=window)
    assert ours.windows == (theirs.sliding_window,) * 5 == (window,) * 5


def test_an_absent_window_is_missing_where_it_has_no_default() -> None:
    """Whether a mistral model has a window, and where a qwen2 model's begins, the file has to say."""
    values = base("mistral")
    del values["sliding_window"]
    with pytest.raises(FormatError, match="missing sliding_window"):
        config_from_values("config.json", values)
    assert "missing sliding_window, max_window_layers" in refusal("qwen2", use_sliding_window=True)


@pytest.mark.parametrize(
    ("family", "values", "part"),
    [
        ("qwen2", {"layer_types": ["sliding_attention", "full_attention"]}, "use_sliding_window is not true"),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types has 1 entries for 2 layers"),
        ("qwen2", {"layer_types": ["full_attention", "linear_attention"]}, "only full_attention"),
        ("qwen2", {"layer_types": "full_attention"}, "only full_attention"),
        ("qwen2", {"use_sliding_window": 1}, "must be true or false"),
        ("mistral", {"layer_types": ["sliding_attention"] * 2}, "disagree"),
        ("mistral", {"sliding_window": 0}, "an attention window is 0"),
        ("llama", {"sliding_window": 5}, "a llama model doesn't have"),
        ("qwen3", {"head_dim": None}, "missing head_dim"),
    ],
)
def test_windows_that_contradict_are_refused(family: str, values: dict[str, Any], part: str) -> None:
    """Keys that can't both be right are refused, not ranked."""
    assert part in refusal(family, **{"head_dim": 10} | values)


def test_both_forms_of_scaling_are_read(tmp_path: Path) -> None:
    """rope_scaling with theta beside it, and rope_parameters with theta inside, give the same."""
    for rope in (LLAMA3, YARN, {"rope_type": "linear", "factor": 2.5}):
        old = base("llama") | {"rope_scaling": rope}
        new = base("llama") | {"rope_parameters": {"rope_theta": 1e4, **rope}}
        del new["rope_theta"]
        assert config_from_values("old", old) == config_from_values("new", new)
        theirs, ours = theirs_and_ours(tmp_path, "llama", rope_parameters={"rope_theta": 1e4, **rope})
        assert ours.rope_scaling == config_from_values("old", old).rope_scaling
        assert ours.rope_theta == theirs.rope_parameters["rope_theta"]


def test_the_three_scalings() -> None:
    """Every parameter arrives in its field; ``type`` is the old name of ``rope_type``."""
    assert scaling_of(type="linear", factor=2) == LinearScaling(2.0)
    assert scaling_of(**LLAMA3) == Llama3Scaling(8.0, 1.0, 4.0, 8192)
    assert scaling_of(
        type="yarn", factor=4.0, original_max_position_embeddings=32768, beta_fast=30, beta_slow=2, truncate=False
    ) == YarnScaling(4.0, 30.0, 2.0, 0.1 * math.log(4.0) + 1, False, 32768)
    assert scaling_of(rope_type="default") is None


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"attention_factor": 1.25},
        {"attention_factor": None, "beta_fast": None, "beta_slow": None},
        {"mscale": 0.7, "mscale_all_dim": 1.3},
        {"mscale": 0.7},
        {"factor": 1.0},
        {"beta_fast": 20.0, "beta_slow": 3.0, "truncate": False},
    ],
)
def test_what_yarn_leaves_out_is_what_transformers_takes(tmp_path: Path, extra: dict[str, Any]) -> None:
    """Frequencies and attention factor from our fields are the ones that transformers computes from the file."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {"rope_theta": 5e5, **YARN, **extra}
    theirs, ours = theirs_and_ours(tmp_path, "qwen2", rope_parameters=rope)
    frequencies, attention_factor = ROPE_INIT_FUNCTIONS["yarn"](theirs, "cpu")
    scaling = ours.rope_scaling
    assert isinstance(scaling, YarnScaling)
    assert scaling.attention_factor == pytest.approx(attention_factor, rel=1e-12)
    complete = {"rope_theta": 5e5, "rope_type": "yarn"} | {name: getattr(scaling, name) for name in scaling.__slots__}
    again, _ = theirs_and_ours(tmp_path, "qwen2", rope_parameters=complete)
    refrequencies, again_factor = ROPE_INIT_FUNCTIONS["yarn"](again, "cpu")
    assert frequencies.tolist() == refrequencies.tolist()
    assert again_factor == pytest.approx(attention_factor, rel=1e-12)


def test_an_absent_original_length_is_the_models_own() -> None:
    """Hugging Face defines an absent original_max_position_embeddings as max_position_embeddings."""
    scaling = scaling_of(rope_type="yarn", factor=2.0)
    assert isinstance(scaling, YarnScaling)
    assert scaling.original_max_position_embeddings == 131072


@pytest.mark.parametrize(
    ("rope", "part"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "asks for 'dynamic', which is not supported"),
        ({"rope_type": "longrope", "short_factor": [1.0]}, "asks for 'longrope'"),
        ({"rope_type": "linear"}, "missing rope_scaling.factor"),
        ({"rope_type": "llama3", "factor": 8.0}, "rope_scaling.low_freq_factor, rope_scaling.high_freq_factor"),
        ({"rope_type": "yarn"}, "missing rope_scaling.factor"),
        ({"rope_type": "linear", "factor": 0}, "factor is 0.0, must be a positive number"),
        ({"rope_type": "linear", "factor": 2.0, "beta_fast": 3}, "beta_fast is 3, which is not supported with linear"),
        ({"rope_type": "linear", "factor": 2.0, "ratio": 3}, "ratio is 3, which is not supported"),
        ({"rope_type": "linear", "type": "yarn", "factor": 2.0}, "they differ"),
        ({"factor": 2.0}, "missing rope_scaling.rope_type"),
        ({"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}, "must be 1"),
        ({"rope_type": "default", "rope_theta": 2e4}, "rope_scaling.rope_theta and rope_theta differ"),
        (["linear"], "must be an object"),
    ],
)
def test_scalings_that_can_not_be_used_are_refused(rope: Any, part: str) -> None:
    """Other scalings, missing parameters, unknown ones and contradictions are named."""
    assert part in refusal("llama", rope_scaling=rope)


def test_two_scalings_must_agree() -> None:
    """A file in both forms must say the same in both."""
    new = {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}
    assert "rope_parameters and rope_scaling differ" in refusal("llama", rope_scaling=YARN, rope_parameters=new)
    assert "rope_parameters and rope_scaling differ" not in str(
        config_from_values("c", base("llama") | {"rope_scaling": new, "rope_parameters": new})
    )


@pytest.mark.parametrize(
    ("model_type", "part"),
    [
        ("mixtral", "mixture-of-experts"),
        ("qwen2_moe", "mixture-of-experts"),
        ("qwen3_moe", "mixture-of-experts"),
        ("qwen3_next", "linear attention"),
        ("mamba", "linear attention"),
        ("rwkv", "linear attention"),
    ],
)
def test_other_kinds_of_models_are_refused_with_what_is_missing(model_type: str, part: str) -> None:
    """A model with experts or linear attention is refused by what this transformer lacks."""
    assert f"model_type is '{model_type}': not supported, this transformer has no {part}" in refusal(
        "llama", model_type=model_type
    )


def test_experts_are_recognised_under_any_name() -> None:
    """A configuration that asks for experts isn't loaded as a dense model, whatever it calls itself."""
    assert "which num_local_experts asks for" in refusal("mistral", num_local_experts=8)
    assert config_from_values("c", base("llama") | {"num_experts": 0}).family == "llama"


WINDOWED = replace(QWEN2, family="mistral", qkv_bias=False, windows=(8, 8))
DIVISIBLE = replace(LLAMA, hidden_size=36)  # transformers' llama wants hidden_size to be a multiple of the heads
CONFIGS = [
    QWEN2,
    DIVISIBLE,
    WINDOWED,
    replace(WINDOWED, windows=(None, None)),
    replace(QWEN2, family="qwen3", qkv_bias=False, qk_norm=True, windows=(None, 9)),
    replace(DIVISIBLE, rope_scaling=Llama3Scaling(8.0, 1.0, 4.0, 8192)),
    replace(QWEN2, rope_scaling=YarnScaling(4.0, 32.0, 1.0, 1.1, True, 4096)),
    replace(QWEN2, rope_scaling=LinearScaling(2.0)),
]


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_values_written_are_the_configuration_read(tmp_path: Path, config: TransformerConfig) -> None:
    """What is written for a configuration gives it back, here and to transformers."""
    values = config_values(config)
    assert config_from_values("config.json", json.loads(json.dumps(values))) == config
    (tmp_path / "config.json").write_text(json.dumps(values | {"max_position_embeddings": 131072}))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert theirs.model_type == config.family
    assert theirs.head_dim == config.head_dim
    assert theirs.rope_parameters["rope_theta"] == config.rope_theta


def test_windows_that_no_key_can_say_are_not_written() -> None:
    """Two different windows, or a window in a llama model, have no place in config.json."""
    for config in (
        replace(LLAMA, windows=(5, None)),
        replace(QWEN2, windows=(5, 6)),
        replace(WINDOWED, windows=(5, None)),
    ):
        with pytest.raises(FormatError, match="no way to give"):
            config_values(config)

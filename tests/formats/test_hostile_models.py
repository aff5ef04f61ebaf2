"""Wrong model files end in success or in one FormatError, soon and in little memory: 500 mutations of each kind."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aprender.errors import FormatError
from aprender.formats import load_checkpoint
from aprender.formats.huggingface import config_from_values
from aprender.formats.inspection import inspect_model
from bench.fuzz_formats import MOST_MEGABYTES, MOST_SECONDS, forget_peak, load, peak
from bench.mutations import MADE_UP, model_of, mutated, sound_files
from falsifiers.weight_checkpoints import QWEN2, config_json

KINDS = ("safetensors", "gguf", "apr", "config.json", "tokenizer.json", "index")
FEW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("kind", KINDS)
def test_mutations(tmp_path: Path, kind: str) -> None:
    """Whatever bytes are hit, nothing but a FormatError comes out, in one line."""
    file = sound_files(tmp_path)[kind]
    sound = file.read_bytes()
    assert load(model_of(file))
    draw = random.Random(20261124)  # noqa: S311 - mutations, not secrets
    before, refused, slowest = forget_peak(), 0, 0.0
    for _ in range(500):
        file.write_bytes(mutated(draw, sound, kind))
        started = time.process_time()
        refused += not load(model_of(file))
        slowest = max(slowest, time.process_time() - started)
    assert refused > 300  # so the bytes that matter were hit
    assert slowest < MOST_SECONDS
    assert peak() - before < MOST_MEGABYTES


@pytest.mark.parametrize("kind", MADE_UP)
def test_made_up_headers(tmp_path: Path, kind: str) -> None:
    """Headers whose every part is invented are refused like all others."""
    file = sound_files(tmp_path)[kind]

    @FEW
    @given(MADE_UP[kind]())
    def check(content: bytes) -> None:
        file.write_bytes(content)
        load(model_of(file))

    check()


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@FEW
@given(st.dictionaries(st.sampled_from([*config_json(QWEN2), "rope_parameters", "layer_types"]), _anything))
def test_made_up_configurations(changed: dict[str, object]) -> None:
    """Any value of any type under any key is a configuration or a FormatError."""
    said = ""
    try:
        config_from_values("config.json", config_json(QWEN2) | changed)
    except FormatError as error:
        said = str(error)
    assert "\n" not in said


@pytest.mark.parametrize("name", ["m.gguf", "m.apr", "model/config.json", "model/model.safetensors"])
def test_other_things_than_files(tmp_path: Path, name: str) -> None:
    """A folder, a pipe, a device and links to nothing, to themselves and to a device are each one sentence."""
    sound_files(tmp_path)
    path = tmp_path / name
    path.unlink(missing_ok=True)
    model = path if path.parent == tmp_path else path.parent
    makers: dict[str, Callable[[], object]] = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "nowhere": lambda: path.symlink_to(tmp_path / "nowhere"),
        "itself": lambda: path.symlink_to(path),
        "device": lambda: path.symlink_to("/dev/zero"),
    }
    for make in makers.values():
        make()
        started = time.process_time()
        for read in (load_checkpoint, inspect_model):
            if read is inspect_model and model != path:
                continue  # it says what is wrong among its problems
            with pytest.raises(FormatError) as caught:
                read(model)
            assert "\n" not in str(caught.value)
        assert time.process_time() - started < 1
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.parametrize("text", ["[" * 3_000_000, "[" + "{}," * 1_000_000 + "{}]", '{"a":"' + "x" * 3_900_000 + '"}'])
def test_large_json_is_bounded(tmp_path: Path, text: str) -> None:
    """A configuration of megabytes takes neither seconds nor half a gigabyte."""
    file = sound_files(tmp_path)["config.json"]
    file.write_text(text)
    before, started = forget_peak(), time.process_time()
    with pytest.raises(FormatError):
        load_checkpoint(file.parent)
    assert time.process_time() - started < MOST_SECONDS
    assert peak() - before < MOST_MEGABYTES


def test_an_apr_file_of_brackets_is_bounded(tmp_path: Path) -> None:
    """Metadata may be larger than a configuration; what they hold is bounded, too."""
    from falsifiers import weight_apr

    metadata = json.loads("{" + ",".join(f'"{i}":[]' for i in range(1_250_000)) + "}")
    path = weight_apr.write_apr(tmp_path / "m.apr", metadata, {})
    del metadata
    before, started = forget_peak(), time.process_time()
    with pytest.raises(FormatError):
        load_checkpoint(path)
    assert time.process_time() - started < 4 * MOST_SECONDS  # a busy machine's
    assert peak() - before < MOST_MEGABYTES

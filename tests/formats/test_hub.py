"""``hf:ORG/NAME``: the local cache first, then the network, then one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from aprender.errors import FormatError
from aprender.formats import load_checkpoint, source_files
from aprender.formats.hub import resolve
from tests.formats.tiny_checkpoints import QWEN2, random_tensors, write_folder

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with one model in it, laid out as the library does: links into a folder of blobs; no network."""
    home = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = home / "models--org--tiny.model"
    snapshot, blobs = model / "snapshots" / REVISION, model / "blobs"
    for folder in (snapshot, blobs, model / "refs"):
        folder.mkdir(parents=True)
    (model / "refs" / "main").write_text(REVISION)
    plain = write_folder(tmp_path / "plain", QWEN2, random_tensors(QWEN2))
    for number, file in enumerate(sorted(plain.iterdir())):
        shutil.move(file, blobs / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    return snapshot


@pytest.mark.parametrize("name", ["hf:org/tiny.model", "hf:org/tiny.model@main", f"hf:org/tiny.model@{REVISION}"])
def test_a_cached_model_is_found(cache: Path, name: str) -> None:
    """The snapshot of the revision is loaded; its files are links, which are followed."""
    assert resolve(Path(name)) == cache
    assert load_checkpoint(Path(name)).config == QWEN2
    assert [path.name for path in source_files(Path(name))] == ["config.json", "model.safetensors", "tokenizer.json"]


def test_other_paths_are_left_alone(tmp_path: Path) -> None:
    """Only ``hf:`` asks for the hub."""
    assert resolve(tmp_path) == tmp_path


@pytest.mark.usefixtures("cache")
def test_what_is_not_there_is_one_sentence() -> None:
    """Neither cached nor downloadable: what is missing, why, and what to do."""
    for name in ("hf:org/other", "hf:org/tiny.model@v2"):
        with pytest.raises(FormatError) as caught:
            source_files(Path(name))
        message = str(caught.value)
        assert message.startswith(f"{name}: is not in the local hub cache and can't be downloaded (")
        assert "give a model folder" in message
        assert "\n" not in message


@pytest.mark.parametrize("name", ["hf:", "hf:tiny", "hf:a/b/c", "hf:../x", "hf:org/tiny@", "hf:org/a b"])
def test_names_that_are_none(name: str) -> None:
    """A name that no model can have is refused before anything is looked for."""
    with pytest.raises(FormatError, match="is no model of the hub"):
        resolve(Path(name))


def test_the_network_is_asked_after_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What isn't cached is downloaded, pickles excepted."""
    calls: list[dict[str, object]] = []

    def download(repo: str, **how: object) -> str:
        calls.append({"repo": repo, **how})
        if how.get("local_files_only"):
            raise LocalEntryNotFoundError("not cached")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve(Path("hf:org/new@v1")) == tmp_path
    first, second = calls
    assert first == {"repo": "org/new", "revision": "v1", "local_files_only": True}
    assert second == {"repo": "org/new", "revision": "v1", "allow_patterns": ["*.json", "*.safetensors", "*.jinja"]}

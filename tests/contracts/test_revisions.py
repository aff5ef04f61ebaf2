"""Sides of a diff that git keeps: named from anywhere, folders and files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from aprender.contracts.files import NothingToDo
from aprender.contracts.revisions import side_of


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """``a/contracts`` with two contracts, one of them in a folder."""
    folder = tmp_path / "a" / "contracts"
    (folder / "sub").mkdir(parents=True)
    for name in ("x.yaml", "sub/y.yaml"):
        (folder / name).write_text("metadata: {}\n")
    identity = ["-c", "user.email=a@b.c", "-c", "user.name=n"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("place", "name", "other"),
    [
        (".", "git:HEAD", "a/contracts"),
        (".", "git:HEAD", "."),
        (".", "HEAD:a/contracts", "."),
        (".", "HEAD:", "."),
        (".", "HEAD:./", "."),
        ("a/contracts", "git:HEAD", "."),
        ("a/contracts", "git:HEAD", ".."),
        ("a/contracts", "HEAD:./", "."),
        ("a/contracts", "HEAD:a/contracts", "."),
    ],
)
def test_a_folder_is_found_from_wherever_it_is_named(
    repository: Path, monkeypatch: pytest.MonkeyPatch, place: str, name: str, other: str
) -> None:
    """From the root, from within, and from a folder between."""
    monkeypatch.chdir(repository / place)
    side = side_of(name, other)
    assert side.is_folder
    assert {stem: raw for stem, (_, raw) in side.files.items()} == dict.fromkeys("xy", b"metadata: {}\n")


@pytest.mark.parametrize(
    ("place", "name"), [(".", "HEAD:a/contracts/x.yaml"), ("a/contracts", "HEAD:./x.yaml"), ("a/contracts", "git:HEAD")]
)
def test_a_file_is_found_from_wherever_it_is_named(
    repository: Path, monkeypatch: pytest.MonkeyPatch, place: str, name: str
) -> None:
    """It is no folder of one."""
    monkeypatch.chdir(repository / place)
    side = side_of(name, "x.yaml")
    assert not side.is_folder
    assert side.files["x"][1] == b"metadata: {}\n"


def test_what_a_revision_does_not_have_is_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In git's words."""
    monkeypatch.chdir(repository)
    with pytest.raises(NothingToDo, match=r"HEAD:zz: path 'zz' does not exist in that revision"):
        side_of("HEAD:zz", "a")

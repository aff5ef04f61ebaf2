"""The sides of a diff that git keeps."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from aprender.contracts.diff_sets import diff_of
from aprender.contracts.validate import NothingToDo
from aprender.errors import AprenderError
from tests.toy_project import CONTRACT


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two contracts in ``a/contracts`` as committed; one was weakened since."""
    contracts = tmp_path / "a" / "contracts"
    (contracts / "deep").mkdir(parents=True)
    (contracts / "t-v1.yaml").write_text(CONTRACT)
    (contracts / "deep" / "u-v1.yaml").write_text(CONTRACT.replace("FALSIFY-T", "FALSIFY-U"))
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "m"]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    (contracts / "t-v1.yaml").write_text(CONTRACT.replace("valid_for: 30d", "valid_for: 5w"))
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "old", "new"),
    [
        (".", "git:HEAD", "a/contracts"),
        (".", "git:HEAD", "a/contracts/"),
        (".", "git:HEAD", "."),
        (".", "HEAD:./", "."),
        (".", "HEAD:", "."),
        (".", "HEAD:a/contracts", "a/contracts"),
        (".", "HEAD:a", "a"),
        ("a/contracts", "git:HEAD", "."),
        ("a/contracts", "HEAD:./", "."),
        ("a/contracts", "HEAD:a/contracts", "."),
        ("a/contracts", "HEAD:./deep/..", "."),
        ("a", "git:HEAD", "contracts"),
        ("a", "HEAD:./contracts", "contracts"),
        ("a/contracts/deep", "git:HEAD", ".."),
    ],
)
def test_a_folder_is_compared_with_a_revision_from_wherever(
    repository: Path, monkeypatch: pytest.MonkeyPatch, folder: str, old: str, new: str
) -> None:
    """From the root of the repository, from inside of the folder and from between the two."""
    monkeypatch.chdir(repository / folder)
    found = {Path(one.new_file).stem: [change.what for change in one.changes] for one in diff_of(old, new)}
    assert found == {"t-v1": ["valid_for 30d became 5w"], "u-v1": []}


def test_a_file_is_compared_with_a_revision(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ``git:REV`` and by path, from inside of its folder."""
    monkeypatch.chdir(repository / "a" / "contracts")
    for old in ("git:HEAD", "HEAD:./t-v1.yaml", "HEAD:a/contracts/t-v1.yaml"):
        (one,) = diff_of(old, "t-v1.yaml")
        assert [change.what for change in one.changes] == ["valid_for 30d became 5w"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("git:NOPE", "a/contracts", "git:NOPE:a/contracts: no such revision; give a path, REV:path or git:REV"),
        ("NOPE:a", "a", "NOPE:a: no such revision; give a path, REV:path or git:REV"),
        ("HEAD:nope", "a", "HEAD:nope: path 'nope' does not exist in that revision; give a path, REV:path or git:REV"),
        ("git:HEAD", "new", "git:HEAD:new: path 'new/' exists on disk, but not in that revision"),
        ("git:HEAD", "nope", "nope: no such file or folder"),
    ],
)
def test_what_a_revision_does_not_have_is_told(
    repository: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    """One line for a revision or a path that is not there."""
    (repository / "new").mkdir()
    (repository / "new" / "t-v1.yaml").write_text(CONTRACT)
    monkeypatch.chdir(repository)
    with pytest.raises(NothingToDo) as error:
        diff_of(old, new)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("folder", [".", "a", "a/contracts"])
def test_a_link_is_what_it_leads_to(repository: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """At a revision as on disk; one that leads nowhere is an error with its name."""
    link = repository / "a" / "contracts" / "v-v1.yaml"
    link.symlink_to("deep/u-v1.yaml")
    committed(repository)
    monkeypatch.chdir(repository / folder)
    assert not {Path(one.new_file).stem: one.changes for one in diff_of("git:HEAD", ".")}["v-v1"]
    (alone,) = diff_of("git:HEAD", str(link.relative_to(Path.cwd())))
    assert not alone.changes
    link.unlink()
    link.symlink_to("nowhere.yaml")
    with pytest.raises(NothingToDo, match=r"v-v1\.yaml: a link that leads nowhere"):
        diff_of(str(link), str(link.with_name("t-v1.yaml")))
    committed(repository)
    link.unlink()
    with pytest.raises(AprenderError, match=r"v-v1\.yaml: a link that leads to no file of that revision"):
        diff_of("git:HEAD", ".")


def committed(repository: Path) -> None:
    """All that is there now, as a commit."""
    for words in (["add", "."], ["-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qam", "m"]):
        subprocess.run(["git", "-C", repository, *words], check=True)

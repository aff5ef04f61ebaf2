"""``[tool.pv]``: found, read, and wrong in ways that name the line."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from aprender.contracts.config import Config, read_config
from aprender.errors import AprenderError


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, and the working folder in it."""
    top = tmp_path / "repository"
    (top / ".git").mkdir(parents=True)
    monkeypatch.chdir(top)
    return top


def write(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(text, "utf-8")


def test_without_a_table_there_are_defaults(repository: Path) -> None:
    """No file, a file without the table, a file of others' commands."""
    assert read_config() == Config() == Config(("contracts",), (), (), False)
    write(repository, '[project]\nname = "x"\n[project.scripts]\npv = "x:main"\n[tool.ruff]\nline-length = 120\n')
    assert read_config() == Config()


def test_every_key_is_read(repository: Path) -> None:
    """Rules in any case."""
    write(repository, '[tool.pv]\npaths = ["a", "b/c.yaml"]\nselect = ["yaml"]\nignore = ["YAML-006"]\nstrict = true\n')
    assert read_config() == Config(("a", "b/c.yaml"), ("YAML",), ("YAML-006",), True)


@pytest.mark.parametrize(
    "text",
    [
        "[tool]\npv.strict = true\n",
        "[tool]\npv = {strict = true}\n",
        "tool.pv.strict = true\n",
        "[ tool.pv ]\nstrict=true",
        '[tool . "pv"]\nstrict = true\n',
        "tool = {pv = {strict = true}}\n",
    ],
)
def test_the_table_has_many_spellings(text: str, repository: Path) -> None:
    """All of them are TOML."""
    write(repository, text)
    assert read_config().strict


def test_the_nearest_file_that_has_the_table_counts(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of a larger repository needs no table of its own; paths are relative to where they are written."""
    write(repository, '[tool.pv]\npaths = ["contracts", "../shared", "/abs"]\n')
    write(repository / "package", "[project]\n")
    (repository / "package" / "src").mkdir()
    monkeypatch.chdir(repository / "package" / "src")
    assert read_config().paths == ("../../contracts", "../../../shared", "/abs")
    write(repository / "package", "[tool.pv]\nstrict = true\n")
    assert read_config() == Config(strict=True)


def test_the_search_ends_at_the_top_of_the_repository(repository: Path) -> None:
    """What lies above is somebody else's."""
    write(repository.parent, "[tool.pv]\nstrict = true\n")
    assert not read_config().strict
    (repository / ".git").rmdir()
    assert read_config().strict


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.pv]\nstrict = true\nignor = []\n", "pyproject.toml:3: [tool.pv] has no key 'ignor'. Did you mean 'ignore'? Keys: paths, select, ignore, strict"),
        ("[a]\nfoo = 1\n[tool.pv]\n\n  'foo' = 1\n", "pyproject.toml:5: [tool.pv] has no key 'foo'. Keys: paths, select, ignore, strict"),
        ("[tool.pv]\nstrict = true\n[tool.pv.rules]\nx = 1\n", "pyproject.toml:3: [tool.pv] has no key 'rules'. Keys: paths, select, ignore, strict"),
        ("[tool]\npv.strickt = true\n", "pyproject.toml:2: [tool.pv] has no key 'strickt'. Did you mean 'strict'? Keys: paths, select, ignore, strict"),
        ('[tool.pv]\n"\\u0078" = 1\n', "pyproject.toml:1: [tool.pv] has no key 'x'. Keys: paths, select, ignore, strict"),
        ("[tool.pv]\nstrict = 'yes'\n", "pyproject.toml:2: strict must be true or false, not a text"),
        ("[tool.pv]\nstrict = 1\n", "pyproject.toml:2: strict must be true or false, not a number"),
        ("[tool.pv]\npaths = 'contracts'\n", "pyproject.toml:2: paths must be a list of texts, such as [\"contracts\"], not a text"),
        ("[tool.pv]\nignore = [1]\n", "pyproject.toml:2: ignore must be a list of texts, such as [\"SCHEMA-013\"], not this list"),
        ("[tool.pv]\npaths = ['']\n", "pyproject.toml:2: paths must be a list of texts, such as [\"contracts\"], not this list"),
        ("[tool.pv]\nselect = 2020-01-01\n", "pyproject.toml:2: select must be a list of texts, such as [\"SCHEMA-013\"], not a date or time"),
        ("[tool.pv]\npaths = []\n", "pyproject.toml:2: paths is empty: name a contract or a folder of contracts"),
        ("[tool]\npv = 3\n", "pyproject.toml: tool.pv must be a table: [tool.pv]"),
        ("[tool.pv]\nstrict = \n", "pyproject.toml: not valid TOML: Invalid value (at line 2, column 10)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence_with_its_line(text: str, message: str, repository: Path) -> None:
    """A setting that is not understood is never passed over."""
    write(repository, text)
    with pytest.raises(AprenderError) as caught:
        read_config()
    assert str(caught.value) == message


def test_a_rule_that_does_not_exist_is_named_with_its_own_line(repository: Path) -> None:
    """In a list of many lines, too."""
    write(repository, '[tool.pv]\nignore = [\n  "YAML-006",\n  "yaml-066",\n]\n')
    with pytest.raises(
        AprenderError, match=r"^pyproject\.toml:4: no rule or family 'YAML-066'\. Did you mean 'YAML-006'\?"
    ):
        read_config()


def test_bytes_that_are_no_text_do_no_harm(repository: Path) -> None:
    """A comment in another encoding, and a path that is no text either."""
    (repository / "pyproject.toml").write_bytes(b"# caf\xe9\n[tool.pv]\npaths = ['caf\xe9']\n")
    assert read_config().paths == ("caf\udce9",)


def test_a_file_that_can_not_be_read_is_a_sentence(repository: Path) -> None:
    """A loop of links."""
    (repository / "pyproject.toml").symlink_to("pyproject.toml")
    with pytest.raises(AprenderError, match=r"^pyproject\.toml: can't be read: "):
        read_config()


def test_a_project_without_the_table_pays_nothing(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tomllib is not imported, and reading takes less than a millisecond (the best of twenty)."""
    write(repository, '[project]\nscripts = {pv = "x:main"}\n' + "# a long file\n" * 1000)
    for name in (imports := ("tomllib", "aprender.contracts.config_table")):
        monkeypatch.delitem(sys.modules, name, raising=False)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        read_config()
        times.append(time.perf_counter() - start)
    assert not any(name in sys.modules for name in imports)
    assert min(times) < 0.001

"""``pv init`` end to end: what it makes is sound, runs without torch, can go RED, and overwrites nothing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from aprender.cli.init import FILES, SHARED_FILES
from aprender.cli.pv import main
from aprender.contracts.reader import read_bytes

WITHOUT_NUMERICS = "import sys; sys.modules.update(torch=None, numpy=None)\nfrom aprender.cli.pv import main\nmain()"


def pv(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run pv in ``folder``, in a Python in which neither torch nor numpy can be imported."""
    command = [sys.executable, "-c", WITHOUT_NUMERICS, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def init(folder: Path) -> Any:
    """Run ``pv init folder`` in this process, and return the exit code."""
    with pytest.raises(SystemExit) as end:
        main(["init", str(folder)])
    return end.value.code


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A fresh repository."""
    folder = tmp_path / "mine"
    assert init(folder) == 0
    return folder


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A fresh git repository in which ``pv run`` ran once."""
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    assert init(folder) == 0
    return folder, pv(folder, "run")


def test_the_contract_is_sound(made: Path) -> None:
    """Not even a warning."""
    done = pv(made, "validate", "--strict")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_probe_fits_the_contract(made: Path) -> None:
    """The names that the contract uses are those that the Python files have."""
    done = pv(made, "validate", "--strict", "--bind")
    assert (done.returncode, done.stderr) == (0, "")


def test_it_is_green_and_was_shown_able_to_go_red(proven: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Every planted defect turned the falsifier RED, and the gate ships on that."""
    folder, done = proven
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 falsifier: 1 GREEN; 4 of 4 planted defects caught" in done.stdout
    assert "4/4 caught, 0 inert" in done.stdout
    gate = pv(folder, "gate")
    assert gate.returncode == 0
    assert gate.stdout.endswith("gate: ship\n")


def test_what_the_runs_leave_behind_is_ignored_by_git(
    proven: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Evidence of one host and caches are not to be committed; all that ``pv init`` made is."""
    status = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=proven[0], capture_output=True, text=True, check=True
    )
    assert {line[3:] for line in status.stdout.splitlines()} == {*FILES, *SHARED_FILES}


def test_the_gate_does_not_ship_what_did_not_run(made: Path) -> None:
    """Without evidence nothing is proven."""
    assert pv(made, "gate").returncode == 3


def test_it_goes_red_when_the_code_breaks(made: Path) -> None:
    """An author's own error, not a planted one: the sum over all but the first score."""
    code = made / "example" / "softmax.py"
    text = code.read_text()
    code.write_text(text.replace("math.fsum(weights)", "math.fsum(weights[1:])"))
    assert code.read_text() != text
    done = pv(made, "run")
    assert done.returncode == 1
    assert "FALSIFY-SOFTMAX-001  RED" in done.stdout


def test_the_falsifier_is_a_pytest_item(made: Path) -> None:
    """Plain ``pytest`` finds it by the settings that ``pv init`` wrote."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_ci_runs_what_a_person_runs(made: Path) -> None:
    """The workflow is well-formed, may only read, and ends with the gate."""
    file = made / ".github" / "workflows" / "contracts.yml"
    document, findings = read_bytes(file.read_bytes(), str(file))
    assert document is not None
    assert findings == []
    assert document.data["permissions"] == {"contents": "read"}
    steps = [step["run"] for step in document.data["jobs"]["contracts"]["steps"] if "run" in step]
    assert steps[-3:] == ["pv validate --strict", "pv run", "pv gate"]


def test_a_second_time_changes_nothing(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files with the same content are fine."""
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert init(made) == 0
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before
    out = capsys.readouterr().out
    assert "made " not in out
    assert "add to" not in out


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One file that is the author's own stops all of it, before anything is written."""
    mine = tmp_path / "falsifiers" / "softmax.py"
    mine.parent.mkdir()
    mine.write_text("mine\n")
    assert init(tmp_path) == 2
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == "mine\n"
    assert f"{mine}: stands there with other content" in capsys.readouterr().err


def test_files_that_every_repository_has_stay_and_get_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """pyproject.toml and .gitignore are their author's: what belongs into them is printed."""
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\ntestpaths = ['tests']\n")
    (tmp_path / ".gitignore").write_text(".pv/\n")
    assert init(tmp_path) == 0
    assert (tmp_path / ".gitignore").read_text() == ".pv/\n"
    out = capsys.readouterr().out
    assert f"add to {tmp_path}/pyproject.toml, which is yours:\n  [tool.pv]\n  strict = true" in out
    assert f"add to {tmp_path}/.gitignore, which is yours:\n  __pycache__/\n  evidence/*.cpu.jsonl\n" in out
    assert "[tool.pytest" not in out


@pytest.mark.parametrize("name", ["contracts", ".github", "falsifiers"])
def test_a_file_where_a_folder_must_be_is_an_obstacle(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sentence and exit code 2, and nothing half written."""
    (tmp_path / name).write_text("")
    assert init(tmp_path) == 2
    assert "nothing was written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_folder_must_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``pv init README.md`` is a mistake."""
    file = tmp_path / "file"
    file.write_text("")
    assert init(file) == 2
    assert capsys.readouterr().err == f"pv: error: {file} is not a folder; name one, or a name that is free\n"


@pytest.mark.parametrize("name", ["", "contracts", "falsifiers/softmax.py", "pyproject.toml"])
def test_a_link_that_leads_nowhere_is_an_obstacle(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sentence and exit code 2; nothing is written where it points to."""
    folder, away = tmp_path / "new", tmp_path / "away"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(away)
    assert init(folder) == 2
    assert str(folder / name) in capsys.readouterr().err
    assert not away.exists()


def test_the_templates_are_packaged() -> None:
    """Each template is used, and an installed pv has it."""
    package = Path(__file__).parents[2] / "aprender"
    templates = {path.name for path in (package / "cli" / "templates").iterdir()}
    assert templates == {f"{source}.template" for source in (*FILES.values(), *SHARED_FILES.values())}
    settings = tomllib.loads((package.parent / "pyproject.toml").read_text())
    globs = settings["tool"]["setuptools"]["package-data"]["aprender"]
    assert templates <= {path.name for pattern in globs for path in package.glob(pattern)}


def test_the_python_files_are_tidy(made: Path) -> None:
    """They pass this project's formatter and linter: new users copy them."""
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", "120", str(made)],
            cwd=made, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout

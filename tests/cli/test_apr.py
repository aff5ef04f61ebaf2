"""``apr``: what it prints, how it ends, and what it doesn't import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aprender.cli.apr import main
from aprender.formats import load_checkpoint, sha256_of
from falsifiers.weight_checkpoints import QWEN2, config_json, seeded, write_folder
from falsifiers.weight_unsound import write_unsound

TINY = Path(__file__).parents[2] / "models" / "qwen2-stdlib-tiny"


def run(*words: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.out, captured.err


@pytest.mark.parametrize("name", ["model.gguf", "model.apr", "model"])
def test_inspecting_imports_neither_torch_nor_numpy(tmp_path: Path, name: str) -> None:
    """Headers alone are read: the answer is there before torch would be imported."""
    from bench.mutations import sound_files

    sound_files(tmp_path)
    code = (
        "import sys\nfrom aprender.cli.apr import main\n"
        f"try: main(['inspect', {str(tmp_path / name)!r}])\nexcept SystemExit as end: assert end.code == 0\n"
        "sys.exit(str({'torch', 'numpy', 'gguf', 'safetensors', 'tokenizers', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


@pytest.mark.parametrize("words", [("inspect", "--stats"), ("convert", "x.apr")])
def test_without_torch_it_says_what_is_missing(tmp_path: Path, words: tuple[str, str]) -> None:
    """An installation without the numerics can look into models; what needs more says which package."""
    code = "import sys; sys.modules.update(torch=None, numpy=None)\nfrom aprender.cli.apr import main\nmain()"
    command = [sys.executable, "-c", code, words[0], str(TINY), words[1]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "install aprender[torch]" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    """Format, configuration, use, tokenizer and the table of tensors."""
    status, out, err = run("inspect", TINY, capsys=capsys)
    assert (status, err) == (0, "")
    for part in (
        "format               safetensors, 3 files, 2,466,867 bytes",
        "tensors              51 with 602,240 elements: 51 F32",
        "rms_norm_eps         0.0003",
        "windows              none in 4 layers",
        "tokenizer            BPE, 1000 tokens",
        "model.layers.3.self_attn.q_proj.weight           120x96  F32     46,080",
    ):
        assert part in out
    assert "mean" not in out


def test_statistics_are_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Minimum, mean, maximum, deviation and count of each tensor, NaN and infinity counted and left out."""
    tensors = seeded(QWEN2, torch.float32)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name][0, :3] = torch.tensor([float("nan"), float("inf"), 50.0])
    folder = write_folder(tmp_path / "model", config_json(QWEN2), tensors)
    status, out, _ = run("inspect", folder, "--stats", "--json", capsys=capsys)
    assert status == 0
    found = {tensor["name"]: tensor["statistics"] for tensor in json.loads(out)["tensors"]}
    finite = tensors[name][tensors[name].isfinite()].double()
    assert found[name]["non_finite"] == 2
    assert found[name]["maximum"] == 50.0
    assert found[name]["mean"] == pytest.approx(float(finite.mean()), rel=1e-9)
    assert found[name]["std"] == pytest.approx(float(finite.std(correction=0)), rel=1e-9)
    status, out, _ = run("inspect", folder, "--stats", capsys=capsys)
    assert next(line for line in out.splitlines() if line.startswith(name)).split()[-1] == "2"


def test_json_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object; digests when asked for."""
    status, out, _ = run("inspect", TINY, "--json", "--digest", capsys=capsys)
    data = json.loads(out)
    assert data["exit_code"] == status == 0
    assert data["config"]["head_dim"] == 20
    assert data["sha256"]["model.safetensors"] == sha256_of(TINY / "model.safetensors")
    assert {tensor["name"] for tensor in data["tensors"]} == set(load_checkpoint(TINY).tensors)
    assert data["problems"] == []


def test_problems_are_listed_and_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that can't be loaded is shown all the same, with why, and the exit code is 1."""
    tensors = seeded(QWEN2)
    tensors["model.layers.0.self_attn.q_prj.bias"] = tensors.pop("model.layers.0.self_attn.q_proj.bias")
    folder = write_folder(tmp_path / "model", config_json(QWEN2), tensors)
    status, out, _ = run("inspect", folder, capsys=capsys)
    assert status == 1
    assert "can't be loaded, 2 problems:" in out
    assert "unexpected model.layers.0.self_attn.q_prj.bias (did you mean model.layers.0.self_attn.q_proj.bias?)" in out
    status, out, _ = run("inspect", write_folder(tmp_path / "moe", {"model_type": "mixtral"}, tensors), capsys=capsys)
    assert status == 1
    assert "mixture-of-experts" in out


def test_one_file_of_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """A safetensors file by itself has tensors and no configuration, which is no fault."""
    status, out, _ = run("inspect", TINY / "model.safetensors", capsys=capsys)
    assert status == 0
    assert "not in this file" in out
    assert "51 with 602,240 elements" in out


def test_unsound_files_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is wrong with a file, inspecting it ends with 0 or 1, and never in a traceback."""
    for unsound in write_unsound(tmp_path / "unsound"):
        status, _, err = run("inspect", unsound.path, capsys=capsys)
        assert status in (0, 1)
        assert err.count("\n") <= 1
        assert "internal error" not in err


def test_converting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was written is said on standard output, what the format changed on standard error."""
    status, out, err = run("convert", TINY, tmp_path / "m.gguf", capsys=capsys)
    assert status == 0
    assert out.startswith(f"{tmp_path / 'm.gguf'}: gguf, 51 tensors, ")
    assert out.endswith("read back, every bit as it was\n")
    assert "apr: rms_norm_eps is float32 in GGUF: 0.0003000000142492354 for 0.0003\n" in err
    assert load_checkpoint(tmp_path / "m.gguf").config.head_dim == 20
    status, out, err = run("convert", TINY, tmp_path / "m.gguf", capsys=capsys)
    assert (status, out) == (1, "")
    assert err == f"apr: error: {tmp_path / 'm.gguf'}: is there already; --force replaces it\n"
    assert run("convert", TINY, tmp_path / "m.gguf", "--force", capsys=capsys)[0] == 0


@pytest.mark.parametrize(
    ("words", "status", "part"),
    [
        ((), 2, ""),
        (("--help",), 0, ""),
        (("inspekt",), 2, "no command 'inspekt'. Did you mean 'inspect'? Commands: inspect, convert"),
        (("inspect",), 2, "apr: the following arguments are required: MODEL; see apr inspect --help"),
        (("inspect", "/no/such/file"), 1, "apr: error: /no/such/file: there is no such file or folder"),
        (("convert", "/no/such/file", "x.apr"), 1, "there is no such file or folder"),
        (("inspect", "hf:nonsense"), 1, "is no model of the hub"),
    ],
)
def test_exit_codes(words: tuple[str, ...], status: int, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """0 done, 1 the model can't be used, 2 usage; one sentence each."""
    code, _, err = run(*words, capsys=capsys)
    assert code == status
    assert part in err
    assert err.count("\n") <= 1


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The program says its own name."""
    assert run("--version", capsys=capsys)[1].startswith("apr, version ")
    assert "apr COMMAND" in run("--help", capsys=capsys)[1]


def test_a_pickle_is_refused_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says why, and how to convert."""
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    for path in (tmp_path / "pytorch_model.bin", tmp_path):
        status, _, err = run("inspect", path, capsys=capsys)
        assert status == 1
        assert "a pickle can run any code when it is opened" in err
        assert "convert it to safetensors" in err

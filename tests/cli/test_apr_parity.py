"""``apr parity``: what it prints and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = "docs.examples.qwen2_parity"


def apr(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from aprender.cli.apr import main; main()", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def parity(candidate: str, *words: str) -> subprocess.CompletedProcess[str]:
    builds = ("--reference", f"{EXAMPLE}:build_reference", "--candidate", f"{EXAMPLE}:{candidate}")
    return apr("parity", *builds, "--map", "docs/examples/qwen2_parity.yaml", *words)


def test_the_example_is_red_and_says_where() -> None:
    done = parity("build_candidate")
    assert done.returncode == 1, done.stderr
    assert "First stage that is wrong: model.layers.0.self_attn, forward, output." in done.stdout
    assert "smallest reproducer: seed 0" in done.stdout
    assert "Running freely:" in done.stdout


def test_the_example_without_its_bug_is_green_as_json() -> None:
    done = parity("build_fixed", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["verdict"], found["exit_code"]) == (0, "GREEN", 0)
    assert found["ratio"] <= 1
    assert len(found["records"]) > 100


def test_too_short_an_input_is_not_proven() -> None:
    """At one position, RoPE, mask, scale and grouping have no effect."""
    done = parity("build_fixed", "--positions", "1")
    assert done.returncode == 3
    assert "inconclusive" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "the following arguments are required: --reference, --candidate"),
        (("--reference", "nowhere:build", "--candidate", "nowhere:build"), "'nowhere' can't be imported"),
        (("--reference", f"{EXAMPLE}:build_reference", "--candidate", f"{EXAMPLE}:build_fixed"), "has no module for"),
        (("--reference", "a:b", "--candidate", "a:b", "--rows", "0"), "'0' is not a number of at least 1"),
    ],
)
def test_usage_is_exit_code_2_and_one_message(words: tuple[str, ...], said: str) -> None:
    done = apr("parity", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr

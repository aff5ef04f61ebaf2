"""Modules that fail in the middle of a comparison: the stage or the run is ERROR, and the other stages are compared."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from aprender.errors import AprenderError
from aprender.parity.from_names import ModulesReport, compare_named
from aprender.parity.modules_text import modules_text
from aprender.parity.record import StageRecord
from aprender.parity.stages import Differentiated, Operator, ReferenceStage
from aprender.parity.teacher_forced import teacher_forced

HERE = "tests.parity.bad_modules"
PETABYTE = "out of memory (1125899906842624 bytes were asked for); use fewer rows or positions"
NAN = "weight of the {} has 1 of 384 values that are not finite, the first is nan at [1, 2]: load the weights anew"


def compared(reference: str, candidate: str) -> ModulesReport:
    return compare_named(f"{HERE}:{reference}", f"{HERE}:{candidate}", None, "f32", 2, 33, 0)


def by_stage(report: ModulesReport) -> dict[str, str]:
    names = dict.fromkeys(record.stage for record in report.comparison.records)
    return {name: report.comparison.of(name).verdict for name in names}


@pytest.mark.parametrize(
    ("candidate", "bad", "reason", "running"),
    [
        ("poisoned", ["up"], NAN.format("candidate"), ""),
        ("hungry_stage", ["up"], f"the candidate fails on what the reference was given, (2, 33, 16): {PETABYTE}", PETABYTE),
        ("hungry_between_stages", [], "", f"the candidate failed: {PETABYTE}"),
        ("raises_between_stages", [], "", "the candidate failed: RuntimeError: first line second line"),
    ],
)  # fmt: skip
def test_a_candidate_that_fails(candidate: str, bad: list[str], reason: str, running: str) -> None:
    report = compared("right", candidate)
    assert report.verdict == "ERROR"
    assert {name for name, verdict in by_stage(report).items() if verdict == "ERROR"} == set(bad)
    assert {"emb", "down", "head"} <= {name for name, verdict in by_stage(report).items() if verdict == "GREEN"}
    assert all(reason in record.reason for record in report.comparison.records if record.verdict == "ERROR")
    assert running in report.free.reason
    assert running in modules_text(report)


@pytest.mark.parametrize(
    ("reference", "good", "reason"),
    [
        ("hungry_between_stages", ["emb", "up", "down"], f"the reference, in float64, ended before it: {PETABYTE}"),
        ("raises_between_stages", ["emb", "up", "down"], "ended before it: RuntimeError: first line second line"),
        ("hungry_stage", ["emb"], f"the reference, in float64, ended before it: {PETABYTE}"),
    ],
)
def test_a_reference_that_ends_early(reference: str, good: list[str], reason: str) -> None:
    """What was compared before is kept; the rest says why it was not."""
    report = compared(reference, "right")
    assert report.verdict == "ERROR"
    assert [name for name, verdict in by_stage(report).items() if verdict == "GREEN"] == good
    assert set(by_stage(report)) == {"emb", "up", "down", "head"}
    assert all(reason in record.reason for record in report.comparison.records if record.verdict == "ERROR")
    assert "the reference failed" in report.free.reason


def test_nan_in_the_reference_is_error_everywhere_it_flows_and_never_red() -> None:
    report = compared("poisoned", "right")
    assert report.verdict == "ERROR"
    assert by_stage(report)["emb"] == "GREEN"
    first = report.comparison.first
    assert first is not None
    assert NAN.format("reference") in first.reason
    assert report.free.reason == "the reference's own output is not finite"


def test_other_shapes_are_named_on_both_sides() -> None:
    report = compared("right", "wider")
    reasons = {(r.stage, r.tensor): r.reason for r in report.comparison.records if r.verdict == "ERROR"}
    assert reasons["up", "output"] == "output has shape (2, 33, 32), the reference's (2, 33, 24)"
    assert "forward() returns shapes [(2, 33, 32)], the reference [(2, 33, 24)]" in reasons["up", "gradients"]
    assert "the candidate fails on what the reference was given, (2, 33, 24): RuntimeError" in reasons["down", "output"]
    assert by_stage(report)["emb"] == "GREEN"


def test_what_can_not_be_built_or_paired_is_one_message() -> None:
    with pytest.raises(AprenderError, match=r"hungry_builder\(\) failed: out of memory \(1125899906842624 bytes"):
        compared("right", "hungry_builder")
    with pytest.raises(AprenderError, match=r"no module for 'up' \(did you mean 'upp'\?\).*--map"):
        compared("right", "renamed")


@pytest.mark.parametrize(
    ("candidate", "status"), [("hungry_stage", 3), ("raises_between_stages", 3), ("hungry_builder", 2), ("renamed", 2)]
)
def test_the_command_says_it_without_a_traceback(candidate: str, status: int) -> None:
    code = "from aprender.cli.apr import main; main()"
    words = ["parity", "--reference", f"{HERE}:right", "--candidate", f"{HERE}:{candidate}", "--positions", "33"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr


class Ends:
    """A reference of three stages that fails at making the second."""

    names = ("first", "second", "third")

    def __init__(self, error: Exception) -> None:
        self.error = error

    def stages(self) -> Iterator[ReferenceStage]:
        x = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
        twice = Operator(lambda inputs, _: inputs[0] * 2)
        yield ReferenceStage("first", (x,), {}, twice, {"plan": twice})
        raise self.error


def test_a_reference_that_fails_at_making_a_stage_leaves_the_rest_error() -> None:
    doubled = Differentiated(lambda inputs, _: inputs[0] * 2, {})
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0")
    found = teacher_forced(Ends(error), dict.fromkeys(Ends.names, doubled))
    left: list[StageRecord] = [record for record in found.records if record.verdict == "ERROR"]
    assert [record.stage for record in left] == ["second", "third"]
    assert all("out of GPU memory (20.00 MiB were asked for)" in record.reason for record in left)
    assert {record.verdict for record in found.of("first").records} == {"GREEN"}

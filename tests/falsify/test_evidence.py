"""The ledger: append-only, chained, safe against crashes, full disks and other writers."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from aprender.falsify.digest import NotCanonical, canonical, digest
from aprender.falsify.evidence import EvidenceError, Ledger, Tampered
from tests.toy_project import Project


def record(name: str) -> dict[str, Any]:
    return {
        "id": name, "contract": "c", "verdict": "GREEN", "reason": "", "observed_at": "2026-11-22T00:00:00+00:00",
        "digests": {}, "inputs": {}, "options": {"device": "cpu", "model": None}, "value": 1e-7,
    }  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path / "evidence" / "c.cpu.jsonl")
    for name in ("one", "two", "three"):
        made.append(record(name))
    return made


@pytest.mark.parametrize("value", [2.0**53, 2.0**53 + 2, -2.905e17, 1e20, 1e21, 1e300, 5e-324])
def test_a_number_of_any_size_verifies_when_it_is_read_again(value: float, ledger: Ledger) -> None:
    """Canonical JSON writes floats up to 1e21 as integers, beyond what an integer may be there."""
    ledger.append(record("four") | {"value": value})
    assert ledger.records()[-1]["value"] == value


def test_each_record_names_the_hash_of_the_one_before(ledger: Ledger) -> None:
    """The first one names none."""
    records = ledger.records()
    assert [r["id"] for r in records] == ["one", "two", "three"]
    assert [r["previous"] for r in records] == [None, records[0]["sha256"], records[1]["sha256"]]


def test_canonical_json_is_rfc_8785() -> None:
    """Keys sorted, no blanks, numbers as ECMAScript prints them; NaN has no form."""
    assert canonical({"b": 1e-7, "a": [1.0, "é"]}) == '{"a":[1,"é"],"b":1e-7}'.encode()
    with pytest.raises(NotCanonical):
        digest(float("nan"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [lines[0], lines[1].replace("GREEN", "RED"), lines[2]], ":2: not a record as this tool writes it"),
        (lambda lines: [lines[0], lines[2]], ":2: does not follow the line before it"),
        (lambda lines: lines[1:], ":1: does not follow the line before it"),
        (lambda lines: [lines[1], lines[0], lines[2]], ":1: does not follow"),
        (lambda lines: [*lines, lines[2]], ":4: does not follow"),
        (lambda lines: [lines[0], "", *lines[1:]], ":2: not a record"),
        (lambda lines: [lines[0], "{}", *lines[1:]], ":2: not a record"),
        (lambda lines: [lines[0].replace(",", ", ", 1), *lines[1:]], ":1: not a record"),
    ],
)  # fmt: skip
def test_a_changed_removed_or_reordered_record_does_not_verify(change: Any, message: str, ledger: Ledger) -> None:
    """Reading and appending both refuse, and name the line."""
    lines = ledger.path.read_text().splitlines()
    ledger.path.write_text("".join(f"{line}\n" for line in change(lines)))
    with pytest.raises(Tampered, match=message):
        ledger.records()
    with pytest.raises(Tampered):
        ledger.append(record("four"))


@pytest.mark.parametrize("torn", [b"{", b'{"id":"four"', b"\xff\xfe"])
def test_a_crash_in_the_middle_of_a_write_loses_no_earlier_record(torn: bytes, ledger: Ledger) -> None:
    """The torn tail is set aside, the chain goes on."""
    with ledger.path.open("ab") as file:
        file.write(torn)
    assert len(ledger.records()) == 3
    ledger.append(record("four"))
    assert [r["id"] for r in ledger.records()] == ["one", "two", "three", "four"]
    assert ledger.path.with_suffix(".torn").read_bytes() == torn


def test_a_full_disk_takes_the_torn_write_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear error, and the earlier records as they were."""
    before = ledger.path.read_bytes()
    write = os.write

    def full(file: int, data: Any) -> int:
        write(file, bytes(data[:10]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(EvidenceError, match="No space left on device; free some space"):
        ledger.append(record("four"))
    assert ledger.path.read_bytes() == before


def test_a_folder_that_can_not_be_made_is_an_evidence_error(tmp_path: Path) -> None:
    """Not a traceback."""
    (tmp_path / "evidence").write_text("a file where the folder should be")
    with pytest.raises(EvidenceError, match="evidence not written"):
        Ledger(tmp_path / "evidence" / "c.cpu.jsonl").append(record("one"))


def _append_ten(path: Path) -> None:
    for number in range(10):
        Ledger(path).append(record(str(number)))


def test_several_processes_share_one_chain(tmp_path: Path) -> None:
    """Pytest -n writes from several workers at once."""
    path = tmp_path / "evidence" / "c.cpu.jsonl"
    with ProcessPoolExecutor(3) as pool:
        list(pool.map(_append_ten, [path] * 3))
    assert len(Ledger(path).records()) == 30


def test_evidence_says_all_that_a_verdict_rests_on(project: Project) -> None:
    """Digests, commit, host, system facts, seed, raw observations with units, both sides, witnesses, duration."""
    project.run()
    (line,) = (project.root / "evidence" / "thermometer-v1.cpu.jsonl").read_text().splitlines()
    written = json.loads(line)
    assert written["digests"].keys() == {"contract", "probe", "judge", "code"}
    assert written["inputs"].keys() == {
        "calibration.txt",
        "thermometer.py",
        "toyprobes/__init__.py",
        "toyprobes/reading.py",
    }
    assert written["inputs"]["calibration.txt"] == hashlib.sha256(b"0.5\n").hexdigest()
    assert written["git"].keys() == {"commit", "dirty"}
    assert written["host"].keys() >= {"name", "platform", "python", "libraries"}
    assert (written["system"], written["seed"]) == ({"device": "cpu", "seed": 7}, 7)
    assert written["observations"]["reading"] == {"value": 21.5, "unit": "degC"}
    assert written["expectations"] == [{"text": "abs(reading - room) < 0.1", "holds": True, "left": 0, "right": 0.1}]
    assert [w["outcome"] for w in written["witnesses"]] == ["caught", "caught"]
    assert written["seconds"] >= 0
    assert written["previous"] is None

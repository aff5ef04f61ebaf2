"""A small project of somebody else's: one contract, one probe, a thermometer as the system under contract."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aprender.contracts.contract import Contract
from aprender.contracts.load import load
from aprender.falsify.probe import Options
from aprender.falsify.record import FalsifierRun
from aprender.falsify.run import Runner

CONTRACT = """\
schema_version: 2
metadata:
  version: "1.0.0"
  description: A thermometer reads what the room has.
  references: ["ITS-90"]
  kind: pattern
  status: ACTIVE
proof_obligations:
  - {id: OBL-1, type: invariant, property: readings are right}
code_under_contract: [thermometer.py]
valid_for: 30d
falsification_tests:
  - id: FALSIFY-T-001
    rule: Readings are right
    prediction: The reading differs from the room by less than a tenth of a degree.
    if_fails: Look at the calibration table.
    ship_blocking: true
    covers: [OBL-1]
    probe: toyprobes.reading:reading
    with: {room: 21.5}
    expect:
      - abs(reading - room) < 0.1
    guards:
      - samples >= 2
    counter_example_classes:
      - offset_forgotten
      - {class: fahrenheit, violates: [abs(reading - room) < 0.1]}
"""

SYSTEM = """\
OFFSET = 0.5
def read(raw):
    return raw + OFFSET
"""

PROBES = """\
import json
from pathlib import Path
from aprender.falsify.probe import Defects, Observation, RequirementNotMet, probe
import thermometer

ROOT = Path(__file__).parents[1]
CALLS = ROOT / "calls.txt"
DEFECTS = Defects()


class Room:
    def __init__(self, device):
        self.device = device
        self.offset = thermometer.OFFSET
        self.scale = lambda celsius: celsius

    def facts(self):
        return {"device": self.device, "seed": 7}

    def fingerprint(self):
        return f"{self.offset} {id(self.scale)}"


class Factory:
    def inputs(self, options):
        return (ROOT / "calibration.txt",)

    def open(self, options):
        return Room(options.device)


@DEFECTS.plant("offset_forgotten")
def offset_forgotten(room):
    kept, room.offset = room.offset, 0.0
    yield
    room.offset = kept


@DEFECTS.plant("fahrenheit")
def fahrenheit(room):
    kept, room.scale = room.scale, lambda celsius: celsius * 9 / 5 + 32
    yield
    room.scale = kept


@probe(system=Factory(), observes={"reading": "degC", "room": "degC", "samples": ""}, defects=DEFECTS)
def reading(system, *, room):
    with CALLS.open("a") as calls:
        calls.write("reading\\n")
    value = system.scale(room - 0.5 + system.offset)
    return Observation({"reading": value, "room": room, "samples": 2}, output_digest=repr(value))
"""


@dataclass
class Project:
    """A project folder that tests edit by replacing text in its files."""

    root: Path

    @property
    def contract_path(self) -> Path:
        return self.root / "contracts" / "thermometer-v1.yaml"

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.root / file
        text = path.read_text()
        assert old in text, f"{old!r} is not in {file}"
        path.write_text(text.replace(old, new))
        forget_modules()

    def edit_contract(self, old: str, new: str) -> None:
        self.edit("contracts/thermometer-v1.yaml", old, new)

    def edit_probes(self, old: str, new: str) -> None:
        self.edit("toyprobes/reading.py", old, new)

    def contract(self) -> Contract:
        result = load([self.contract_path])
        assert not result.validation.errors, result.validation.findings
        return result.contracts[0]

    def run(self, device: str = "cpu") -> FalsifierRun:
        """Run the falsifier in this process and record it."""
        contract = self.contract()
        runner = Runner(Options(device, None))
        run = runner.run(contract, contract.falsifiers[0])
        runner.record(run)
        return run

    def probe_calls(self) -> int:
        calls = self.root / "calls.txt"
        return len(calls.read_text().splitlines()) if calls.exists() else 0


def forget_modules() -> None:
    """Make the next import read the project's files again."""
    for name in [n for n in sys.modules if n.partition(".")[0] in ("toyprobes", "toyhelper", "thermometer")]:
        del sys.modules[name]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = make_project(tmp_path)
    before = sys.path.copy()
    dont_write, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # edits within one second must be seen
    yield made
    sys.path[:] = before
    sys.dont_write_bytecode = dont_write
    forget_modules()


def make_project(root: Path) -> Project:
    for file, text in {
        "pyproject.toml": "",
        "thermometer.py": SYSTEM,
        "calibration.txt": "0.5\n",
        "toyprobes/__init__.py": "",
        "toyprobes/reading.py": PROBES,
        "contracts/thermometer-v1.yaml": CONTRACT,
    }.items():
        path = root / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return Project(root)

"""``pv`` as a user meets it: exit codes, messages, JSON, start-up. Every command runs in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.toy_project import Project

PV = Path(sys.executable).parent / "pv"


def pv(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [PV, *words], cwd=folder, capture_output=True, text=True, timeout=120, env={**os.environ, **env}, check=False
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


def pv_json(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    done = pv(folder, *words, "--json")
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["validate", "contracts"], ["status"]])
def test_start_up_imports_neither_torch_nor_numpy(words: list[str], project: Project) -> None:
    """Start-up is part of the interface."""
    code = (
        "import sys; from aprender.cli.pv import main\n"
        f"try: main({words!r})\n"
        "except SystemExit: pass\n"
        "sys.exit(str(sorted({'torch', 'numpy', 'toyprobes', 'rich'} & set(sys.modules)) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project.root, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "", done.stderr


def test_a_second_run_does_not_even_import_the_probes(project: Project) -> None:
    """With everything reused, neither probe nor system is touched."""
    pv(project.root, "run")
    code = "import sys; from aprender.cli.pv import main\ntry: main(['run'])\nexcept SystemExit: pass\nsys.exit('toyprobes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=project.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nothing changed: all 3 observations reused, nothing was run again" in done.stdout


def test_validate_exits_0_1_2(project: Project) -> None:
    """Valid, errors, nothing to validate."""
    done = pv(project.root, "validate")
    assert (done.returncode, done.stdout) == (
        0,
        "1 contract, 1 falsifier, 1 expectation: 0 errors, 0 warnings. Contract is valid.\n",
    )
    project.edit_contract("if_fails:", "if_fail:")
    done = pv(project.root, "validate", "contracts/thermometer-v1.yaml")
    assert done.returncode == 1
    first, _, _, second, _, _, last = done.stdout.splitlines()
    assert first.startswith("contracts/thermometer-v1.yaml:13:5: error SCHEMA-101 ")
    assert second.startswith("contracts/thermometer-v1.yaml:16:5: error SCHEMA-024 unknown key 'if_fail'")
    assert last == "1 contract, 1 falsifier, 1 expectation: 2 errors, 0 warnings. Contract is not valid."
    done = pv(project.root, "validate", "toyprobes")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "pv: toyprobes: no contract found (looked for *.yaml and *.yml); is this the right folder?\n"
    done = pv(project.root, "validate", "nowhere.yaml")
    assert done.returncode == 2
    assert "nowhere.yaml: no such file or folder" in done.stderr


def test_validate_json_is_one_object(project: Project) -> None:
    """Findings with rule, severity, file, line, column, message; and counts."""
    project.edit_contract("covers: [OBL-1]", "covers: [OBL-7]")
    status, report = pv_json(project.root, "validate")
    assert status == report["exit_code"] == 1
    assert report["counts"] == {"contracts": 1, "falsifiers": 1, "expectations": 1, "errors": 1, "warnings": 1}
    assert report["findings"][1] == {
        "rule": "REF-001", "severity": "error", "file": "contracts/thermometer-v1.yaml", "line": 18, "column": 14,
        "message": "no proof obligation 'OBL-7'. Did you mean 'OBL-1'? Known: OBL-1",
    }  # fmt: skip


def test_run_prints_the_table_of_a_green_run(project: Project) -> None:
    """Verdict, measured against bound, defects, time; on standard error a plain line, no bar."""
    done = pv(project.root, "run", "--device", "cpu")
    assert done.returncode == 0
    header, row, _, closing = done.stdout.splitlines()
    assert header.split() == ["FALSIFIER", "VERDICT", "MEASURED", "AGAINST", "BOUND", "DEFECTS", "TIME"]
    assert row.startswith("FALSIFY-T-001  GREEN    abs(reading - room) = 0 < 0.1  2/2 caught, 0 inert  ")
    assert closing == "1 falsifier: 1 GREEN; 2 of 2 planted defects caught; 3 observations, 0 reused from earlier runs"
    assert done.stderr == "FALSIFY-T-001: clean run, then 2 planted defects\n"
    assert "\x1b" not in done.stdout


def test_run_of_a_red_falsifier_shows_prediction_observation_and_where_to_look(project: Project) -> None:
    """Exit code 1, and all that a person needs next."""
    project.edit("thermometer.py", "OFFSET = 0.5", "OFFSET = 1.5")
    done = pv(project.root, "run")
    assert done.returncode == 1
    assert done.stdout.splitlines()[3:8] == [
        "FALSIFY-T-001 is RED: abs(reading - room) < 0.1, observed 1 against 0.1",
        "  prediction:  The reading differs from the room by less than a tenth of a degree.",
        "  observation: reading = 22.5 degC, room = 21.5 degC, samples = 2",
        "  if it fails: Look at the calibration table.",
        "  stated at:   contracts/thermometer-v1.yaml:13:5",
    ]


def test_run_json_is_one_object_and_quiet(project: Project) -> None:
    """The documented keys, nothing on standard error."""
    done = pv(project.root, "run", "--json")
    report = json.loads(done.stdout)
    assert done.stderr == ""
    assert (report["counts"], report["exit_code"], report["findings"]) == ({"GREEN": 1}, 0, [])
    (entry,) = report["falsifiers"]
    assert entry.pop("seconds") >= 0
    assert entry.pop("observed_at")
    assert entry == {
        "id": "FALSIFY-T-001", "contract": "contracts/thermometer-v1.yaml", "verdict": "GREEN", "ship_blocking": True,
        "reason": "every expectation holds", "reused": 0,
        "observations": {
            "reading": {"value": 21.5, "unit": "degC"}, "room": {"value": 21.5, "unit": "degC"},
            "samples": {"value": 2, "unit": ""},
        },
        "expectations": [{"text": "abs(reading - room) < 0.1", "holds": True, "left": 0.0, "right": 0.1}],
        "guards": [{"text": "samples >= 2", "holds": True, "left": 2.0, "right": 2.0}],
        "witnesses": [
            {
                "defect": defect, "outcome": "caught", "detail": f"abs(reading - room) < 0.1, observed {left} against 0.1",
                "violated": [{"text": "abs(reading - room) < 0.1", "holds": False, "left": left, "right": 0.1}],
            }
            for defect, left in (("offset_forgotten", 0.5), ("fahrenheit", 49.2))
        ],
    }  # fmt: skip


def test_a_nan_is_reported_in_valid_json(project: Project) -> None:
    """JSON has no NaN; the observation is still shown."""
    project.edit_probes('"reading": value', '"reading": float("nan")')
    status, report = pv_json(project.root, "run")
    assert (status, report["counts"]) == (3, {"ERROR": 1})
    assert report["falsifiers"][0]["observations"]["reading"]["value"] == "nan"


def test_only_selects_by_id_and_suggests_near_misses(project: Project) -> None:
    """Nothing selected is exit code 2."""
    assert pv(project.root, "run", "--only", "FALSIFY-T-001").returncode == 0
    done = pv(project.root, "run", "--only", "FALSIFY-T-002")
    assert done.returncode == 2
    assert done.stderr == "pv: --only FALSIFY-T-002: no such falsifier. Did you mean 'FALSIFY-T-001'?\n"


def test_unproven_and_error_exit_3(project: Project) -> None:
    """Nothing was shown false, and nothing was shown."""
    project.edit_contract("- offset_forgotten", "- mercury_frozen")
    done = pv(project.root, "run")
    assert done.returncode == 3
    assert "FALSIFY-T-001 is UNPROVEN: mercury_frozen not planted" in done.stdout
    project.edit_contract("toyprobes.reading:reading", "toyprobes.nothing:reading")
    done = pv(project.root, "run")
    assert done.returncode == 3
    assert "contracts/thermometer-v1.yaml:19:5: no module 'toyprobes.nothing'" in done.stdout


def test_a_run_in_which_nothing_could_run_exits_2(project: Project) -> None:
    """SKIPPED shows its reason and proves nothing."""
    project.edit_contract("with: {room: 21.5}", "with: {room: 21.5}\n    requires: {device: cuda}")
    done = pv(project.root, "run", "--device", "cpu")
    assert done.returncode == 2
    assert "SKIPPED" in done.stdout
    assert "1 falsifier: 1 SKIPPED" in done.stdout


def test_an_invalid_contract_is_not_run_and_the_others_are(project: Project) -> None:
    """Nothing lost: the valid one runs, the invalid one is named, and the whole is not proven."""
    (project.root / "contracts" / "broken.yaml").write_text("schema_version: 2\nmetadata: 3\n")
    done = pv(project.root, "run")
    assert done.returncode == 3
    assert "1 GREEN" in done.stdout
    assert "pv: contract not run: contracts/broken.yaml:2:11: SCHEMA-102 metadata must be a mapping" in done.stderr


def test_a_missing_model_is_a_usage_error(project: Project) -> None:
    """Exit code 2 and the path."""
    done = pv(project.root, "run", "--model", "nowhere")
    assert done.returncode == 2
    assert "'nowhere' does not exist" in done.stderr


def test_evidence_that_can_not_be_written_is_said_and_is_not_proven(project: Project) -> None:
    """The verdicts are still printed."""
    (project.root / "evidence").write_text("a file where the folder should be")
    done = pv(project.root, "run")
    assert done.returncode == 3
    assert "1 GREEN" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("pv: error: ")
    assert "thermometer-v1.cpu.jsonl: evidence can't be read: Not a directory" in done.stderr


def test_gate_and_status_go_by_evidence_alone(project: Project) -> None:
    """3 without evidence, 0 with it, 3 when stale, 1 when RED, 4 when tampered; status only reports."""
    done = pv(project.root, "gate")
    assert done.returncode == 3
    assert done.stdout.splitlines()[-3:] == [
        "ship 0% (0/1)",
        "contracts/thermometer-v1.yaml claims ACTIVE: evidence does not support it: FALSIFY-T-001",
        "gate: do not ship (exit 3)",
    ]
    pv(project.root, "run")
    done = pv(project.root, "gate")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-3:] == [
        "ship 100% (1/1)",
        "contracts/thermometer-v1.yaml claims ACTIVE: evidence supports it",
        "gate: ship",
    ]
    project.edit("thermometer.py", "OFFSET = 0.5", "OFFSET = 1.5")
    assert pv(project.root, "gate").returncode == 3
    assert pv(project.root, "status").returncode == 0
    pv(project.root, "run")
    assert pv(project.root, "gate").returncode == 1
    ledger = project.root / "evidence" / "thermometer-v1.cpu.jsonl"
    ledger.write_text(ledger.read_text().replace("RED", "GREEN"))
    status, report = pv_json(project.root, "gate")
    assert (status, report["counts"]) == (4, {"TAMPERED": 1})
    assert pv(project.root, "status").returncode == 4


def test_no_color_wins_over_a_terminal_and_colour_is_only_for_terminals(project: Project) -> None:
    """Under a pseudo-terminal verdicts are coloured, unless NO_COLOR is set."""
    pty = pytest.importorskip("pty")

    def on_a_terminal(**env: str) -> str:
        main, other = pty.openpty()
        subprocess.run([PV, "run"], cwd=project.root, stdout=other, stderr=other, env={**os.environ, **env}, check=True)
        os.close(other)
        text = b""
        try:
            while chunk := os.read(main, 65536):
                text += chunk
        except OSError:  # Linux: the other end is closed and all is read
            pass
        os.close(main)
        return text.decode()

    assert "\x1b[32m" in on_a_terminal(NO_COLOR="", TERM="xterm")
    assert "\x1b[32m" not in on_a_terminal(NO_COLOR="1", TERM="xterm")


def test_a_tampered_ledger_is_exit_code_4_for_run_too(project: Project) -> None:
    """What was run can't be added to a chain that does not verify."""
    pv(project.root, "run")
    ledger = project.root / "evidence" / "thermometer-v1.cpu.jsonl"
    ledger.write_text(ledger.read_text().replace("GREEN", "RED"))
    done = pv(project.root, "run")
    assert done.returncode == 4
    assert "restore the file from git, or move it away and run pv run again" in done.stderr
    ledger.unlink()
    assert pv(project.root, "run").returncode == 0


def test_what_a_probe_prints_does_not_break_the_json(project: Project) -> None:
    """Standard output is the report's."""
    project.edit_probes("    value = system.scale", "    print('looking')\n    value = system.scale")
    done = pv(project.root, "run", "--json")
    assert json.loads(done.stdout)["counts"] == {"GREEN": 1}
    assert "looking" in done.stderr


def test_a_file_that_can_not_be_read_is_one_sentence(project: Project) -> None:
    """A dangling input file, for the gate and for the run."""
    pv(project.root, "run")
    (project.root / "calibration.txt").unlink()
    assert pv(project.root, "gate").returncode == 3
    done = pv(project.root, "run")
    assert done.returncode == 3
    assert "calibration.txt" in done.stdout


def test_output_that_can_not_be_written_is_not_red(project: Project) -> None:
    """A full disk behind standard output."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [PV, "validate"], cwd=project.root, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 3
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr

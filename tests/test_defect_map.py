"""The map from ways to be wrong to planted defects: complete, and true of the contracts and of a run."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from aprender.contracts.load import load

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts/defect_map.py"
IDS, TARGET = ROOT / "docs/defect-ids.yaml", ROOT / "docs/defect-map.md"
DEFECTS = ROOT.parent / "shared" / "defects.md"
ENTRIES: dict[str, dict[str, Any]] = yaml.safe_load(IDS.read_text("utf-8"))
KINDS = ("classes", "not_yet", "not_ours")


def declared() -> set[str]:
    contracts = load([ROOT / "contracts"]).contracts
    return {defect.name for contract in contracts for f in contract.falsifiers for defect in f.defect_classes}


def defect_map(ids: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    spec = importlib.util.spec_from_file_location("defect_map", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["defect_map"] = module
    spec.loader.exec_module(module)
    page: str = module.defect_map(ids, record)
    return page


def test_every_id_of_the_list_is_in_the_map() -> None:
    """F, T and G by their ids, H by its numbers."""
    if not DEFECTS.exists():
        pytest.skip(f"{DEFECTS} is not here")
    text = DEFECTS.read_text("utf-8")
    ids = set(re.findall(r"^\| ([FTG]\d+) \|", text, re.MULTILINE))
    history = text[text.index("## H. ") :]
    ids |= {f"H{number}" for number in re.findall(r"(?:^| )(\d+)\. ", history, re.MULTILINE)}
    assert len(ids) >= 250
    assert ids == set(ENTRIES)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_id_has_classes_that_are_declared_or_the_reason_why_not(name: str) -> None:
    """Exactly one of the two, and nothing else but a note."""
    entry = ENTRIES[name]
    assert sum(kind in entry for kind in KINDS) == 1
    assert entry.keys() <= {"what", "note", *KINDS}
    assert all(entry.values())
    assert set(entry.get("classes", ())) <= declared()


def test_the_committed_map_has_a_row_for_every_id() -> None:
    """``make defect-map`` writes it anew."""
    page = TARGET.read_text("utf-8")
    rows = {row.split(" | ")[0].removeprefix("| ") for row in page.splitlines() if row.startswith("| ")}
    assert set(ENTRIES) <= rows
    assert not {name for entry in ENTRIES.values() for name in entry.get("classes", ()) if f"`{name}`" not in page}


def cell(outcome: str, left: float = 0.0) -> dict[str, Any]:
    violated = [{"text": "ratio <= 1", "holds": False, "left": left, "right": 1.0}] if outcome == "caught" else []
    return {"outcome": outcome, "detail": "planted, and a | b holds", "violated": violated}


RECORD = {
    "matrix": [
        {
            "contract": "contracts/x.yaml",
            "falsifiers": ["FALSIFY-X-001", "FALSIFY-X-002"],
            "defects": {
                "dropped": {"FALSIFY-X-001": cell("caught", 4761.9), "FALSIFY-X-002": cell("survived")},
                "doubled": {"FALSIFY-X-002": cell("caught", 2.0)},
            },
        }
    ],
    "falsifiers": [{"system": {"device": "a GPU"}}, {"system": {}}, {"system": {"device": "cuda:0"}}],
    "device": "cuda",
    "caught": 2,
    "declared": 3,
}


def test_numbers_come_from_the_record_and_what_was_not_caught_says_so() -> None:
    """A row per class and falsifier; classes that nobody lists, and ids that nobody plants, have tables of their own."""
    ids: dict[str, dict[str, Any]] = {
        "F1": {"what": "all | gone", "classes": ["dropped", "forgotten"], "note": "nearest"},
        "F2": {"what": "one gone", "not_yet": "the trainer"},
        "F3": {"what": "another", "not_ours": "there is none"},
    }
    page = defect_map(ids, RECORD)
    for row in (
        "| F1 | all \\| gone (nearest) | `dropped` | X-001 | `ratio = 4.76e+03` | `<= 1` |",
        "| F1 | | `dropped` | X-002 | **survived** | planted, and a \\| b holds |",
        "| F1 | | `forgotten` | none | **not planted** | no falsifier of this record declares it |",
        "| F2 | one gone | not yet: the trainer |",
        "| F3 | another | not ours: there is none |",
        "| `doubled` | X-002 | `ratio = 2` | `<= 1` |",
    ):
        assert row in page.splitlines()
    assert "0 of 3 ids have planted classes, caught by every falsifier" in page
    assert "1 are not yet; 1 are not ours.\n2 of 3 pairs" in page
    assert "from a run on cuda (a GPU);" in page
    ids["F1"]["classes"] = ["doubled"]
    assert "1 of 3 ids have planted classes" in defect_map(ids, RECORD)


def test_an_empty_record_writes_nothing() -> None:
    """A run that failed must not leave a map of nothing."""
    before = TARGET.read_bytes()
    done = subprocess.run([sys.executable, SCRIPT], cwd=ROOT, input="", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("defect_map: no matrix on standard input; run: pv prove contracts --json |")
    assert TARGET.read_bytes() == before

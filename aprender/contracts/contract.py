"""The contract as the rest of the road uses it: immutable, typed, each falsifier with its place in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.expression import Comparison, parse
from aprender.contracts.findings import Position

_HOURS = {"h": 1, "d": 24, "w": 168}


@dataclass(frozen=True, slots=True)
class DefectClass:
    """A named way to be wrong; ``violates`` are the expectations that must fail when it is planted (empty: any)."""

    name: str
    violates: tuple[str, ...]


@dataclass(frozen=True)
class Falsifier:
    """One entry of ``falsification_tests``: how the claim could be shown false."""

    id: str
    prediction: str
    if_fails: str
    ship_blocking: bool
    probe: str | None
    arguments: Mapping[str, Any]
    requires_device: str | None
    gate_device: str | None
    expectations: tuple[Comparison, ...]
    guards: tuple[Comparison, ...]
    defect_classes: tuple[DefectClass, ...]
    source: Mapping[str, Any]
    position: Position
    positions: Mapping[str, Position]

    def at(self, key: str) -> Position:
        """Where ``key`` of this falsifier stands in the file, or the falsifier itself where it has no such key."""
        return self.positions.get(key, self.position)


@dataclass(frozen=True)
class Contract:
    """One YAML document that ``pv validate`` accepts."""

    path: Path
    data: Mapping[str, Any]
    falsifiers: tuple[Falsifier, ...]
    code_under_contract: tuple[str, ...]
    valid_for: timedelta | None

    @property
    def id(self) -> str:
        """The file's stem."""
        return self.path.stem

    @property
    def status(self) -> str | None:
        """The author's claim (``metadata.status``)."""
        status: str | None = self.data["metadata"].get("status")
        return status


def contract_of(document: Document) -> Contract:
    """The contract in a version 2 ``document`` that has no error-level finding."""
    data = document.data
    valid_for = data.get("valid_for")
    return Contract(
        path=Path(document.file),
        data=data,
        falsifiers=tuple(_falsifier(document, i) for i in range(len(data["falsification_tests"]))),
        code_under_contract=tuple(data.get("code_under_contract", ())),
        valid_for=timedelta(hours=int(valid_for[:-1]) * _HOURS[valid_for[-1]]) if valid_for else None,
    )


def _falsifier(document: Document, index: int) -> Falsifier:
    entry = document.data["falsification_tests"][index]
    at = ("falsification_tests", index)
    return Falsifier(
        id=entry["id"],
        prediction=entry["prediction"],
        if_fails=entry["if_fails"],
        ship_blocking=entry.get("ship_blocking", False),
        probe=entry.get("probe"),
        arguments=entry.get("with", {}),
        requires_device=entry.get("requires", {}).get("device"),
        gate_device=entry.get("gate_requires", {}).get("device"),
        expectations=tuple(map(parse, entry.get("expect", ()))),
        guards=tuple(map(parse, entry.get("guards", ()))),
        defect_classes=tuple(map(_defect_class, entry.get("counter_example_classes", ()))),
        source=entry,
        position=document.position(at),
        positions={key: document.key_position((*at, key)) for key in entry},
    )


def _defect_class(entry: str | Mapping[str, Any]) -> DefectClass:
    if isinstance(entry, str):
        return DefectClass(entry, ())
    return DefectClass(entry["class"], tuple(entry.get("violates", ())))

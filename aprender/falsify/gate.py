"""The end of the road: what is known of every falsifier now, from evidence alone. Imports no probe, needs no GPU."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aprender.contracts.contract import Contract, Falsifier
from aprender.errors import AprenderError
from aprender.falsify.bind import project_root
from aprender.falsify.digest import (
    digest,
    file_digest,
    files_digest,
    glob_files,
    judge_digest,
)
from aprender.falsify.evidence import Ledger, Tampered, ledgers_of
from aprender.falsify.judge import judge
from aprender.falsify.record import Outcome
from aprender.falsify.sources import probe_files
from aprender.falsify.verdict import Verdict, worst


@dataclass(frozen=True)
class Standing:
    """The present verdict of one falsifier and the evidence behind it (None where there is none)."""

    contract: Contract
    falsifier: Falsifier
    verdict: Verdict
    reason: str
    evidence: dict[str, Any] | None

    @property
    def device(self) -> str | None:
        """The device that the evidence was made on."""
        return self.evidence["options"]["device"] if self.evidence else None

    def to_json(self) -> dict[str, Any]:
        """All that ``pv status --json`` prints of it."""
        return {
            "id": self.falsifier.id,
            "contract": str(self.contract.path),
            "verdict": str(self.verdict),
            "reason": self.reason,
            "ship_blocking": self.falsifier.ship_blocking,
            "device": self.device,
            "observed_at": self.evidence["observed_at"] if self.evidence else None,
        }


def standings(contracts: Iterable[Contract], now: datetime | None = None) -> list[Standing]:
    """What is known now of every falsifier of ``contracts``."""
    at = now or datetime.now(UTC)
    return [standing for contract in contracts for standing in _of_contract(contract, at)]


def ship_percentage(found: Iterable[Standing]) -> float | None:
    """GREEN ship-blocking falsifiers in percent of all ship-blocking ones; None where there is none."""
    blocking = [standing.verdict is Verdict.GREEN for standing in found if standing.falsifier.ship_blocking]
    return 100 * sum(blocking) / len(blocking) if blocking else None


def _of_contract(contract: Contract, now: datetime) -> list[Standing]:
    try:
        records = [
            r
            for d, ledger in ledgers_of(project_root(contract.path), contract.id).items()
            for r in _of_this(contract, d, ledger)
        ]
    except Tampered as error:
        return [Standing(contract, f, Verdict.TAMPERED, str(error), None) for f in contract.falsifiers]
    except AprenderError as error:
        return [Standing(contract, f, Verdict.ERROR, str(error), None) for f in contract.falsifiers]
    return [_standing(contract, falsifier, records, now) for falsifier in contract.falsifiers]


def _of_this(contract: Contract, device: str, ledger: Ledger) -> list[dict[str, Any]]:
    records = ledger.records()
    for number, record in enumerate(records, start=1):
        if record["contract"] != contract.id or record["options"]["device"] != device:
            raise Tampered(f"{ledger.path}:{number}: a record of another contract or device; move it back")
    return records


def _standing(contract: Contract, falsifier: Falsifier, records: list[dict[str, Any]], now: datetime) -> Standing:
    """The last record of each device's ledger counts, and the worst of them wins.

    With ``gate_requires`` other devices' evidence can't ship, but a fresh RED among it still stops.
    """
    newest: dict[str, dict[str, Any]] = {}
    for record in records:
        if record["id"] == falsifier.id and record["options"]["model"] is None:
            newest[record["options"]["device"]] = record  # ledgers are in order of appending
    judged = [_judge_record(contract, falsifier, record, now) for record in newest.values()]
    needed = falsifier.gate_device
    counting = [s for s in judged if s.device == needed or needed is None]
    if not counting:
        where = f" from a {needed} machine" if needed else ""
        other = f" (there is {judged[0].verdict} evidence from {judged[0].device})" if judged else ""
        reason = f"no evidence{where}{other}: run pv run there" if needed else "no evidence: run pv run"
        if not any(s.verdict is Verdict.RED for s in judged):
            return Standing(contract, falsifier, Verdict.UNPROVEN, reason, None)
    others = [s for s in judged if s not in counting and s.verdict is Verdict.RED]
    decisive = worst(s.verdict for s in [*counting, *others])
    return next(s for s in [*counting, *others] if s.verdict is decisive)


def _judge_record(contract: Contract, falsifier: Falsifier, record: dict[str, Any], now: datetime) -> Standing:
    verdict, reason = Verdict(record["verdict"]), record["reason"]
    try:
        stale = _stale(contract, falsifier, record, now)
    except AprenderError as error:
        return Standing(contract, falsifier, Verdict.ERROR, str(error), record)
    except OSError as error:
        return Standing(
            contract, falsifier, Verdict.ERROR, f"{error.filename}: can't be read: {error.strerror}", record
        )
    if stale:
        verdict, reason = Verdict.STALE, stale
    elif contradiction := _contradiction(contract, falsifier, record):
        verdict, reason = Verdict.TAMPERED, contradiction
    return Standing(contract, falsifier, verdict, reason, record)


def _stale(contract: Contract, falsifier: Falsifier, record: dict[str, Any], now: datetime) -> str | None:
    """Why the record is not evidence for what lies here now, or None."""
    root = project_root(contract.path)
    current = {
        "contract": digest(contract.data),
        "probe": probe_files(root, falsifier.probe or "").digest(),
        "judge": judge_digest(),
        "code": files_digest(root, glob_files(root, contract.code_under_contract)),
    }
    words = {"contract": "contract", "probe": "probe", "judge": "judge", "code": "code under contract"}
    changed = [words[name] for name, known in current.items() if record["digests"].get(name) != known]
    changed += [path for path, known in record["inputs"].items() if _now(root / path) != known]
    if changed:
        return f"changed since the evidence was made: {', '.join(changed)}; run pv run again"
    age = now - datetime.fromisoformat(record["observed_at"])
    if contract.valid_for is not None and age > contract.valid_for:
        return f"the evidence is {_span(age)} old, valid for {_span(contract.valid_for)}; run pv run again"
    if age < timedelta(minutes=-5):
        return "the evidence is dated in the future; set this host's clock, or run pv run again"
    return None


def _contradiction(contract: Contract, falsifier: Falsifier, record: dict[str, Any]) -> str | None:
    """How a GREEN record contradicts itself, or None: it is judged again, and its witnesses are counted."""
    if record["verdict"] != Verdict.GREEN:
        return None
    try:
        observed = {name: entry["value"] for name, entry in record["observations"].items()}
        caught = {witness["defect"] for witness in record["witnesses"] if witness["outcome"] == Outcome.CAUGHT}
        inputs = record["inputs"]
    except (KeyError, TypeError, AttributeError):
        return "the record lacks observations or witnesses: it was not written by pv run"
    again = judge(falsifier, observed, dict.fromkeys(observed, ""))
    if again.verdict is not Verdict.GREEN:
        return f"recorded as GREEN, but its observations are {again.verdict}: {again.reason}"
    if caught != {defect.name for defect in falsifier.defect_classes} or not caught:
        return "recorded as GREEN, but not every declared defect class has a witness"
    return None if inputs else "recorded as GREEN, but it names no input or source file"


def _now(path: Path) -> str | None:
    return file_digest(path) if path.is_file() else None


def _span(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
